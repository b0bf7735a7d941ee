//! Device time of each kind of kernel in a step on a card: what docs/PERFORMANCE.md has floors for.
//!
//! The model runs in this process, its steps as single launches with an event before and behind
//! each, so whole steps are a little slower here than as graphs.
//!
//! Invariant: rows have the names of docs/PERFORMANCE.md, and floors come from the same formulas;
//! what a card cannot say, or there is no time for, is said and no failure.

use super::args::BenchArgs;
use super::report::Report;

/// The CPU has timings of its own.
#[cfg(not(feature = "cuda"))]
#[allow(clippy::unnecessary_wraps, reason = "as in the build with CUDA")]
pub(super) fn run(
    _args: &BenchArgs,
    _fits: Option<(&str, f64)>,
    _report: &mut Report,
) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "cuda")]
pub(super) use on_card::run;

#[cfg(feature = "cuda")]
mod on_card {
    use hotspare_backend_cuda::card::{Capability, Card, CardInfo, FaultCell};
    use hotspare_backend_cuda::ops::CudaOps;
    use hotspare_backend_cuda::profile::OperationTime;
    use hotspare_backend_cuda::profile_steps::{StepKind, profile_steps};
    use hotspare_backend_cuda::{CudaBackend, CudaOptions, Dtype, KvBudget, Numerics};
    use hotspare_model::ops::StepLimits;
    use hotspare_model::weights::WeightDtype;
    use hotspare_model::{
        LoadFormat, LoadOptions, ModelConfig, ModelRunner, ModelSource, StepWork, WorkShape,
    };
    use serde_json::{Value, json};

    use super::{BenchArgs, Report};

    const BLOCK_SIZE: usize = 16;
    /// Bits of a dense weight.
    const WEIGHT_BITS: f64 = 16.0;
    /// Seconds of all steps, with some to spare.
    const STEPS_S: f64 = 20.0;
    /// Loading may take so many times as long as it took before.
    const START_TIMES: f64 = 1.5;

    /// Profiles the model of `fits`, whose start took so many seconds.
    pub(in crate::device) fn run(
        args: &BenchArgs,
        fits: Option<(&str, f64)>,
        report: &mut Report,
    ) -> Result<(), String> {
        let (Some((driver, ordinal)), Some((model, start_s)), 1..) =
            (report.machine.driver, fits, args.profile_steps)
        else {
            return Ok(());
        };
        let needed_s = start_s * START_TIMES + STEPS_S;
        if report.elapsed_s() as f64 + needed_s > args.time_limit_s as f64 {
            let note = format!("not begun: about {needed_s:.0} s are needed, too few are left");
            let more = json!({"model": model, "kind": "profile-not-begun"});
            report.result(true, &format!("{model} profile"), &note, more);
            return Ok(());
        }
        let card = Card::open(driver, ordinal, FaultCell::default());
        let card = card.map_err(|error| error.to_string())?;
        let info = card.info().clone();
        let (mut runner, config) = match load(args, model, card) {
            Ok(loaded) => loaded,
            Err(message) => {
                let more = json!({"model": model, "kind": "profile-not-begun"});
                report.result(true, &format!("{model} profile"), &message, more);
                return Ok(());
            }
        };
        for kind in kinds(args) {
            let profiled = profile_steps(runner, kind, args.profile_steps);
            let (back, times) = profiled.map_err(|error| format!("{model} {kind:?}: {error}"))?;
            runner = back;
            match times {
                Some(times) => write(report, model, kind, &times, floors(args, &config, &info)),
                None => {
                    let more = json!({"model": model, "kind": "profile-not-begun"});
                    report.result(true, &format!("{model} profile"), "no times", more);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn kinds(args: &BenchArgs) -> Vec<StepKind> {
        let context = args.context;
        let decode = args.decode.iter().filter(|&&streams| streams > 0);
        let decode = decode.map(|&streams| StepKind::Decode { streams, context });
        let prefill = (args.prefill > 0).then_some(StepKind::Prefill {
            tokens: args.prefill,
        });
        decode.chain(prefill).collect()
    }

    /// The model on the card, with room for all steps and nothing more.
    fn load(
        args: &BenchArgs,
        model: &str,
        card: Card,
    ) -> Result<(ModelRunner<CudaOps<Card>>, ModelConfig), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let format: LoadFormat = args.load_format.parse().map_err(|e| text(&e))?;
        let source = ModelSource::resolve_as(model, format, 0).map_err(|e| text(&e))?;
        let files = source.open().map_err(|e| text(&e))?;
        let config = files.config().map_err(|e| text(&e))?;
        // One is not counted.
        let needs = kinds(args);
        let needs = needs
            .iter()
            .map(|kind| kind.needs(args.profile_steps + 1, BLOCK_SIZE));
        let [num_blocks, max_len] =
            needs.fold([1, 1], |[blocks, len], [b, l]| [blocks.max(b), len.max(l)]);
        let limits = StepLimits {
            max_num_batched_tokens: args.prefill.max(args.context).max(64),
            max_num_seqs: args.decode.iter().copied().max().unwrap_or(1).max(1),
            max_model_len: max_len,
        };
        let dtype = dtype(args, &config);
        let options = CudaOptions {
            kv_budget: KvBudget::Exact,
            numerics: match args.numerics.as_str() {
                "fast" => Numerics::Fast,
                _ => Numerics::Invariant,
            },
            uses_graphs: false,
            ..CudaOptions::new(limits.clone(), dtype)
        };
        let load_options = LoadOptions {
            limits,
            num_blocks,
            block_size: BLOCK_SIZE,
            kv_dtype: match dtype {
                Dtype::Bf16 => WeightDtype::Bf16,
                _ => WeightDtype::F16,
            },
            quantization: None,
        };
        let loaded = CudaBackend::load(card, options, &files, &load_options, &mut |_| {});
        let loaded = loaded.map_err(|e| text(&e))?;
        Ok((loaded.into_runner(), config))
    }

    fn dtype(args: &BenchArgs, config: &ModelConfig) -> Dtype {
        let own = config.dtype.as_deref().unwrap_or("bfloat16");
        match (args.dtype.as_str(), own) {
            ("float32", _) | ("auto", "float32") => Dtype::F32,
            ("float16", _) | ("auto", "float16") => Dtype::F16,
            _ => Dtype::Bf16,
        }
    }

    /// What rows are compared with: where the formulas hold, and the card says how fast it is.
    struct Floors {
        shape: WorkShape,
        /// Bytes a second, operations a second.
        limits: Option<[f64; 2]>,
    }

    fn floors(args: &BenchArgs, config: &ModelConfig, info: &CardInfo) -> Option<Floors> {
        let shape = WorkShape::of(config)?;
        let is_dense = args.load_format == "dummy" && dtype(args, config) != Dtype::F32;
        let sizes = [
            info.num_multiprocessors,
            info.clock_mhz,
            info.memory_clock_mhz,
            info.bus_bits,
        ];
        let limits = is_dense
            .then(|| limits_of(info.capability, sizes))
            .flatten();
        Some(Floors { shape, limits })
    }

    /// Bandwidth and rate of 16-bit products with sums in float32 at the card's highest clocks;
    /// the rate without bound where its generation's is not known here.
    fn limits_of(
        capability: Capability,
        [num_multiprocessors, clock_mhz, memory_clock_mhz, bus_bits]: [u32; 4],
    ) -> Option<[f64; 2]> {
        // Two transfers a clock.
        let bandwidth = f64::from(memory_clock_mhz) * 2e6 * f64::from(bus_bits) / 8.0;
        let per_clock = match (capability.major, capability.minor) {
            (8, 0) => 2048.0,
            (8, 6 | 9) | (12, _) => 512.0,
            (9, _) => 4096.0,
            _ => f64::INFINITY,
        };
        let clocks = f64::from(num_multiprocessors) * f64::from(clock_mhz) * 1e6;
        (bandwidth > 0.0 && clocks > 0.0).then_some([bandwidth, clocks * per_clock])
    }

    /// A line for each operation, and one for their sum.
    fn write(
        report: &mut Report,
        model: &str,
        kind: StepKind,
        times: &[OperationTime],
        floors: Option<Floors>,
    ) {
        let (step, size, work) = match kind {
            StepKind::Decode { streams, context } => {
                ("decode", streams, StepWork::decode(streams, context))
            }
            StepKind::Prefill { tokens } => ("prefill", tokens, StepWork::prefill(tokens)),
        };
        let shape = floors.as_ref().map(|floors| floors.shape);
        let works = shape.map(|shape| shape.kernels(&work, WEIGHT_BITS));
        let limits = floors.and_then(|floors| floors.limits);
        let floor_us = |kernel: Option<&str>| -> Option<f64> {
            let ([bandwidth, rate], works) = (limits?, works.as_ref()?);
            let own = works
                .iter()
                .filter(|work| kernel.is_none_or(|k| k == work.kernel));
            let floors: Vec<f64> = own
                .map(|work| work.floor_s(bandwidth, rate) * 1e6)
                .collect();
            (!floors.is_empty()).then(|| floors.iter().sum())
        };
        let step_us: f64 = times.iter().map(|time| time.us).sum();
        let mut line = |kernel: &str, us: f64, launches: usize, floor: Option<f64>| {
            let share = 100.0 * us / step_us.max(f64::MIN_POSITIVE);
            let mut note = format!("{us:10.1} us, {share:5.1} %, {launches:4} launches");
            let mut more: Value = json!({"model": model, "kind": "profile", "step": step,
                "size": size, "kernel": kernel, "us": us, "launches": launches});
            if let Some(floor) = floor {
                note += &format!("; floor {floor:9.1} us, {:.2} times", us / floor);
                more["floor_us"] = floor.into();
            }
            let name = format!("profile {step} {size} {kernel}");
            // Names of this table are longer than others.
            let pad = 40usize.saturating_sub(name.len().max(28));
            report.result(true, &name, &format!("{:pad$}{note}", ""), more);
        };
        for time in times {
            let operation = time.operation;
            let known = shape.and_then(|shape| shape.product_name(operation.product?));
            let kernel = known.map_or_else(|| operation.to_string(), str::to_owned);
            line(&kernel, time.us, time.num_launches, floor_us(Some(&kernel)));
        }
        let num_launches = times.iter().map(|time| time.num_launches).sum();
        line("all kernels", step_us, num_launches, floor_us(None));
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// As docs/PERFORMANCE.md has them.
        #[test]
        fn the_published_limits_follow_from_what_the_driver_says() {
            for ([major, minor], sms, mhz, memory_mhz, bits, bandwidth, rate) in [
                ([8, 6], 20, 1777, 7001, 128, 224e9, 18.2e12),
                ([8, 9], 128, 2520, 10_501, 384, 1008e9, 165.2e12),
                ([12, 0], 170, 2407, 14_001, 512, 1792e9, 209.5e12),
                ([9, 0], 132, 1830, 3201, 6144, 4800e9, 989e12),
            ] {
                let found = limits_of(Capability::new(major, minor), [sms, mhz, memory_mhz, bits]);
                let [found_bandwidth, found_rate] = found.expect("all are known");
                assert!(
                    (found_bandwidth / bandwidth - 1.0).abs() < 0.03,
                    "{found_bandwidth}"
                );
                assert!((found_rate / rate - 1.0).abs() < 0.01, "{found_rate}");
            }
            let newer = limits_of(Capability::new(13, 0), [100, 2000, 7001, 128]);
            assert_eq!(newer.map(|[_, rate]| rate), Some(f64::INFINITY));
            assert_eq!(limits_of(Capability::new(8, 6), [20, 1777, 0, 128]), None);
        }
    }
}
