//! A layer of experts: which of them compute a token, and their products.
//!
//! Experts run one after the other, each on the rows that chose it, so that its weights are read
//! once a step; a row's results are added in the order of the experts.
//!
//! Invariant: a row's bits depend on that row and its routes alone, not on how many rows share an
//! expert.

use hotspare_model::ops::{ExpertViews, MAX_EXPERTS_PER_TOKEN, MoeSpec, OpsError};

use crate::elementwise;
use crate::linear::{Arithmetic, CpuLinear, PackSpace};
use crate::memory::AlignedArray;
use crate::simd::{LANES, Simd, isa_entry};
use crate::workers::Workers;

/// The experts of a layer.
#[derive(Debug)]
pub struct CpuExperts {
    experts: Vec<Expert>,
    hidden: usize,
    width: usize,
}

#[derive(Debug)]
struct Expert {
    gate_up: CpuLinear,
    down: CpuLinear,
}

impl CpuExperts {
    /// Takes experts of one shape.
    ///
    /// # Errors
    /// As for linear layers; unlike experts.
    pub(crate) fn new(experts: Vec<ExpertViews>) -> Result<Self, OpsError> {
        let expert = |views: ExpertViews| {
            Ok(Expert {
                gate_up: CpuLinear::new(views.gate_up)?,
                down: CpuLinear::new(vec![views.down])?,
            })
        };
        let experts: Vec<Expert> = experts.into_iter().map(expert).collect::<Result<_, _>>()?;
        let (hidden, width) = experts.first().map_or((0, 0), |expert| {
            (expert.gate_up.num_inputs(), expert.down.num_inputs())
        });
        let is_alike = |expert: &Expert| {
            expert.gate_up.num_inputs() == hidden
                && expert.gate_up.num_outputs() == 2 * width
                && expert.down.num_inputs() == width
                && expert.down.num_outputs() == hidden
        };
        if hidden == 0 || width == 0 || !experts.iter().all(is_alike) {
            return Err(OpsError::Unsupported {
                backend: "cpu",
                what: "a layer without experts, or of unlike experts".to_owned(),
            });
        }
        Ok(Self {
            experts,
            hidden,
            width,
        })
    }

    pub(crate) fn num_experts(&self) -> usize {
        self.experts.len()
    }

    /// Floats of an input and an output row.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Weights of one expert.
    pub(crate) fn num_weights_per_expert(&self) -> usize {
        3 * self.hidden * self.width
    }
}

/// What an expert works in, for all rows of a step.
#[derive(Debug, Default)]
pub(crate) struct MoeSpace {
    /// Rows that chose the expert.
    rows: Vec<u32>,
    /// Inputs, then outputs.
    hidden: Option<AlignedArray<f32>>,
    gate_up: Option<AlignedArray<f32>>,
    activated: Option<AlignedArray<f32>>,
}

impl MoeSpace {
    /// Makes sure of room for `max_rows` rows of `experts`.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn reserve(
        &mut self,
        max_rows: usize,
        experts: &CpuExperts,
    ) -> Result<(), OpsError> {
        self.rows.reserve(max_rows);
        grow(&mut self.hidden, max_rows.saturating_mul(experts.hidden))?;
        let gate_up = experts.width.saturating_mul(2);
        grow(&mut self.gate_up, max_rows.saturating_mul(gate_up))?;
        grow(&mut self.activated, max_rows.saturating_mul(experts.width))
    }
}

fn grow(array: &mut Option<AlignedArray<f32>>, len: usize) -> Result<(), OpsError> {
    if array.as_ref().is_none_or(|array| array.len() < len) {
        *array = Some(AlignedArray::zeroed("experts' activations", len)?);
    }
    Ok(())
}

fn first_rows(array: &mut Option<AlignedArray<f32>>, len: usize) -> Result<&mut [f32], OpsError> {
    let floats = array.as_mut().and_then(|array| array.get_mut(..len));
    floats.ok_or_else(|| OpsError::Device("moe: more rows than the limits allow".to_owned()))
}

/// The machine that runs it.
pub(crate) struct Machine<'a> {
    pub(crate) arithmetic: Arithmetic,
    pub(crate) workers: &'a Workers,
    pub(crate) pack_space: &'a mut PackSpace,
}

/// Adds up the experts' results for each row of `x`.
///
/// # Errors
/// Out of memory, or more rows than there is room for.
pub(crate) fn moe(
    machine: &mut Machine<'_>,
    space: &mut MoeSpace,
    layer: &CpuExperts,
    [x, routes]: [&[f32]; 2],
    out: &mut [f32],
) -> Result<(), OpsError> {
    let (arithmetic, workers) = (machine.arithmetic, machine.workers);
    let isa = arithmetic.isa;
    let (hidden, width) = (layer.hidden, layer.width);
    out.fill(0.0);
    for (index, expert) in layer.experts.iter().enumerate() {
        space.rows.clear();
        let of_row = routes.chunks_exact(layer.experts.len()).enumerate();
        let chosen = of_row.filter(|(_, routes)| routes[index] != 0.0);
        space.rows.extend(chosen.map(|(row, _)| row as u32));
        let num_rows = space.rows.len();
        if num_rows == 0 {
            continue;
        }
        let inputs = first_rows(&mut space.hidden, num_rows * hidden)?;
        let gate_up = first_rows(&mut space.gate_up, num_rows * 2 * width)?;
        let activated = first_rows(&mut space.activated, num_rows * width)?;
        for (input, &row) in inputs.chunks_exact_mut(hidden).zip(&space.rows) {
            input.copy_from_slice(&x[row as usize * hidden..][..hidden]);
        }
        let pack_space = &mut *machine.pack_space;
        let first = &expert.gate_up;
        first.forward(arithmetic, workers, pack_space, inputs, gate_up)?;
        workers.rows(
            activated,
            width,
            activated_ns(num_rows * width),
            &|at, rows| {
                let gate_up = &gate_up[at * 2 * width..][..2 * rows.len()];
                elementwise::silu_mul(isa, gate_up, width, rows);
            },
        );
        let outputs = inputs;
        expert
            .down
            .forward(arithmetic, workers, pack_space, activated, outputs)?;
        for (output, &row) in outputs.chunks_exact(hidden).zip(&space.rows) {
            let row = row as usize;
            let route = routes[row * layer.experts.len() + index];
            elementwise::add_scaled(isa, output, route, &mut out[row * hidden..][..hidden]);
        }
    }
    Ok(())
}

/// Work of the activations, estimated.
fn activated_ns(num_floats: usize) -> usize {
    num_floats
}

isa_entry! {
    /// Turns each row of router logits into the weights of the chosen experts, zero for the others.
    pub(crate) fn route(spec: &MoeSpec, rows: &mut [f32]) = route_rows
}

#[inline(always)]
fn route_rows<S: Simd>(s: S, spec: &MoeSpec, rows: &mut [f32]) {
    for row in rows.chunks_exact_mut(spec.num_experts) {
        softmax(s, row);
        choose(spec, row);
    }
}

#[inline(always)]
fn softmax<S: Simd>(s: S, row: &mut [f32]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let max = s.splat(largest);
    let mut sum = s.splat(0.0);
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        let e = s.exp(s.sub(s.load(chunk), max));
        s.store(chunk, e);
        sum = s.add(sum, e);
    }
    if !tail.is_empty() {
        let e = s.exp(s.sub(s.load_partial(tail), max));
        s.store_partial(tail, e);
        sum = s.add(sum, s.keep_lanes(e, 0, tail.len(), 0.0));
    }
    let sum = s.sum(sum);
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Keeps the largest weights of a row, of equals the first. A row of NaN keeps some of them, so
/// that its sequence fails.
#[inline(always)]
fn choose(spec: &MoeSpec, row: &mut [f32]) {
    const TAKEN: f32 = -1.0;
    let num_chosen = spec
        .num_experts_per_token
        .min(row.len())
        .min(MAX_EXPERTS_PER_TOKEN);
    let mut chosen = [(0, 0.0); MAX_EXPERTS_PER_TOKEN];
    let chosen = &mut chosen[..num_chosen];
    for choice in chosen.iter_mut() {
        let (mut best, mut weight) = (0, TAKEN);
        for (index, &x) in row.iter().enumerate() {
            if x > weight || (x.is_nan() && weight == TAKEN) {
                (best, weight) = (index, x);
            }
        }
        *choice = (best, weight);
        row[best] = TAKEN;
    }
    let total = match spec.normalises {
        true => chosen.iter().map(|(_, weight)| weight).sum(),
        false => 1.0,
    };
    row.fill(0.0);
    for &(index, weight) in chosen.iter() {
        row[index] = weight / total;
    }
}
