//! An emulator that fails when a test says so, and the small models that tests load onto it.
//!
//! Invariant: calls that a step makes of a device are counted alike, so that a number names one.

use std::path::PathBuf;

use hotspare_model::PipelinedRunner;

use super::CudaOps;
use crate::dense::{DenseProduct, PlanId, ProductShape};
use crate::model_checks::Settings;
use crate::model_checks::harness::load;
use crate::profile::LaunchTime;
use crate::{
    Address, Device, DeviceMemory, Emulator, GraphId, Launch, LaunchError, Launcher, ReadTicket,
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The device is lost.
    Kernel,
    /// Something does not fit.
    Misuse,
    /// The driver has no memory.
    Memory,
}

/// An emulator some of whose calls fail.
pub(super) struct Failing {
    pub(super) inner: Emulator,
    pub(super) failure: Failure,
    /// The first call (from 1) that fails.
    pub(super) fails_at: usize,
    /// How many do from there on.
    pub(super) num_fails: usize,
    /// Launches, uploads, replays and starts of reads so far.
    pub(super) num_calls: usize,
    pub(super) is_capturing: bool,
    /// Of these when a graph was last given back: at load, when those that show what graphs take
    /// are.
    pub(super) num_calls_at_drop: usize,
    /// What a launch of a graph takes from then on, where that is something else.
    pub(super) later_graph_bytes_per_launch: Option<usize>,
}

impl Failing {
    pub(super) fn new(failure: Failure) -> Self {
        Self {
            inner: Emulator::new(0),
            failure,
            fails_at: usize::MAX,
            num_fails: usize::MAX,
            num_calls: 0,
            is_capturing: false,
            num_calls_at_drop: 0,
            later_graph_bytes_per_launch: None,
        }
    }

    /// Of the calls from now on, number `nth` and the `num_fails - 1` after it fail.
    pub(super) fn fail_at(&mut self, nth: usize, num_fails: usize) {
        self.fails_at = self.num_calls + nth;
        self.num_fails = num_fails;
    }

    fn count(&mut self, what: &str) -> Result<(), LaunchError> {
        self.num_calls += 1;
        if self.num_calls < self.fails_at || self.num_calls - self.fails_at >= self.num_fails {
            return Ok(());
        }
        Err(match self.failure {
            Failure::Kernel => LaunchError::Kernel {
                kernel: what.to_owned(),
                reason: "an illegal address".to_owned(),
            },
            Failure::Misuse => LaunchError::Misuse("a shape".to_owned()),
            Failure::Memory => LaunchError::OutOfMemory {
                needed_bytes: 0,
                reason: "nothing is free".to_owned(),
            },
        })
    }
}

impl Launcher for Failing {
    fn alloc(&mut self, num_bytes: usize) -> Result<Address, LaunchError> {
        assert!(!self.is_capturing, "an allocation while capturing");
        self.inner.alloc(num_bytes)
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.inner.write(to, bytes)
    }

    /// Of a device that is lost it fails too.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), LaunchError> {
        if self.failure == Failure::Kernel && self.num_calls >= self.fails_at {
            self.count("read")?;
        }
        self.inner.read(from, bytes)
    }

    fn free_all(&mut self) {
        self.inner.free_all();
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        self.count(launch.kernel)?;
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
        self.count("upload")?;
        self.inner.upload(to, bytes)
    }

    fn start_read(&mut self, from: Address, num_bytes: usize) -> Result<ReadTicket, LaunchError> {
        self.count("start_read")?;
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
        self.count("replay")?;
        self.inner.replay(graph)
    }

    fn drop_graph(&mut self, graph: GraphId) {
        self.inner.drop_graph(graph);
        self.num_calls_at_drop = self.num_calls;
        if let Some(num_bytes) = self.later_graph_bytes_per_launch {
            self.inner.graph_bytes_per_launch = num_bytes;
        }
    }

    fn begin_profile(&mut self, max_num_launches: usize) -> Result<bool, LaunchError> {
        self.inner.begin_profile(max_num_launches)
    }

    fn end_profile(&mut self) -> Result<Vec<LaunchTime>, LaunchError> {
        self.inner.end_profile()
    }

    fn open_products(&mut self) -> Result<Option<String>, LaunchError> {
        self.inner.open_products()
    }

    fn plan_product(&mut self, shape: &ProductShape) -> Result<Option<PlanId>, LaunchError> {
        self.inner.plan_product(shape)
    }

    fn run_product(&mut self, plan: PlanId, product: &DenseProduct) -> Result<bool, LaunchError> {
        self.inner.run_product(plan, product)
    }
}

/// The folder or file `name` of the test data; `None` (said loudly) without it.
#[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
pub(super) fn assets(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED operations under the emulator: ../shared/assets not found");
    assert!(
        std::env::var_os("CI").is_none(),
        "test data is missing in CI"
    );
    None
}

/// A small model on `device`.
pub(super) fn model<D: Device>(
    device: D,
    settings: Settings,
) -> Option<PipelinedRunner<CudaOps<D>>> {
    let path = assets("tiny/llama")?;
    Some(load(device, &path, settings).unwrap_or_else(|error| panic!("{error}")))
}
