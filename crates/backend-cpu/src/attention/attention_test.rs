//! Paged attention against f64, and its promise: a token's bits are a function of its sequence
//! alone.

use std::sync::Arc;

use half::f16;
use hotspare_model::ops::{AttentionSpec, KvCacheSpec, Ops, RopeTable};
use hotspare_model::weights::WeightDtype;
use proptest::prelude::*;

use crate::kv_cache::{KvPlace, KvRows};
use crate::simd::Isa;
use crate::testing::{Random, RowPlan, attention_spec as spec, batch, bits, buffer, ops, ops_on};
use crate::workers::Workers;
use crate::{CpuKvCache, CpuOps};

/// q, k and v of a sequence, and the blocks it lives in.
struct Sequence {
    qkv: Vec<f32>,
    len: usize,
    blocks: Vec<u32>,
}

struct Setup {
    spec: AttentionSpec,
    block_size: usize,
    num_blocks: usize,
    dtype: WeightDtype,
    sequences: Vec<Sequence>,
}

impl Setup {
    fn width(&self) -> usize {
        (self.spec.num_heads + 2 * self.spec.num_kv_heads) * self.spec.head_dim
    }

    /// Sequences of the given lengths, whose blocks lie anywhere in the pool. Their numbers are
    /// halves, and keys and values those of eight-bit blocks where the cache has these, so that it
    /// holds them exactly whatever its type.
    fn new(
        spec: AttentionSpec,
        block_size: usize,
        dtype: WeightDtype,
        lens: &[usize],
        random: &mut Random,
    ) -> Self {
        let needs: Vec<usize> = lens.iter().map(|len| len.div_ceil(block_size)).collect();
        let num_blocks = needs.iter().sum::<usize>() + 1;
        let mut free: Vec<u32> = (0..num_blocks as u32).collect();
        let mut setup = Self {
            spec,
            block_size,
            num_blocks,
            dtype,
            sequences: Vec::new(),
        };
        let width = setup.width();
        for (&len, need) in lens.iter().zip(needs) {
            let mut block = || free.swap_remove(random.below(free.len()));
            let blocks = (0..need).map(|_| block()).collect();
            let qkv = random.floats(len * width);
            let halves = qkv.iter().map(|x| f16::from_f32(x * 2.0).to_f32());
            let mut qkv: Vec<f32> = halves.collect();
            if dtype == WeightDtype::Q8_0 {
                let (d, q_len) = (
                    setup.spec.head_dim,
                    setup.spec.num_heads * setup.spec.head_dim,
                );
                for token in qkv.chunks_exact_mut(width) {
                    token[q_len..].chunks_exact_mut(d).for_each(round_to_q8);
                }
            }
            setup.sequences.push(Sequence { qkv, len, blocks });
        }
        setup
    }

    /// The same numbers in a cache of another type.
    fn with_dtype(mut self, dtype: WeightDtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// A cache full of NaN: what was there before must never show.
    fn cache(&self, ops: &mut CpuOps) -> CpuKvCache {
        let kv_heads = self.spec.num_kv_heads;
        let mut kv = ops
            .new_kv_cache(&KvCacheSpec {
                num_layers: 2,
                num_blocks: self.num_blocks,
                block_size: self.block_size,
                num_kv_heads: kv_heads,
                head_dim: self.spec.head_dim,
                dtype: self.dtype,
            })
            .unwrap();
        let width = 2 * kv_heads * self.spec.head_dim;
        let rows = KvRows {
            rows: &vec![f32::NAN; width],
            width,
            keys_at: 0,
        };
        let in_blocks = 0..self.block_size;
        let places: Vec<KvPlace> = (0..self.num_blocks as u32)
            .flat_map(|block| in_blocks.clone().map(move |at| (block, at)))
            .map(|(block, in_block)| KvPlace {
                block,
                in_block,
                row: 0,
            })
            .collect();
        kv.write(&Workers::new(1), 1, &places, rows);
        kv
    }

    /// Runs one step: for each (sequence, start, end), the tokens in that range.
    fn step(
        &self,
        ops: &mut CpuOps,
        kv: &mut CpuKvCache,
        parts: &[(usize, usize, usize)],
    ) -> Vec<Vec<f32>> {
        let width = self.width();
        let tokens = vec![0; 512];
        let plans: Vec<RowPlan<'_>> = parts
            .iter()
            .map(|&(sequence, start, end)| RowPlan {
                slot: sequence as u32,
                num_computed: start,
                tokens: &tokens[..end - start],
                blocks: &self.sequences[sequence].blocks,
            })
            .collect();
        ops.begin(&batch(&plans, self.block_size));
        let rows: Vec<f32> = parts
            .iter()
            .flat_map(|&(sequence, start, end)| {
                self.sequences[sequence].qkv[start * width..end * width].to_vec()
            })
            .collect();
        let mut qkv = buffer(ops, width, &rows);
        let rope = Arc::new(RopeTable {
            rotary_dim: 0,
            is_interleaved: false,
            cos: Vec::new(),
            sin: Vec::new(),
        });
        let out_width = self.spec.num_heads * self.spec.head_dim;
        let mut out = ops.new_buffer(512, out_width).unwrap();
        ops.rope_kv_write(&mut qkv, &rope, &self.spec, 1, kv);
        ops.attention(&qkv, &self.spec, 1, kv, &mut out);
        let out = ops.read_rows(&out);
        let mut rest = out.as_slice();
        let mut take = |num_tokens: usize| {
            let (own, others) = rest.split_at(num_tokens * out_width);
            rest = others;
            own.to_vec()
        };
        parts
            .iter()
            .map(|&(_, start, end)| take(end - start))
            .collect()
    }

    /// All of a sequence, in steps that end at `cuts`.
    fn run_alone(&self, ops: &mut CpuOps, sequence: usize, cuts: &[usize]) -> Vec<f32> {
        let mut kv = self.cache(ops);
        let mut start = 0;
        let mut out = Vec::new();
        for &end in cuts.iter().chain([&self.sequences[sequence].len]) {
            if end > start {
                out.extend(self.step(ops, &mut kv, &[(sequence, start, end)]).remove(0));
                start = end;
            }
        }
        out
    }

    /// The definition of attention, in f64.
    fn exact(&self, sequence: usize) -> Vec<f64> {
        let (spec, width, d) = (&self.spec, self.width(), self.spec.head_dim);
        let Sequence { qkv, len, .. } = &self.sequences[sequence];
        let at = |token: usize, head: usize| &qkv[token * width + head * d..][..d];
        let mut out = Vec::new();
        for position in 0..*len {
            let first = spec
                .sliding_window
                .map_or(0, |w| (position + 1).saturating_sub(w));
            for head in 0..spec.num_heads {
                let kv_head = head / (spec.num_heads / spec.num_kv_heads);
                let score = |key: usize| -> f64 {
                    let k = at(key, spec.num_heads + kv_head);
                    let products = at(position, head).iter().zip(k);
                    let dot: f64 = products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let score = dot * f64::from(spec.scale);
                    match spec.logits_soft_cap.map(f64::from) {
                        Some(cap) => cap * (score / cap).tanh(),
                        None => score,
                    }
                };
                let scores: Vec<f64> = (first..=position).map(score).collect();
                let sink = spec.sinks.get(head).map(|&sink| f64::from(sink));
                let all = scores.iter().copied().chain(sink);
                let max = all.fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|x| (x - max).exp()).collect();
                let sink = sink.map_or(0.0, |sink| (sink - max).exp());
                let sum: f64 = weights.iter().sum::<f64>() + sink;
                for i in 0..d {
                    let value = |key: usize| {
                        f64::from(at(key, spec.num_heads + spec.num_kv_heads + kv_head)[i])
                    };
                    let total: f64 = (first..).zip(&weights).map(|(key, w)| w * value(key)).sum();
                    out.push(total / sum);
                }
            }
        }
        out
    }
}

/// A head as blocks of `Q8_0` hold it, by the encoder and decoder of weights; a short block is one
/// filled up with zeros.
fn round_to_q8(head: &mut [f32]) {
    for values in head.chunks_mut(32) {
        let mut block = [0.0; 32];
        block[..values.len()].copy_from_slice(values);
        let mut bytes = [0; 34];
        hotspare_model::encode(WeightDtype::Q8_0, &block, &mut bytes);
        let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (value, &byte) in values.iter_mut().zip(&bytes[2..]) {
            *value = f32::from(byte as i8) * scale;
        }
    }
}

#[test]
fn matches_f64_for_every_kind_of_head() {
    let mut random = Random(21);
    let shapes = [
        (4, 2, 64),
        (1, 1, 8),
        (3, 1, 20),
        (8, 1, 32),
        (7, 1, 16),
        (2, 2, 80),
        (4, 1, 256),
    ];
    for (heads, kv_heads, head_dim) in shapes {
        for (window, cap) in [
            (None, None),
            (Some(37), None),
            (None, Some(1.5)),
            (Some(1), None),
        ] {
            for (block_size, dtype) in [
                (16, WeightDtype::F32),
                (8, WeightDtype::F32),
                (24, WeightDtype::F16),
                (64, WeightDtype::F16),
                (16, WeightDtype::Q8_0),
                (24, WeightDtype::Q8_0),
            ] {
                let mut spec = spec(heads, kv_heads, head_dim);
                (spec.sliding_window, spec.logits_soft_cap) = (window, cap);
                let setup = Setup::new(spec, block_size, dtype, &[131], &mut random);
                let exact = setup.exact(0);
                let mut reference: Option<Vec<u32>> = None;
                for isa in Isa::available() {
                    let out = setup.run_alone(&mut ops_on(isa), 0, &[]);
                    assert_eq!(out.len(), exact.len());
                    for (i, (&a, &b)) in out.iter().zip(&exact).enumerate() {
                        let error = (f64::from(a) - b).abs();
                        assert!(error < 3e-6, "{:?} {block_size} {i}: {a}, {b}", setup.spec);
                    }
                    let out = bits(&out);
                    assert_eq!(reference.get_or_insert(out.clone()), &out, "{}", isa.name());
                }
            }
        }
    }
}

/// Sinks far below, among and far above the scores, of heads that are computed four, two and one at
/// a time; in one step, and token by token with the same bits.
#[test]
fn sinks_take_their_share_of_the_softmax() {
    let mut random = Random(29);
    for (heads, kv_heads, window) in [(7, 1, None), (4, 2, Some(9)), (6, 2, None)] {
        let mut spec = spec(heads, kv_heads, 32);
        spec.sliding_window = window;
        spec.sinks = (0..heads).map(|head| 3.0 * head as f32 - 6.0).collect();
        let setup = Setup::new(spec, 16, WeightDtype::F32, &[70], &mut random);
        let exact = setup.exact(0);
        let mut reference: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            let out = setup.run_alone(&mut ops_on(isa), 0, &[]);
            for (i, (&a, &b)) in out.iter().zip(&exact).enumerate() {
                let error = (f64::from(a) - b).abs();
                assert!(error < 3e-6, "{:?} {i}: {a}, {b}", setup.spec);
            }
            let out = bits(&out);
            assert_eq!(reference.get_or_insert(out.clone()), &out, "{}", isa.name());
            let singles: Vec<usize> = (1..70).collect();
            let out = bits(&setup.run_alone(&mut ops_on(isa), 0, &singles));
            assert_eq!(reference.as_ref(), Some(&out), "{}", isa.name());
        }
        let mut without = setup;
        without.spec.sinks.clear();
        assert_ne!(
            Some(bits(&without.run_alone(&mut ops(1), 0, &[]))),
            reference
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bits_do_not_depend_on_chunks_neighbours_or_threads(
        seed: u64,
        shape in 0usize..4,
        block_size in prop::sample::select(vec![1usize, 8, 16, 24, 32]),
        dtype in prop::sample::select(vec![
            WeightDtype::F32,
            WeightDtype::F16,
            WeightDtype::Q8_0,
        ]),
        window in prop::option::of(1usize..90),
        lens in prop::collection::vec(1usize..200, 2..7),
    ) {
        let mut random = Random(seed);
        let (heads, kv_heads, head_dim) = [(4, 2, 64), (2, 2, 8), (3, 1, 20), (8, 1, 32)][shape];
        let mut spec = spec(heads, kv_heads, head_dim);
        spec.sliding_window = window;
        let setup = Setup::new(spec, block_size, dtype, &lens, &mut random);
        let mut one = ops(1);
        let whole: Vec<Vec<u32>> =
            (0..lens.len()).map(|i| bits(&setup.run_alone(&mut one, i, &[]))).collect();
        // Token by token, as decode does.
        let singles: Vec<usize> = (1..lens[0]).collect();
        prop_assert_eq!(&whole[0], &bits(&setup.run_alone(&mut one, 0, &singles)));
        // All together, in chunks of random size, on two threads.
        let mut two = ops(2);
        let mut kv = setup.cache(&mut two);
        let mut done = vec![0; lens.len()];
        let mut outs = vec![Vec::new(); lens.len()];
        while done.iter().zip(&lens).any(|(done, len)| done < len) {
            let mut parts = Vec::new();
            for i in 0..lens.len() {
                let end = lens[i].min(done[i] + 1 + random.below(40) * random.below(3));
                if random.below(4) > 0 && end > done[i] {
                    parts.push((i, done[i], end));
                    done[i] = end;
                }
            }
            for (&(i, ..), out) in parts.iter().zip(setup.step(&mut two, &mut kv, &parts)) {
                outs[i].extend(bits(&out));
            }
        }
        prop_assert_eq!(whole, outs);
    }
}

/// Attention over eight bits is attention over the floats that they stand for, bit for bit: no
/// rounding but that of the cache.
#[test]
fn eight_bits_give_the_bits_of_what_they_stand_for() {
    for (heads, kv_heads, head_dim) in [(4, 2, 128), (2, 1, 48), (1, 1, 8)] {
        for isa in Isa::available() {
            let setup = |seed| {
                let spec = spec(heads, kv_heads, head_dim);
                Setup::new(spec, 16, WeightDtype::Q8_0, &[333], &mut Random(seed))
            };
            let of = |setup: &Setup| bits(&setup.run_alone(&mut ops_on(isa), 0, &[7, 8, 200]));
            let eight = of(&setup(31));
            assert!(
                eight == of(&setup(31).with_dtype(WeightDtype::F32)),
                "{}",
                isa.name()
            );
            // And of numbers that eight bits do not hold: those of their rounding.
            let mut exact = setup(32);
            let (width, q_len) = (exact.width(), heads * head_dim);
            for x in &mut exact.sequences[0].qkv {
                *x *= 1.234_567;
            }
            let mut rounded = Setup {
                dtype: WeightDtype::F32,
                ..setup(32)
            };
            rounded.sequences[0].qkv.clone_from(&exact.sequences[0].qkv);
            for token in rounded.sequences[0].qkv.chunks_exact_mut(width) {
                token[q_len..]
                    .chunks_exact_mut(head_dim)
                    .for_each(round_to_q8);
            }
            assert!(of(&exact) == of(&rounded), "{}", isa.name());
        }
    }
}

#[test]
fn a_long_context_is_shared_between_threads_without_a_trace() {
    let mut random = Random(23);
    let setup = Setup::new(
        spec(4, 2, 64),
        16,
        WeightDtype::F16,
        &[1500, 700],
        &mut random,
    );
    let parts: [&[(usize, usize, usize)]; 4] = [
        &[(0, 0, 500)],
        &[(0, 500, 800), (1, 0, 200)],
        &[(0, 800, 1100), (1, 200, 201)],
        &[(0, 1100, 1101), (1, 201, 700)],
    ];
    let [one, two] = [1, 2].map(|num_threads| {
        let mut ops = ops(num_threads);
        let mut kv = setup.cache(&mut ops);
        let outs = parts.map(|parts| setup.step(&mut ops, &mut kv, parts));
        outs.map(|out| bits(&out.concat()))
    });
    assert!(one == two);
}

#[test]
fn shapes_without_a_kernel_are_refused() {
    let mut ops = ops(1);
    for (head_dim, block_size, num_kv_heads) in [(257, 16, 1), (0, 16, 1), (64, 0, 1), (64, 16, 0)]
    {
        let spec = KvCacheSpec {
            num_layers: 1,
            num_blocks: 2,
            block_size,
            num_kv_heads,
            head_dim,
            dtype: WeightDtype::F16,
        };
        assert!(ops.new_kv_cache(&spec).is_err(), "{spec:?}");
    }
    let bfloat = KvCacheSpec {
        num_layers: 1,
        num_blocks: 2,
        block_size: 16,
        num_kv_heads: 1,
        head_dim: 64,
        dtype: WeightDtype::Bf16,
    };
    let error = ops.new_kv_cache(&bfloat).unwrap_err();
    assert!(error.to_string().contains("bfloat16"), "{error}");
    let huge = KvCacheSpec {
        num_layers: 1,
        num_blocks: usize::MAX / 4096,
        block_size: 16,
        num_kv_heads: 2,
        head_dim: 64,
        dtype: WeightDtype::F32,
    };
    let error = ops.new_kv_cache(&huge).unwrap_err();
    assert!(error.to_string().contains("the KV cache"), "{error}");
}

#[test]
fn eight_bits_saturate_and_keep_what_is_not_a_number() {
    let mut spec = spec(1, 1, 48);
    spec.scale = 0.0;
    let run = |change: &dyn Fn(&mut [f32])| {
        let mut setup = Setup::new(spec.clone(), 16, WeightDtype::Q8_0, &[3], &mut Random(5));
        setup.sequences[0].qkv.fill(0.5);
        change(&mut setup.sequences[0].qkv);
        setup.run_alone(&mut ops(1), 0, &[])
    };
    let infinite = run(&|qkv| qkv[2 * 48..].fill(f32::INFINITY));
    let largest = 127.0 * 65504.0;
    assert!((infinite[0] - largest).abs() < 1.0, "{infinite:?}");
    // Only the block of dimensions that the NaN is in, of the tokens that see it.
    let nan = run(&|qkv| qkv[144 + 2 * 48 + 40] = f32::NAN);
    assert!(nan[..48].iter().all(|x| (x - 0.5).abs() < 1e-3), "{nan:?}");
    assert!(
        nan[48..80].iter().all(|x| (x - 0.5).abs() < 1e-3),
        "{nan:?}"
    );
    assert!(nan[80..96].iter().all(|x| x.is_nan()), "{nan:?}");
}

#[test]
fn halves_saturate_instead_of_becoming_infinite() {
    let mut ops = ops(1);
    let mut spec = spec(1, 1, 16);
    spec.scale = 0.0;
    let mut setup = Setup::new(spec, 16, WeightDtype::F16, &[3], &mut Random(5));
    setup.sequences[0].qkv.fill(1e9);
    let out = setup.run_alone(&mut ops, 0, &[]);
    assert!(out.iter().all(|&x| (x - 65504.0).abs() < 1.0), "{out:?}");
}
