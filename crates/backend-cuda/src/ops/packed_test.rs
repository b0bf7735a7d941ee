//! Quantized weights that have no product of their own: they stay as small as in the file, and give
//! the bits of weights that were widened before.
//!
//! Invariant: a product of packed weights is compared bit for bit with one of dense weights, in
//! pieces of several sizes.

use std::sync::Arc;

use hotspare_model::ops::{ExpertViews, StepLimits};
use hotspare_model::weights::{WeightDtype, WeightView};

use super::CudaOps;
use super::buffer::Rows;
use super::failing_device::assets;
use super::library::Library;
use super::moe::MoeSpace;
use super::product;
use super::space::Space;
use super::weights::{CudaExperts, CudaLinear, SPACE_BYTES, dense};
use crate::checks::embed::{random_weights, widened};
use crate::checks::support::Random;
use crate::kernels::WeightFormat;
use crate::model_checks::{Settings, check_gguf, check_lookahead, load_blocks};
use crate::{CudaOptions, Dtype, Emulator, Launcher};

/// Types that are widened for each product.
const PACKED: [WeightDtype; 8] = [
    WeightDtype::Q4_0,
    WeightDtype::Q4_1,
    WeightDtype::Q5_0,
    WeightDtype::Q5_1,
    WeightDtype::Q2K,
    WeightDtype::Q3K,
    WeightDtype::Q5K,
    WeightDtype::Q6K,
];

fn ops(dtype: Dtype) -> CudaOps<Emulator> {
    let limits = StepLimits {
        max_num_batched_tokens: 64,
        max_num_seqs: 4,
        max_model_len: 64,
    };
    CudaOps::new(Emulator::new(5), CudaOptions::new(limits, dtype)).expect("it starts")
}

fn view(bytes: Vec<u8>, dtype: WeightDtype, shape: [usize; 2]) -> WeightView {
    let range = 0..bytes.len();
    WeightView::new(Arc::new(bytes), range, dtype, shape.to_vec()).expect("its bytes")
}

/// Random weights as in a file, and what they are in sixteen bits.
fn both(random: &mut Random, of: WeightDtype, dtype: Dtype, shape: [usize; 2]) -> [WeightView; 2] {
    let bytes = random_weights(random, of, shape[0] * shape[1]);
    let ids: Vec<u32> = (0..shape[0] as u32).collect();
    let values = widened(&bytes, of, shape, &ids, 1.0).expect("the CPU widens");
    let wide = view(dtype.encode(&values), dense(dtype), shape);
    [view(bytes, of, shape), wide]
}

/// Rows of poison.
fn empty(device: &mut Emulator, dtype: Dtype, num_rows: usize, width: usize) -> Rows {
    let stride = dtype.stride(width);
    let num_bytes = num_rows * stride * dtype.size();
    let at = device.alloc(num_bytes).expect("memory");
    device.write(at, &vec![0xFF; num_bytes]).expect("memory");
    Rows {
        at,
        dtype,
        width,
        stride,
        num_rows,
    }
}

fn random_rows(
    device: &mut Emulator,
    random: &mut Random,
    dtype: Dtype,
    [num_rows, width]: [usize; 2],
) -> Rows {
    let rows = empty(device, dtype, num_rows, width);
    for i in 0..num_rows {
        let values = dtype.encode(&random.floats(dtype, width));
        let at = rows.at.offset(i * rows.row_bytes());
        device.write(at, &values).expect("memory");
    }
    rows
}

/// The bytes of `rows`, what lies between them included.
fn bytes_of(device: &mut Emulator, rows: &Rows) -> Vec<u8> {
    let mut bytes = vec![0; rows.num_rows * rows.row_bytes()];
    device.read(rows.at, &mut bytes).expect("memory");
    bytes
}

fn space(device: &mut Emulator, num_bytes: usize) -> Space {
    let at = device.alloc(num_bytes).expect("memory");
    device.write(at, &vec![0xFF; num_bytes]).expect("memory");
    Space { at, num_bytes }
}

/// The bytes of the product, a piece being what fits into `num_bytes`.
fn product_in(device: &mut Emulator, weight: &CudaLinear, x: &Rows, num_bytes: usize) -> Vec<u8> {
    let out = empty(device, x.dtype, x.num_rows, weight.num_outputs);
    let space = Some(space(device, num_bytes));
    let mut none = Library::default();
    product::linear(device, &mut none, space, x, weight, &out).expect("it runs");
    bytes_of(device, &out)
}

#[test]
fn packed_weights_give_the_bits_of_dense_ones() {
    const SHAPE: [usize; 2] = [21, 512];
    for (seed, of) in PACKED.into_iter().enumerate() {
        let dtype = Dtype::HALVES[seed % 2];
        let mut random = Random::new("packed", seed as u64);
        let mut ops = ops(dtype);
        // The last has a fused product: a layer of two formats.
        let [packed, wide] = both(&mut random, of, dtype, SHAPE);
        let [fused, fused_wide] = both(&mut random, WeightDtype::Q8_0, dtype, [8, SHAPE[1]]);
        let file_bytes = packed.bytes().len() + fused.bytes().len();
        let used_before = ops.device().used_bytes;
        let linear = ops.loader().linear(&[packed, fused]).expect("it loads");
        let used = ops.device().used_bytes - used_before;
        assert_eq!(used, file_bytes + SPACE_BYTES, "{}", of.name());
        assert_eq!(linear.parts.len(), 2);
        assert_eq!(linear.parts[0].format, WeightFormat::Plain(of));
        let wide = ops.loader().linear(&[wide, fused_wide]).expect("it loads");
        assert_eq!(wide.parts.len(), 1);
        let device = &mut ops.device;
        for num_rows in [1, 9, 40] {
            let x = random_rows(device, &mut random, dtype, [num_rows, SHAPE[1]]);
            let expected = product_in(device, &wide, &x, 16);
            for fit in [1, 8, 64] {
                let found = product_in(device, &linear, &x, fit * SHAPE[1] * 2 + 100);
                assert_eq!(found, expected, "{} {num_rows} rows by {fit}", of.name());
            }
        }
    }
}

const NUM_EXPERTS: usize = 5;
const HIDDEN: usize = 64;
const WIDTH: usize = 32;
/// Of four rows; the third expert gets nothing.
const ROUTES: [[f32; NUM_EXPERTS]; 4] = [
    [0.5, 0.5, 0.0, 0.0, 0.0],
    [0.0, 0.25, 0.0, 0.75, 0.0],
    [0.9, 0.0, 0.0, 0.0, 0.1],
    [0.0, 0.0, 0.0, 0.4, 0.6],
];

/// Experts as in a file, and in sixteen bits.
fn experts(
    random: &mut Random,
    ops: &mut CudaOps<Emulator>,
    [gate, up, down]: [WeightDtype; 3],
    dtype: Dtype,
) -> [CudaExperts; 2] {
    let (mut packed, mut wide) = (Vec::new(), Vec::new());
    for _ in 0..NUM_EXPERTS {
        let gate = both(random, gate, dtype, [WIDTH, HIDDEN]);
        let up = both(random, up, dtype, [WIDTH, HIDDEN]);
        let down = both(random, down, dtype, [HIDDEN, WIDTH]);
        for (i, list) in [&mut packed, &mut wide].into_iter().enumerate() {
            list.push(ExpertViews {
                gate_up: vec![gate[i].clone(), up[i].clone()],
                down: down[i].clone(),
            });
        }
    }
    [packed, wide].map(|views| ops.loader().experts(&views, 2).expect("it loads"))
}

/// The bytes of the layer's result.
fn moe_in(device: &mut Emulator, experts: &CudaExperts, x: &Rows, space: Option<Space>) -> Vec<u8> {
    let mut moe = MoeSpace::default();
    moe.reserve(device, x.dtype, x.num_rows, experts)
        .expect("memory");
    let mut routes = empty(device, Dtype::F32, ROUTES.len(), NUM_EXPERTS);
    routes.stride = NUM_EXPERTS;
    let values = ROUTES.as_flattened();
    let written = device.write(routes.at, bytemuck::cast_slice(values));
    written.expect("memory");
    let out = empty(device, x.dtype, x.num_rows, HIDDEN);
    moe.run(device, space, experts, [x, &routes, &out])
        .expect("it runs");
    bytes_of(device, &out)
}

#[test]
fn packed_experts_give_the_bits_of_dense_ones() {
    let (q4, q5, q8) = (WeightDtype::Q4_0, WeightDtype::Q5_1, WeightDtype::Q8_0);
    for (seed, types) in [[q4, q4, q5], [q8, q8, q4], [q5, q5, q8]]
        .into_iter()
        .enumerate()
    {
        let dtype = Dtype::HALVES[seed % 2];
        let mut random = Random::new("packed experts", seed as u64);
        let mut ops = ops(dtype);
        let [packed, wide] = experts(&mut random, &mut ops, types, dtype);
        let device = &mut ops.device;
        let x = random_rows(device, &mut random, dtype, [ROUTES.len(), HIDDEN]);
        let expected = moe_in(device, &wide, &x, None);
        // Several experts at a time, one, and a part of one.
        for num_bytes in [1 << 20, 3 * 2 * WIDTH * HIDDEN * 2, 20 * HIDDEN * 2] {
            let space = space(device, num_bytes);
            let found = moe_in(device, &packed, &x, Some(space));
            assert_eq!(found, expected, "{types:?} in {num_bytes} bytes");
        }
    }
}

#[test]
fn experts_without_rows_are_not_read() {
    let dtype = Dtype::Bf16;
    let types = [WeightDtype::Q4_0, WeightDtype::Q4_0, WeightDtype::Q8_0];
    let (mut random, mut ops) = (Random::new("unread experts", 0), ops(dtype));
    let used_before = ops.device().used_bytes;
    let [packed, _] = experts(&mut random, &mut ops, types, dtype);
    assert!(ops.device().used_bytes > used_before);
    let device = &mut ops.device;
    let x = random_rows(device, &mut random, dtype, [ROUTES.len(), HIDDEN]);
    let space = space(device, 1 << 20);
    moe_in(device, &packed, &x, Some(space));
    let expert_bytes = 2 * WIDTH * HIDDEN * 2;
    let mut bytes = vec![0; NUM_EXPERTS * expert_bytes];
    device.read(space.at, &mut bytes).expect("memory");
    for (expert, bytes) in bytes.chunks(expert_bytes).enumerate() {
        let is_untouched = bytes.iter().all(|&byte| byte == 0xFF);
        assert_eq!(is_untouched, expert == 2, "expert {expert}");
    }
}

/// Gate and up of unlike types have one matrix, and are dense.
#[test]
fn experts_of_unlike_types_are_dense() {
    let dtype = Dtype::F16;
    let types = [WeightDtype::Q4_0, WeightDtype::Q5_0, WeightDtype::Q5_0];
    let (mut random, mut ops) = (Random::new("unlike experts", 0), ops(dtype));
    let [mixed, wide] = experts(&mut random, &mut ops, types, dtype);
    assert_eq!(mixed.gate_up.format, WeightFormat::Plain(dense(dtype)));
    assert_eq!(mixed.down.format, WeightFormat::Plain(WeightDtype::Q5_0));
    let device = &mut ops.device;
    let x = random_rows(device, &mut random, dtype, [ROUTES.len(), HIDDEN]);
    let space = space(device, 1 << 16);
    let expected = moe_in(device, &wide, &x, None);
    assert_eq!(moe_in(device, &mixed, &x, Some(space)), expected);
}

/// What a whole model takes is what the same model in sixteen bits takes, less what its file is
/// smaller by, and the space in which weights are widened.
#[test]
fn a_quantized_model_takes_what_its_file_takes() {
    let Some(folder) = assets("gguf") else {
        return;
    };
    let measure = |name: &str| {
        let path = folder.join(format!("llama-tiny.{name}.gguf"));
        let file_bytes = std::fs::metadata(&path).expect("it is there").len() as i64;
        let settings = Settings::new(Dtype::F16);
        let (_, memory) = load_blocks(Emulator::new(0), &path, settings).expect("it loads");
        let used_bytes = (memory.total_bytes - memory.free_bytes) as i64;
        (file_bytes, used_bytes)
    };
    let (wide_file, wide_used) = measure("f16");
    for name in ["q4_0", "q4_k_m", "q5_k_m", "q6_k", "q8_0"] {
        let (file, used) = measure(name);
        let saved = wide_used - (used - SPACE_BYTES as i64);
        let expected = wide_file - file;
        assert!(
            (saved - expected).abs() < expected / 100,
            "{name}: {saved} bytes less, its file {expected}"
        );
    }
}

#[test]
fn files_of_every_kind_of_packed_weights() {
    let Some(folder) = assets("gguf") else {
        return;
    };
    for (file, quant, dtype) in [
        ("q4_0", "Q4_0", Dtype::F16),
        ("q5_k_m", "Q5_K_M", Dtype::Bf16),
        ("q6_k", "Q6_K", Dtype::F16),
    ] {
        let names = ["llama-tiny", file, quant];
        let settings = Settings::new(dtype);
        let report = check_gguf(Emulator::new(3), &folder, names, settings, 2);
        let report = report.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(2 * report.num_compared >= report.num_ids, "{report:?}");
    }
}

#[test]
fn widening_is_part_of_a_graph() {
    let Some(folder) = assets("gguf") else {
        return;
    };
    let path = folder.join("llama-tiny.q4_0.gguf");
    let mut num_replays = 0;
    let devices = [1, 2, 3].map(Emulator::new);
    let ended = |device: &Emulator| num_replays = device.num_replays();
    let checked = check_lookahead(devices, &path, Settings::new(Dtype::F16), 3, ended);
    checked.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(num_replays, 2);
}
