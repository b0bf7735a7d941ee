//! How a step's attention is cut into work items.
//!
//! A decode row of a long context is one item a split, so that many blocks share it; a chunk of a
//! prompt is items of as many rows as a block takes, each with all its splits. Either way a row's
//! bits are the same: the plan is a question of speed alone.
//!
//! Invariant: every row of the step is in exactly one whole item, or in one merge item and in one
//! item for each of its splits.

use crate::kernels::{AttentionItem, SPLIT_KEYS, Variant};

/// One sequence's tokens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Its first token in the step.
    pub first_token: usize,
    /// Tokens of it.
    pub num_tokens: usize,
    /// Position of the first.
    pub position: usize,
    /// Start of its blocks in the step's block tables.
    pub table_start: usize,
}

/// What of a layer's attention a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanShape {
    /// Query heads that share a key head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions that are seen, the own one included.
    pub window: Option<usize>,
}

/// The items of a step. Vectors are reused from step to step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionPlan {
    /// For [`Variant::Decode`].
    pub decode: Vec<AttentionItem>,
    /// For [`Variant::Prefill`].
    pub prefill: Vec<AttentionItem>,
    /// Rows whose splits are apart.
    pub merges: Vec<AttentionItem>,
    /// Partial results, each of sixteen rows and all key heads.
    pub num_partials: usize,
}

impl AttentionPlan {
    /// Cuts the step's `sequences`.
    pub fn make(&mut self, sequences: &[Sequence], shape: &PlanShape) {
        self.clear();
        for sequence in sequences {
            let fits_decode = sequence.num_tokens * shape.group <= Variant::Decode.num_rows(1);
            match fits_decode {
                true => self.add(sequence, shape, Variant::Decode, true),
                false => self.add(sequence, shape, Variant::Prefill, false),
            }
        }
    }

    /// Forgets all items.
    pub fn clear(&mut self) {
        self.decode.clear();
        self.prefill.clear();
        self.merges.clear();
        self.num_partials = 0;
    }

    /// Adds the items of one sequence; with `splits_apart` one for each split where there are
    /// several.
    pub fn add(
        &mut self,
        sequence: &Sequence,
        shape: &PlanShape,
        variant: Variant,
        splits_apart: bool,
    ) {
        let num_rows = sequence.num_tokens * shape.group;
        let rows_per_item = variant.num_rows(shape.head_dim);
        for first_row in (0..num_rows).step_by(rows_per_item) {
            let rows = rows_per_item.min(num_rows - first_row);
            let first = sequence.position + first_row / shape.group;
            let last = sequence.position + (first_row + rows - 1) / shape.group;
            let start = shape
                .window
                .map_or(0, |window| (first + 1).saturating_sub(window));
            let splits = start / SPLIT_KEYS..last / SPLIT_KEYS + 1;
            let whole = AttentionItem {
                first_token: sequence.first_token as u32,
                position: sequence.position as u32,
                first_row: first_row as u32,
                num_rows: rows as u32,
                table_start: sequence.table_start as u32,
                first_split: splits.start as u32,
                end_split: splits.end as u32,
                partial: AttentionItem::WHOLE,
            };
            if !splits_apart || splits.len() == 1 {
                self.items(variant).push(whole);
                continue;
            }
            let first_partial = self.num_partials as u32;
            self.num_partials += splits.len();
            let apart = splits
                .clone()
                .zip(first_partial..)
                .map(|(split, partial)| AttentionItem {
                    first_split: split as u32,
                    end_split: split as u32 + 1,
                    partial,
                    ..whole
                });
            self.items(variant).extend(apart);
            self.merges.push(AttentionItem {
                partial: first_partial,
                ..whole
            });
        }
    }

    fn items(&mut self, variant: Variant) -> &mut Vec<AttentionItem> {
        match variant {
            Variant::Decode => &mut self.decode,
            Variant::Prefill => &mut self.prefill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_decode_rows_are_cut_by_split_and_chunks_by_rows() {
        let shape = PlanShape {
            group: 4,
            head_dim: 64,
            window: None,
        };
        let sequence = |first_token, num_tokens, position| Sequence {
            first_token,
            num_tokens,
            position,
            table_start: 7,
        };
        let mut plan = AttentionPlan::default();
        let sequences = [
            sequence(0, 1, 10),
            sequence(1, 1, 600),
            sequence(2, 20, 300),
        ];
        plan.make(&sequences, &shape);
        let whole = plan.decode[0];
        assert_eq!(
            (whole.num_rows, whole.first_split, whole.end_split),
            (4, 0, 1)
        );
        assert_eq!(whole.partial, AttentionItem::WHOLE);
        let apart: Vec<_> = plan.decode[1..]
            .iter()
            .map(|i| (i.first_split, i.partial))
            .collect();
        assert_eq!(apart, [(0, 0), (1, 1), (2, 2)]);
        assert_eq!((plan.num_partials, plan.merges.len()), (3, 1));
        assert_eq!(
            (plan.merges[0].first_split, plan.merges[0].end_split),
            (0, 3)
        );
        // Eighty rows: sixty-four and sixteen; the last token is at position 319.
        let rows: Vec<_> = plan
            .prefill
            .iter()
            .map(|i| (i.first_row, i.num_rows))
            .collect();
        assert_eq!(rows, [(0, 64), (64, 16)]);
        assert!(
            plan.prefill
                .iter()
                .all(|i| (i.first_split, i.end_split) == (0, 2))
        );
    }

    #[test]
    fn splits_before_the_window_are_left_out() {
        let shape = PlanShape {
            group: 1,
            head_dim: 64,
            window: Some(100),
        };
        let mut plan = AttentionPlan::default();
        let sequence = Sequence {
            first_token: 0,
            num_tokens: 1,
            position: 611,
            table_start: 0,
        };
        plan.make(&[sequence], &shape);
        // Sees 512 to 611: one split.
        assert_eq!(
            (plan.decode[0].first_split, plan.decode[0].end_split),
            (2, 3)
        );
        assert!(plan.merges.is_empty());
    }
}
