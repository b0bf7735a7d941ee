//! Profiles of small models on the emulator, whose times are the host's.
//!
//! Invariant: a step's launches are those that it would make without a profile, each once.

use hotspare_batch::ExecutorError;
use hotspare_model::ModelRunner;

use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::ops::CudaOps;
use crate::profile::{Operation, OperationTime};
use crate::profile_steps::{StepKind, profile_steps};
use crate::{Device, Dtype, Emulator, Launch, Launcher, Numerics};

const NUM_STEPS: usize = 3;

/// `None` (said loudly) without the test data.
#[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
fn runner(family: &str, settings: Settings) -> Option<ModelRunner<CudaOps<Emulator>>> {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../../../shared/assets/tiny").join(family);
    if !path.exists() {
        eprintln!("SKIPPED profiles under the emulator: ../shared/assets not found");
        assert!(std::env::var_os("CI").is_none(), "test data is missing");
        return None;
    }
    let mut device = Emulator::new(0);
    device.library.is_present = settings.numerics == Numerics::Fast;
    let runner = load(device, &path, settings).unwrap_or_else(|error| panic!("{error}"));
    Some(runner.into_runner())
}

fn settings() -> Settings {
    Settings::new(Dtype::Bf16)
}

fn launches(times: &[OperationTime], name: &str) -> Vec<(Option<[usize; 2]>, usize)> {
    let own = times.iter().filter(|time| time.operation.name == name);
    own.map(|t| (t.operation.product, t.num_launches)).collect()
}

#[test]
fn every_launch_of_a_step_is_timed_by_its_operation() {
    // With graphs a profile makes the launches one by one all the same.
    for uses_graphs in [false, true] {
        let settings = Settings {
            uses_graphs,
            ..settings()
        };
        let Some(mut runner) = runner("llama", settings) else {
            return;
        };
        for (kind, context) in [
            (
                StepKind::Decode {
                    streams: 3,
                    context: 20,
                },
                20,
            ),
            (
                StepKind::Decode {
                    streams: 1,
                    context: 257,
                },
                257,
            ),
            (StepKind::Prefill { tokens: 40 }, 0),
        ] {
            let (back, times) = profile_steps(runner, kind, NUM_STEPS).unwrap();
            runner = back;
            let times = times.expect("the emulator has times");
            assert!(times.iter().all(|time| time.us > 0.0), "{times:?}");
            // Three layers.
            for (name, num) in [("rope_kv_write", 3), ("silu_mul", 3), ("rms_norm", 7)] {
                assert_eq!(launches(&times, name), [(None, num)], "{kind:?}");
            }
            // Sampling has two stages and, for those who draw, one between.
            for (name, num) in [("embed", 1), ("sample", 3), ("gather_rows", 2)] {
                assert_eq!(launches(&times, name), [(None, num)], "{kind:?}");
            }
            // A context of more than a split is merged.
            let num_attention = if context > 256 { 6 } else { 3 };
            assert_eq!(launches(&times, "attention"), [(None, num_attention)]);
            let products = launches(&times, "linear");
            let counts: Vec<usize> = products.iter().map(|&(_, num)| num).collect();
            // q, k, v; o; gate, up; down; the vocabulary.
            assert_eq!(counts, [3, 3, 3, 3, 1], "{products:?}");
            assert!(launches(&times, "other").is_empty());
        }
        let num_replays = runner.ops_mut().device().num_replays();
        // Steps that were not timed run as graphs, where there are some.
        assert_eq!(num_replays, if uses_graphs { 2 } else { 0 });
    }
}

#[test]
fn experts_and_a_librarys_products_are_told_apart() {
    let Some(moe) = runner("mixtral", settings()) else {
        return;
    };
    let kind = StepKind::Decode {
        streams: 2,
        context: 5,
    };
    let (_, times) = profile_steps(moe, kind, 1).unwrap();
    let times = times.expect("the emulator has times");
    let own = launches(&times, "moe");
    assert!(own.len() == 1 && own[0].1 >= 4, "{own:?}");
    let fast = Settings {
        numerics: Numerics::Fast,
        ..settings()
    };
    let fast = runner("llama", fast).expect("it is there");
    let (mut fast, times) = profile_steps(fast, StepKind::Prefill { tokens: 200 }, 2).unwrap();
    let times = times.expect("the emulator has times");
    let counts = launches(&times, "linear");
    assert_eq!(counts.iter().map(|&(_, num)| num).sum::<usize>(), 13);
    assert_eq!(fast.ops_mut().device().library.products.len(), 3 * 12);
}

#[test]
fn steps_without_room_are_refused() {
    let Some(runner) = runner("llama", settings()) else {
        return;
    };
    // Ninety-six blocks of sixteen tokens.
    let kind = StepKind::Decode {
        streams: 8,
        context: 200,
    };
    let refused = profile_steps(runner, kind, 4).map(|(_, times)| times);
    assert!(
        matches!(refused, Err(ExecutorError::Misuse(_))),
        "{refused:?}"
    );
}

#[test]
fn a_device_times_what_there_is_room_for_and_nothing_else() {
    let mut device = Emulator::new(0);
    let at = device.alloc(64).unwrap();
    let args = crate::kernels::ResolveTokens {
        token_ids: at,
        from_slots: at,
        last_tokens: at,
        num_tokens: 0,
        unused: 0,
    };
    let launch = Launch {
        kernel: "resolve_tokens",
        grid: [1, 1, 1],
        num_threads: 128,
        shared_bytes: 0,
        args: bytemuck::bytes_of(&args),
    };
    assert!(device.end_profile().is_err());
    device.launch(&launch).unwrap();
    assert!(device.begin_profile(2).unwrap());
    assert!(device.begin_profile(2).is_err() && device.begin_capture().is_err());
    device.launch(&launch).unwrap();
    device.launch(&launch).unwrap();
    let times = device.end_profile().unwrap();
    let operation = Operation {
        name: "resolve_tokens",
        product: None,
    };
    assert_eq!(times.len(), 2);
    assert!(times.iter().all(|time| time.operation == operation));
    assert!(device.begin_profile(1).unwrap());
    device.launch(&launch).unwrap();
    device.launch(&launch).unwrap();
    let error = device.end_profile().unwrap_err().to_string();
    assert!(error.contains("1 launches more than the 1"), "{error}");
    assert!(device.begin_capture().unwrap());
    assert!(device.begin_profile(1).is_err());
}
