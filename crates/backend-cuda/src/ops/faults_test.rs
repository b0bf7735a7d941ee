//! A device that fails in the middle of a step.
//!
//! Invariant: a failure ends the step with the kernel's name, never the process by itself; after a
//! device's own failure nothing runs any more; a capture is never left open.

use std::path::PathBuf;

use hotspare_batch::{Executor, ExecutorError};
use hotspare_model::PipelinedRunner;

use super::CudaOps;
use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::model_checks::requests::Loop;
use crate::{
    Address, Device, DeviceMemory, Dtype, Emulator, GraphId, Launch, LaunchError, Launcher,
    ReadTicket,
};

/// An emulator whose launch number `fails_at` fails.
struct Failing {
    inner: Emulator,
    fails_at: usize,
    is_for_ever: bool,
    num_launches: usize,
    is_capturing: bool,
}

impl Launcher for Failing {
    fn alloc(&mut self, num_bytes: usize) -> Result<Address, LaunchError> {
        self.inner.alloc(num_bytes)
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.inner.write(to, bytes)
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), LaunchError> {
        self.inner.read(from, bytes)
    }

    fn free_all(&mut self) {
        self.inner.free_all();
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        self.num_launches += 1;
        if self.num_launches == self.fails_at {
            return Err(match self.is_for_ever {
                true => LaunchError::Kernel {
                    kernel: launch.kernel.to_owned(),
                    reason: "an illegal address".to_owned(),
                },
                false => LaunchError::Misuse("a shape".to_owned()),
            });
        }
        self.inner.launch(launch)
    }
}

impl Device for Failing {
    fn description(&self) -> String {
        self.inner.description()
    }

    fn numerics_id(&self) -> String {
        self.inner.numerics_id()
    }

    fn memory(&self) -> Result<DeviceMemory, LaunchError> {
        self.inner.memory()
    }

    fn reserve_staging(&mut self, upload: usize, read: usize) -> Result<(), LaunchError> {
        self.inner.reserve_staging(upload, read)
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.inner.upload(to, bytes)
    }

    fn start_read(&mut self, from: Address, num_bytes: usize) -> Result<ReadTicket, LaunchError> {
        self.inner.start_read(from, num_bytes)
    }

    fn finish_read(&mut self, ticket: ReadTicket, bytes: &mut [u8]) -> Result<(), LaunchError> {
        self.inner.finish_read(ticket, bytes)
    }

    fn begin_capture(&mut self) -> Result<bool, LaunchError> {
        self.is_capturing = true;
        self.inner.begin_capture()
    }

    fn end_capture(&mut self) -> Result<GraphId, LaunchError> {
        self.is_capturing = false;
        self.inner.end_capture()
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), LaunchError> {
        self.inner.replay(graph)
    }
}

/// A small model on a device that has not failed yet; `None` (said loudly) without test data.
#[allow(clippy::print_stderr)]
fn model(is_for_ever: bool) -> Option<PipelinedRunner<CudaOps<Failing>>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let path = root.join("tiny/llama");
    if !path.exists() {
        eprintln!("SKIPPED faults under the emulator: ../shared/assets not found");
        assert!(
            std::env::var_os("CI").is_none(),
            "test data is missing in CI"
        );
        return None;
    }
    let device = Failing {
        inner: Emulator::new(0),
        fails_at: usize::MAX,
        is_for_ever,
        num_launches: 0,
        is_capturing: false,
    };
    let settings = Settings {
        uses_graphs: true,
        ..Settings::new(Dtype::F32)
    };
    Some(load(device, &path, settings).unwrap_or_else(|error| panic!("{error}")))
}

/// Runs so many steps; then one that fails at its launch number `fails_at`, and one more.
fn run(
    runner: PipelinedRunner<CudaOps<Failing>>,
    num_steps: usize,
    fails_at: usize,
) -> (
    [Result<(), ExecutorError>; 2],
    PipelinedRunner<CudaOps<Failing>>,
) {
    let mut steps = Loop::new(&[&[1, 40, 77], &[9]], 8);
    let mut runner = runner;
    for _ in 0..num_steps {
        runner.submit(steps.batch()).expect("nothing fails yet");
        runner.wait().expect("nothing fails yet");
    }
    let mut inner = runner.into_runner();
    let device = &mut inner.ops_mut().device;
    device.fails_at = device.num_launches + fails_at;
    let mut runner = PipelinedRunner::new(inner);
    let batch = steps.batch();
    let failed = runner.submit(batch.clone());
    let next = runner.submit(batch).and_then(|()| runner.wait().map(drop));
    ([failed, next], runner)
}

fn message(result: &Result<(), ExecutorError>) -> String {
    match result {
        Err(ExecutorError::Device(what)) => what.clone(),
        other => panic!("no failure of the device: {other:?}"),
    }
}

#[test]
fn a_failure_of_the_device_is_for_ever() {
    // As single launches, and while capturing.
    for num_steps in [0, 2] {
        let Some(runner) = model(true) else {
            return;
        };
        let ([failed, next], runner) = run(runner, num_steps, 5);
        assert!(
            message(&failed).contains("an illegal address"),
            "{failed:?}"
        );
        assert!(
            message(&failed).starts_with("device error: kernel "),
            "{failed:?}"
        );
        assert_eq!(message(&next), message(&failed));
        let mut inner = runner.into_runner();
        let device = inner.ops_mut().device();
        assert!(!device.is_capturing);
        // Nothing was launched after the one that failed.
        assert_eq!(device.num_launches, device.fails_at);
    }
}

#[test]
fn a_step_that_does_not_fit_fails_alone() {
    for num_steps in [0, 2] {
        let Some(runner) = model(false) else {
            return;
        };
        let ([failed, next], runner) = run(runner, num_steps, 5);
        assert!(message(&failed).contains("a shape"), "{failed:?}");
        assert!(next.is_ok(), "{next:?}");
        assert!(!runner.into_runner().ops_mut().device().is_capturing);
    }
}
