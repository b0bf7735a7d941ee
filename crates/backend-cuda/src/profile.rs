//! Device time of single launches, told apart by what they compute.
//!
//! A device that was asked to ([`Device::begin_profile`]) times every launch; [`by_operation`] adds
//! the launches of a step that compute the same and takes the median over steps.
//!
//! Invariant: launches are named by the kernel and, of products, by the shape of the weights, as
//! they reach the device: nothing is computed for a profile while none is under way.
//!
//! [`Device::begin_profile`]: crate::Device::begin_profile

use std::fmt;

use crate::dense::ProductShape;
use crate::kernels::{Embed, Linear};
use crate::launch::Launch;

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Of the kernel, without its types: "rms_norm", "linear".
    pub name: &'static str,
    /// Of a product: outputs and inputs of the weights.
    pub product: Option<[usize; 2]>,
}

/// What a launch took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaunchTime {
    /// What it computed.
    pub operation: Operation,
    /// From the end of what was queued before it to its own, microseconds.
    pub us: f64,
}

/// Launches of a step that compute the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationTime {
    /// What they compute.
    pub operation: Operation,
    /// Of one step.
    pub num_launches: usize,
    /// All together, microseconds: the median over steps.
    pub us: f64,
}

/// Names of kernels begin with these; the second is the operation's.
const OPERATIONS: [(&str, &str); 15] = [
    ("embed", "embed"),
    ("rms_norm", "rms_norm"),
    ("head_rms_norm", "head_rms_norm"),
    ("linear", "linear"),
    ("rope_kv_write", "rope_kv_write"),
    ("attention", "attention"),
    ("silu_mul", "silu_mul"),
    ("gelu_tanh_mul", "gelu_tanh_mul"),
    ("moe", "moe"),
    ("add_bias", "add_bias"),
    ("soft_cap", "soft_cap"),
    ("gather_rows", "gather_rows"),
    ("resolve_tokens", "resolve_tokens"),
    ("sample", "sample"),
    ("logprobs", "logprobs"),
];

impl Operation {
    /// What `launch` computes.
    pub fn of(launch: &Launch<'_>) -> Self {
        let known = OPERATIONS
            .iter()
            .find(|(kernel, _)| launch.kernel.starts_with(kernel));
        let name = known.map_or("other", |(_, name)| name);
        let plain = Self {
            name,
            product: None,
        };
        match name {
            "linear" => match bytemuck::try_pod_read_unaligned::<Linear>(launch.args) {
                Ok(args) if args.group_offsets.0 != 0 => Self {
                    name: "moe",
                    product: None,
                },
                Ok(args) => Self {
                    name,
                    product: Some([args.num_outputs as usize, args.num_inputs as usize]),
                },
                Err(_) => plain,
            },
            "embed" => match bytemuck::try_pod_read_unaligned::<Embed>(launch.args) {
                // Rows of weights on their way to a product.
                Ok(args) if args.token_ids.0 == 0 => Self {
                    name: "widen",
                    product: None,
                },
                _ => plain,
            },
            _ => plain,
        }
    }

    /// A product of a library.
    pub fn of_product(shape: &ProductShape) -> Self {
        Self {
            name: "linear",
            product: Some([shape.num_outputs, shape.num_inputs]),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.product {
            Some([outputs, inputs]) => write!(f, "{} {outputs}x{inputs}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// Sums of each operation, in the order in which a step comes to them; `None` unless `times` are
/// the launches of `num_steps` steps that compute the same.
pub fn by_operation(times: &[LaunchTime], num_steps: usize) -> Option<Vec<OperationTime>> {
    let per_step = times.len().checked_div(num_steps)?;
    if per_step == 0 || times.len() != per_step * num_steps {
        return None;
    }
    let steps: Vec<&[LaunchTime]> = times.chunks(per_step).collect();
    let same = |step: &&[LaunchTime]| {
        let mut pairs = step.iter().zip(steps[0]);
        pairs.all(|(a, b)| a.operation == b.operation)
    };
    if !steps.iter().all(same) {
        return None;
    }
    let mut sums: Vec<OperationTime> = Vec::new();
    for &LaunchTime { operation, .. } in steps[0] {
        if sums.iter().any(|sum| sum.operation == operation) {
            continue;
        }
        let of = |step: &&[LaunchTime]| {
            let own = step.iter().filter(|time| time.operation == operation);
            own.map(|time| time.us).sum()
        };
        let mut each: Vec<f64> = steps.iter().map(of).collect();
        each.sort_by(f64::total_cmp);
        let own = steps[0].iter().filter(|time| time.operation == operation);
        sums.push(OperationTime {
            operation,
            num_launches: own.count(),
            us: each[each.len() / 2],
        });
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(name: &'static str, us: f64) -> LaunchTime {
        let operation = Operation {
            name,
            product: None,
        };
        LaunchTime { operation, us }
    }

    #[test]
    fn launches_are_added_within_a_step_and_the_median_taken_over_steps() {
        let steps = [
            [time("a", 1.0), time("b", 10.0), time("a", 2.0)],
            // Cold.
            [time("a", 100.0), time("b", 50.0), time("a", 100.0)],
            [time("a", 2.0), time("b", 9.0), time("a", 3.0)],
        ];
        let sums = by_operation(steps.as_flattened(), 3).expect("three steps");
        let found: Vec<_> = sums
            .iter()
            .map(|sum| (sum.operation.name, sum.num_launches, sum.us))
            .collect();
        assert_eq!(found, [("a", 2, 5.0), ("b", 1, 10.0)]);
    }

    #[test]
    fn launches_of_unlike_steps_are_not_added() {
        let times = [
            time("a", 1.0),
            time("b", 1.0),
            time("b", 1.0),
            time("a", 1.0),
        ];
        assert_eq!(by_operation(&times, 2), None);
        assert_eq!(by_operation(&times, 3), None);
        assert_eq!(by_operation(&times, 0), None);
        assert_eq!(by_operation(&[], 1), None);
    }

    #[test]
    fn kernels_are_named_without_their_types() {
        let name = |kernel: &str| {
            Operation::of(&Launch {
                kernel,
                grid: [1, 1, 1],
                num_threads: 32,
                shared_bytes: 0,
                args: &[],
            })
            .name
        };
        assert_eq!(name("attention_bf16_128_decode"), "attention");
        assert_eq!(name("attention_merge"), "attention");
        assert_eq!(name("head_rms_norm_f16"), "head_rms_norm");
        assert_eq!(name("rms_norm_f32"), "rms_norm");
        assert_eq!(name("rope_kv_write_bf16_bf16"), "rope_kv_write");
        assert_eq!(name("conversions"), "other");
    }
}
