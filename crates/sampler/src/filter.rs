//! Top-k and top-p by selection: no row is sorted whole.
//!
//! Top-k scans once with a rising threshold. Top-p drops the tail that cannot matter, then finds
//! the border by a weighted radix selection over the bits of the weights, in time linear in what is
//! left.
//!
//! Invariant: exactly the set that a sort by (value descending, id ascending) would keep.

use hotspare_batch::TokenId;

use crate::reduce::{LANES, any_above};

/// The order of tokens as one number: larger value first, then lower id.
fn key(value: f32, id: TokenId) -> u64 {
    // Adding zero makes minus zero equal to zero.
    let bits = (value + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    };
    u64::from(ordered) << 32 | u64::from(!id)
}

/// The token of a key.
pub(crate) fn key_id(key: u64) -> TokenId {
    !(key as u32)
}

/// The value of a key (zero for minus zero).
pub(crate) fn key_value(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    let is_positive = ordered >> 31 == 1;
    f32::from_bits(if is_positive {
        ordered & !(1 << 31)
    } else {
        !ordered
    })
}

/// Puts the keys of the `k` largest `values` into `keys`, in no order; fewer where fewer are above
/// minus infinity. `values` hold no NaN.
pub(crate) fn select_top_k(values: &[f32], k: usize, keys: &mut Vec<u64>) {
    keys.clear();
    if k == 0 {
        return;
    }
    let capacity = (2 * k).max(64).min(values.len().max(k));
    let mut threshold = f32::NEG_INFINITY;
    let mut take = |start: usize, chunk: &[f32]| {
        for (lane, &x) in chunk.iter().enumerate() {
            // A later token of equal value is worse, so only larger ones can enter a full set.
            if x > threshold {
                keys.push(key(x, (start + lane) as TokenId));
                if keys.len() > k && keys.len() >= capacity {
                    threshold = cut(keys, k);
                }
            }
        }
        threshold
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut current = f32::NEG_INFINITY;
    for (index, chunk) in chunks.iter().enumerate() {
        if any_above(chunk, current) {
            current = take(index * LANES, chunk);
        }
    }
    take(chunks.len() * LANES, rest);
    if keys.len() > k {
        cut(keys, k);
    }
}

/// Keeps the `k` best of more than `k` keys and returns the value of the last one.
fn cut(keys: &mut Vec<u64>, k: usize) -> f32 {
    let (_, last, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    let last = *last;
    keys.truncate(k);
    key_value(last)
}

/// Tokens with their weights, in order of id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) ids: Vec<TokenId>,
    /// Not negative, the largest is 1.
    pub(crate) weights: Vec<f32>,
}

impl Candidates {
    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.weights.clear();
    }

    pub(crate) fn push(&mut self, id: TokenId, weight: f32) {
        self.ids.push(id);
        self.weights.push(weight);
    }

    /// Takes those of `weights` (one for each token of the vocabulary) that can be in the top-p
    /// set: the others together weigh less than the share of `total` that is left out.
    pub(crate) fn take_dense(&mut self, weights: &[f32], total: f64, top_p: f32) {
        self.clear();
        // One percent less than the bound, so that rounding in `total` cannot matter.
        let left_out = (1.0 - f64::from(top_p)) * total * 0.99;
        let floor = (left_out / weights.len() as f64) as f32;
        let (chunks, rest) = weights.as_chunks::<LANES>();
        for (index, chunk) in chunks.iter().enumerate() {
            if any_above(chunk, floor) {
                self.take_above(index * LANES, chunk, floor);
            }
        }
        self.take_above(chunks.len() * LANES, rest, floor);
    }

    fn take_above(&mut self, start: usize, weights: &[f32], floor: f32) {
        for (lane, &weight) in weights.iter().enumerate() {
            if weight > floor {
                self.push((start + lane) as TokenId, weight);
            }
        }
    }

    /// Keeps the smallest set of the heaviest tokens that weighs at least `top_p * total`; at least
    /// one.
    pub(crate) fn keep_top_p(&mut self, total: f64, top_p: f32, histogram: &mut Histogram) {
        let target = f64::from(top_p) * total;
        let Some((border, num_ties)) = find_border(&self.weights, target, histogram) else {
            return;
        };
        let mut num_ties_left = num_ties;
        let mut num_kept = 0;
        for index in 0..self.ids.len() {
            let weight = self.weights[index];
            let is_tie = weight == border;
            if weight > border || (is_tie && num_ties_left > 0) {
                num_ties_left -= usize::from(is_tie);
                self.ids[num_kept] = self.ids[index];
                self.weights[num_kept] = weight;
                num_kept += 1;
            }
        }
        self.ids.truncate(num_kept);
        self.weights.truncate(num_kept);
    }
}

/// Bits of a radix digit.
const DIGIT_BITS: u32 = 10;
/// Digits of a weight: the bits of an f32 in [0, 1] stand in order and need 30.
const NUM_DIGITS: u32 = 3;

/// Weight of the tokens with each value of a digit.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Box<[f64; 1 << DIGIT_BITS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0.0; 1 << DIGIT_BITS]))
    }
}

impl Histogram {
    /// The bucket, counted down from the highest, where the running weight reaches `missing`, and
    /// the weight above it. Where all together do not reach it: with `is_certain` that is rounding,
    /// and it is the lowest bucket that weighs anything.
    fn border_bucket(&self, missing: f64, is_certain: bool) -> Option<(usize, f64)> {
        let mut above = 0.0;
        let mut lowest = None;
        for (bucket, &weight) in self.0.iter().enumerate().rev() {
            if weight > 0.0 {
                if above + weight >= missing {
                    return Some((bucket, above));
                }
                lowest = Some((bucket, above));
                above += weight;
            }
        }
        lowest.filter(|_| is_certain)
    }
}

/// The weight of the last token of the smallest set that weighs `target`, and how many tokens of
/// exactly this weight are in the set. `None`: all together do not weigh more than that.
fn find_border(weights: &[f32], target: f64, histogram: &mut Histogram) -> Option<(f32, usize)> {
    let mut prefix = 0;
    let mut above = 0.0;
    for digit in (0..NUM_DIGITS).rev() {
        let shift = digit * DIGIT_BITS;
        let mask = (1 << DIGIT_BITS) - 1;
        histogram.0.fill(0.0);
        for &weight in weights {
            let bits = weight.to_bits();
            // A shift by all 30 bits leaves nothing of a weight, which is the prefix of the first
            // digit.
            if bits >> (shift + DIGIT_BITS) == prefix {
                histogram.0[(bits >> shift & mask) as usize] += f64::from(weight);
            }
        }
        let is_first = digit == NUM_DIGITS - 1;
        let (bucket, weight_above) = histogram.border_bucket(target - above, !is_first)?;
        above += weight_above;
        prefix = prefix << DIGIT_BITS | bucket as u32;
    }
    let border = f32::from_bits(prefix);
    let missing = (target - above) / f64::from(border);
    Some((border, missing.ceil().max(1.0) as usize))
}
