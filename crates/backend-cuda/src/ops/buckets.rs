//! Sizes that decode steps are padded to, so that a few graphs run them all.
//!
//! A bucket is a number of rows and a level: how many splits of attention there is room for. Level
//! 0 has one item a row; each level above has four times as many as the one below it, and merges.
//!
//! Invariant: a step's bucket has room for all of the step's items; the highest level has room for
//! any step's.

use std::collections::BTreeSet;

use super::step::StepShape;
use crate::attention_plan::{AttentionPlan, PlanShape};
use crate::kernels::SPLIT_KEYS;

/// Padded sizes of a step that a graph can run: the same sizes, the same launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GraphKey {
    pub(super) num_rows: usize,
    pub(super) level: u32,
}

/// Items of a level are so many times those of the one below.
const ITEMS_PER_LEVEL: usize = 4;

impl GraphKey {
    /// The lowest level of `num_rows` that holds `cuts`; `None` where no graph can.
    pub(super) fn of(shape: &StepShape, cuts: &[AttentionPlan], num_rows: usize) -> Option<Self> {
        let holds = |key: &Self| {
            let mut kinds = cuts.iter().zip(&shape.plans);
            kinds.all(|(cut, plan)| {
                let [num_decode, num_merges] = key.items(shape, plan);
                cut.prefill.is_empty()
                    && cut.decode.len() <= num_decode
                    && cut.merges.len() <= num_merges
            })
        };
        let levels = 0..=top_level(shape);
        levels.map(|level| Self { num_rows, level }).find(holds)
    }

    /// Less is more important: short contexts before long ones, few rows before many.
    pub(super) fn importance(&self) -> (u32, usize) {
        (self.level, self.num_rows)
    }

    /// Decode items and merge items of layers of `plan`.
    pub(super) fn items(&self, shape: &StepShape, plan: &PlanShape) -> [usize; 2] {
        let rows = self.num_rows;
        if self.level == 0 {
            return [rows, 0];
        }
        let room = ITEMS_PER_LEVEL.saturating_pow(self.level);
        let items = rows.saturating_mul(room.min(max_splits(shape, plan)));
        [items.min(rows + shape.max_partials), rows]
    }
}

/// Splits of a row at most.
fn max_splits(shape: &StepShape, plan: &PlanShape) -> usize {
    let all = shape.max_model_len.div_ceil(SPLIT_KEYS).max(1);
    plan.window
        .map_or(all, |window| all.min(window.div_ceil(SPLIT_KEYS) + 1))
}

/// The level at which there is room for all splits.
fn top_level(shape: &StepShape) -> u32 {
    let splits = shape.plans.iter().map(|plan| max_splits(shape, plan));
    let most = splits.max().unwrap_or(1);
    let holds = |level: &u32| ITEMS_PER_LEVEL.saturating_pow(*level) >= most;
    (0..usize::BITS).find(holds).unwrap_or(0)
}

/// All buckets of `shape`, at most `max_num`: those of short contexts before those of long ones, of
/// few rows before those of many.
pub(super) fn graph_keys(shape: &StepShape, max_num: usize) -> Vec<GraphKey> {
    let max_rows = shape.max_decode_rows();
    let rows: BTreeSet<usize> = (1..=max_rows)
        .map(|rows| padded_rows(rows, max_rows))
        .collect();
    let levels = 0..=top_level(shape);
    let keys = levels.flat_map(|level| rows.iter().map(move |&num_rows| (level, num_rows)));
    let keys = keys.map(|(level, num_rows)| GraphKey { num_rows, level });
    // Where a level has no more room than the one below, no step takes it.
    let is_taken = |key: &GraphKey| {
        let below = GraphKey {
            level: key.level.saturating_sub(1),
            ..*key
        };
        let mut plans = shape.plans.iter();
        key.level == 0 || plans.any(|plan| key.items(shape, plan) != below.items(shape, plan))
    };
    keys.filter(is_taken).take(max_num).collect()
}

/// Rows of the bucket that `num_rows` decode rows run in: 1, 2, 4, 8, then multiples of eight.
pub(super) fn padded_rows(num_rows: usize, max_rows: usize) -> usize {
    let padded = match num_rows {
        0..=8 => num_rows.next_power_of_two(),
        _ => num_rows.next_multiple_of(8),
    };
    padded.min(max_rows.max(num_rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(max_num_seqs: usize, max_model_len: usize, windows: &[Option<usize>]) -> StepShape {
        let plan = |&window| PlanShape {
            group: 2,
            head_dim: 64,
            window,
        };
        StepShape {
            block_size: 16,
            num_blocks: 0,
            max_num_batched_tokens: 2048,
            max_num_seqs,
            max_model_len,
            plans: windows.iter().map(plan).collect(),
            max_partials: 1000,
            max_logits: max_num_seqs,
        }
    }

    #[test]
    fn buckets_of_rows_hold_their_rows_and_no_more_than_there_are() {
        for (num_rows, max_rows, expected) in [
            (1, 256, 1),
            (3, 256, 4),
            (5, 256, 8),
            (9, 256, 16),
            (17, 256, 24),
            (251, 256, 256),
            (251, 253, 253),
            (5, 6, 6),
        ] {
            assert_eq!(
                padded_rows(num_rows, max_rows),
                expected,
                "{num_rows} of {max_rows}"
            );
        }
    }

    #[test]
    fn every_step_has_a_bucket_that_is_captured() {
        let windows = [None, Some(500)];
        for max_model_len in [100, 256, 257, 2000, 40_000] {
            let shape = shape(16, max_model_len, &windows);
            let keys = graph_keys(&shape, 1000);
            for position in [0, 1, 255, 256, 700, 1999, 39_999] {
                let num_rows = 5;
                let mut cuts = vec![AttentionPlan::default(); 2];
                for (cut, plan) in cuts.iter_mut().zip(&shape.plans) {
                    for row in 0..num_rows {
                        let sequence = crate::attention_plan::Sequence {
                            first_token: row,
                            num_tokens: 1,
                            position: position.min(max_model_len - 1),
                            table_start: 0,
                        };
                        let has_room = cut.num_partials + 158 <= shape.max_partials;
                        let variant = crate::kernels::Variant::Decode;
                        cut.add(&sequence, plan, variant, has_room);
                    }
                }
                let key = GraphKey::of(&shape, &cuts, 8).unwrap();
                assert!(keys.contains(&key), "{key:?} at {position}: {keys:?}");
                for (cut, plan) in cuts.iter().zip(&shape.plans) {
                    let [num_decode, num_merges] = key.items(&shape, plan);
                    assert!(cut.decode.len() <= num_decode && cut.merges.len() <= num_merges);
                }
            }
        }
    }

    #[test]
    fn there_are_as_many_buckets_as_contexts_need() {
        let of = |seqs, len, windows: &[Option<usize>]| graph_keys(&shape(seqs, len, windows), 99);
        // 1, 2, 4 and 8 rows; a context of one split has one level.
        assert_eq!(of(8, 256, &[None]).len(), 4);
        // Up to 4, 16 and 32 splits.
        assert_eq!(of(8, 8192, &[None]).len(), 16);
        // A window of 100 positions lies in two splits at most.
        assert_eq!(of(8, 8192, &[Some(100)]).len(), 8);
        let keys = of(256, 8192, &[None]);
        assert_eq!(keys.len(), 99);
        // All of short contexts, and then few rows first.
        assert_eq!(keys.iter().filter(|key| key.level == 0).count(), 35);
        assert_eq!((keys[0].num_rows, keys[35].num_rows), (1, 1));
    }

    #[test]
    fn no_graph_runs_prompts() {
        let shape = shape(8, 2000, &[None]);
        let cut = AttentionPlan {
            prefill: vec![super::super::step::NOTHING],
            ..AttentionPlan::default()
        };
        assert_eq!(GraphKey::of(&shape, &[cut], 8), None);
    }
}
