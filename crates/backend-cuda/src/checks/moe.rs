//! Mixture of experts: routes, and a whole layer by way of the grouped products.
//!
//! Invariant: some experts have no rows, and some rows share theirs.

use hotspare_model::ops::{ExpertViews, MoeSpec, Ops};
use hotspare_model::weights::WeightDtype;

use super::oracle::{Oracle, failed, view};
use super::support::{Random, Rows, Tolerance, compare, poisoned, same_bits};
use crate::kernels::{Activation, Gated, Linear, Moe, Road, WeightFormat};
use crate::{Address, Dtype, LaunchError, Launcher};

/// A layer and its input.
struct Case {
    dtype: Dtype,
    spec: MoeSpec,
    num_rows: usize,
    hidden: usize,
    width: usize,
    logits: Vec<f32>,
    x: Vec<f32>,
    /// `[experts, 2 width, hidden]`.
    gate_up: Vec<f32>,
    /// `[experts, hidden, width]`.
    down: Vec<f32>,
}

impl Case {
    fn new(random: &mut Random, dtype: Dtype) -> Self {
        let num_experts = random.choose(&[4, 8, 40]);
        let spec = MoeSpec {
            num_experts,
            num_experts_per_token: random.within(1, 4),
            normalises: random.below(2) == 1,
        };
        let (num_rows, hidden) = (random.choose(&[1, 5, 20]), random.choose(&[16, 40]));
        let width = random.choose(&[8, 24]);
        Self {
            dtype,
            num_rows,
            hidden,
            width,
            logits: random.floats(dtype, num_rows * num_experts),
            x: random.floats(dtype, num_rows * hidden),
            gate_up: random.floats(dtype, num_experts * 2 * width * hidden),
            down: random.floats(dtype, num_experts * hidden * width),
            spec,
        }
    }

    /// The CPU's routes and result.
    fn expected(&self) -> Result<(Vec<f32>, Vec<f32>), LaunchError> {
        let mut oracle = Oracle::new()?;
        let (hidden, width, f32) = (self.hidden, self.width, WeightDtype::F32);
        let expert = |(gate_up, down): (&[f32], &[f32])| -> Result<ExpertViews, LaunchError> {
            Ok(ExpertViews {
                gate_up: vec![view(Dtype::F32.encode(gate_up), f32, &[2 * width, hidden])?],
                down: view(Dtype::F32.encode(down), f32, &[hidden, width])?,
            })
        };
        let weights = self.gate_up.chunks_exact(2 * width * hidden);
        let weights = weights.zip(self.down.chunks_exact(hidden * width));
        let views = weights.map(expert).collect::<Result<Vec<_>, _>>()?;
        let experts = oracle.ops.new_experts(views, &self.spec).map_err(failed)?;
        let logits = oracle.buffer(self.spec.num_experts, &self.logits)?;
        let mut routes = oracle.empty(self.num_rows, self.spec.num_experts)?;
        oracle.ops.moe_route(&logits, &self.spec, &mut routes);
        let x = oracle.buffer(hidden, &self.x)?;
        let mut out = oracle.empty(self.num_rows, hidden)?;
        oracle.ops.moe(&x, &routes, &experts, &mut out);
        Ok((routes.rows().to_vec(), out.rows().to_vec()))
    }

    /// The device's, of the first `num_rows` rows.
    fn run(
        &self,
        launcher: &mut dyn Launcher,
        num_rows: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), LaunchError> {
        let (dtype, experts) = (self.dtype, self.spec.num_experts);
        let max_pairs = num_rows * self.spec.num_experts_per_token;
        let logits = &self.logits[..num_rows * experts];
        let logits = Rows::new(launcher, dtype, experts, logits)?;
        let x = Rows::new(
            launcher,
            dtype,
            self.hidden,
            &self.x[..num_rows * self.hidden],
        )?;
        let first = Rows::poisoned(launcher, dtype, max_pairs, 2 * self.width)?;
        let gated = Rows::poisoned(launcher, dtype, max_pairs, self.width)?;
        let second = Rows::poisoned(launcher, dtype, max_pairs, self.hidden)?;
        let out = Rows::poisoned(launcher, dtype, num_rows, self.hidden)?;
        let moe = Moe {
            logits: logits.at,
            routes: poisoned(launcher, 4 * num_rows * experts)?,
            offsets: poisoned(launcher, 4 * (experts + 1))?,
            pair_rows: poisoned(launcher, 4 * max_pairs)?,
            pair_of: poisoned(launcher, 4 * num_rows * experts)?,
            pairs: second.at,
            out: out.at,
            num_rows: num_rows as u32,
            num_experts: experts as u32,
            num_chosen: self.spec.num_experts_per_token as u32,
            normalises: u32::from(self.spec.normalises),
            logits_stride: logits.stride() as u32,
            width: self.hidden as u32,
            stride: out.stride() as u32,
            unused: 0,
        };
        moe.route(launcher, dtype)?;
        moe.plan(launcher)?;
        self.product(launcher, &moe, [x, first], &self.gate_up, moe.pair_rows)?;
        let activation = Gated {
            gate_up: first.at,
            out: gated.at,
            width: self.width as u32,
            in_stride: first.stride() as u32,
            out_stride: gated.stride() as u32,
            unused: 0,
        };
        activation.launch(launcher, Activation::Silu, dtype, max_pairs)?;
        self.product(launcher, &moe, [gated, second], &self.down, Address::NULL)?;
        moe.combine(launcher, dtype)?;
        let mut routes = vec![0.0; num_rows * experts];
        launcher.read(moe.routes, bytemuck::cast_slice_mut(&mut routes))?;
        Ok((routes, out.read(launcher)?))
    }

    /// `to[pair]` = the pair's expert times `from`.
    fn product(
        &self,
        launcher: &mut dyn Launcher,
        moe: &Moe,
        [from, to]: [Rows; 2],
        weight: &[f32],
        x_rows: Address,
    ) -> Result<(), LaunchError> {
        let weight = Rows::new(launcher, self.dtype, from.width, weight)?;
        let row_bytes = (weight.stride() * self.dtype.size()) as u64;
        let linear = Linear {
            x: from.at,
            weight: weight.at,
            scales: Address::NULL,
            out: to.at,
            x_rows,
            group_offsets: moe.offsets,
            weight_row_bytes: row_bytes,
            weight_group_bytes: row_bytes * to.width as u64,
            scale_row_bytes: 0,
            scale_group_bytes: 0,
            num_rows: to.num_rows as u32,
            num_outputs: to.width as u32,
            num_inputs: from.width as u32,
            x_stride: from.stride() as u32,
            out_stride: to.stride() as u32,
            out_dtype: self.dtype.code(),
        };
        let format = WeightFormat::Plain(match self.dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::Bf16 => WeightDtype::Bf16,
        });
        let sizes = [self.spec.num_experts, moe.num_rows as usize];
        linear.launch(launcher, self.dtype, format, Road::best(sizes[1]), sizes)
    }
}

/// Routes and results; the first row alone has the same bits.
pub(crate) fn moe(launcher: &mut dyn Launcher, seed: u64) -> Result<(), LaunchError> {
    let mut random = Random::new("moe", seed);
    for dtype in Dtype::ALL {
        let case = Case::new(&mut random, dtype);
        let (routes, out) = case.expected()?;
        let (found_routes, found) = case.run(launcher, case.num_rows)?;
        let what = format!("moe {dtype:?} {} rows {:?}", case.num_rows, case.spec);
        let chosen = |routes: &[f32]| routes.iter().map(|&x| f32::from(x != 0.0)).collect();
        let [expected, chosen]: [Vec<f32>; 2] = [chosen(&routes), chosen(&found_routes)];
        same_bits(&format!("{what}: chosen"), &chosen, &expected)?;
        let tolerance = Tolerance {
            absolute: 1e-6,
            relative: 1e-5,
        };
        compare(
            &format!("{what}: routes"),
            &found_routes,
            &routes,
            tolerance,
        )?;
        // Sums of rounded sums: as many roundings as there are terms.
        let tolerance = Tolerance::rounded(dtype).times(8.0);
        let tolerance = Tolerance {
            absolute: tolerance.relative,
            ..tolerance
        };
        compare(&what, &found, &out, tolerance)?;
        let (_, alone) = case.run(launcher, 1)?;
        same_bits(&format!("{what}: alone"), &alone, &found[..case.hidden])?;
        launcher.free_all();
    }
    Ok(())
}
