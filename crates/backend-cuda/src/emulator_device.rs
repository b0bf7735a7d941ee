//! The emulator as a [`Device`]: uploads, reads and graphs that behave as if they were queued.
//!
//! Everything runs at once; what a read copied is handed out when it is finished, and a graph is a
//! list of launches, which holds memory where a test says how much.
//!
//! Invariant: what would be an error on a card, as more reads than may be under way or a copy while
//! capturing, is one here.

use std::collections::VecDeque;

use crate::dense::{DenseProduct, PlanId, ProductShape};
use crate::emulator::Emulator;
use crate::emulator_profile::EmulatedProfile;
use crate::launch::{
    Address, Device, DeviceMemory, GraphId, Launch, LaunchError, Launcher, MAX_READS_IN_FLIGHT,
    ReadTicket,
};
use crate::profile::{LaunchTime, Operation};

/// A launch that was recorded.
#[derive(Clone, Debug)]
struct Recorded {
    kernel: String,
    grid: [u32; 3],
    num_threads: u32,
    shared_bytes: u32,
    args: Vec<u8>,
}

/// What is between the host and the emulator.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Of an upload, and of a read.
    staging_bytes: [usize; 2],
    /// Reads that were started, in order, with their tickets' numbers.
    reads: VecDeque<(u64, Vec<u8>)>,
    num_reads: u64,
    capturing: Option<Vec<Recorded>>,
    /// With the bytes that each holds; `None`: given back.
    graphs: Vec<Option<(usize, Vec<Recorded>)>>,
    num_replays: usize,
}

impl Queue {
    /// Whether `launch` was recorded, and is not to be run.
    pub(crate) fn records(&mut self, launch: &Launch<'_>) -> bool {
        let Some(recorded) = &mut self.capturing else {
            return false;
        };
        recorded.push(Recorded {
            kernel: launch.kernel.to_owned(),
            grid: launch.grid,
            num_threads: launch.num_threads,
            shared_bytes: launch.shared_bytes,
            args: launch.args.to_vec(),
        });
        true
    }

    /// Bytes that graphs hold.
    pub(crate) fn graph_bytes(&self) -> usize {
        let graphs = self.graphs.iter().flatten();
        graphs.map(|(num_bytes, _)| num_bytes).sum()
    }

    /// Whether copies of `num_bytes` are possible now.
    fn check(&self, num_bytes: usize, reserved: usize) -> Result<(), LaunchError> {
        if self.capturing.is_some() {
            return Err(misuse("a copy while capturing"));
        }
        if num_bytes > reserved {
            let what = format!("{num_bytes} bytes through {reserved} of pinned memory");
            return Err(LaunchError::Misuse(what));
        }
        Ok(())
    }
}

fn misuse(what: &str) -> LaunchError {
    LaunchError::Misuse(what.to_owned())
}

impl Emulator {
    /// Graphs that were captured and not given back.
    pub fn num_graphs(&self) -> usize {
        self.queue.graphs.iter().flatten().count()
    }

    /// Launches of the graph that has most.
    pub fn max_graph_launches(&self) -> usize {
        let graphs = self.queue.graphs.iter().flatten();
        graphs
            .map(|(_, launches)| launches.len())
            .max()
            .unwrap_or(0)
    }

    /// How often a graph was replayed.
    pub fn num_replays(&self) -> usize {
        self.queue.num_replays
    }
}

impl Device for Emulator {
    fn description(&self) -> String {
        "the emulator".to_owned()
    }

    fn numerics_id(&self) -> String {
        "emulator".to_owned()
    }

    fn memory(&self) -> Result<DeviceMemory, LaunchError> {
        Ok(DeviceMemory {
            free_bytes: self.free_bytes(),
            total_bytes: self.memory_bytes,
        })
    }

    fn reserve_staging(
        &mut self,
        upload_bytes: usize,
        read_bytes: usize,
    ) -> Result<(), LaunchError> {
        self.queue.staging_bytes = [upload_bytes, read_bytes];
        Ok(())
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.queue.check(bytes.len(), self.queue.staging_bytes[0])?;
        self.write(to, bytes)
    }

    fn start_read(&mut self, from: Address, num_bytes: usize) -> Result<ReadTicket, LaunchError> {
        self.queue.check(num_bytes, self.queue.staging_bytes[1])?;
        if self.queue.reads.len() >= MAX_READS_IN_FLIGHT {
            return Err(misuse("too many reads under way"));
        }
        let mut bytes = vec![0; num_bytes];
        self.read(from, &mut bytes)?;
        self.queue.num_reads += 1;
        let id = self.queue.num_reads;
        self.queue.reads.push_back((id, bytes));
        Ok(ReadTicket(id))
    }

    fn finish_read(&mut self, ticket: ReadTicket, bytes: &mut [u8]) -> Result<(), LaunchError> {
        let reads = &mut self.queue.reads;
        let found = reads.iter().position(|(id, _)| *id == ticket.0);
        let (_, read) = found
            .and_then(|index| reads.remove(index))
            .ok_or_else(|| misuse("a ticket of no read"))?;
        if read.len() != bytes.len() {
            return Err(misuse("a read of another length"));
        }
        bytes.copy_from_slice(&read);
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<bool, LaunchError> {
        if self.queue.capturing.is_some() {
            return Err(misuse("capturing already"));
        }
        if self.profile.is_some() {
            return Err(misuse("a capture while timing"));
        }
        self.queue.capturing = Some(Vec::new());
        Ok(true)
    }

    fn end_capture(&mut self) -> Result<GraphId, LaunchError> {
        let captured = self.queue.capturing.take();
        let captured = captured.ok_or_else(|| misuse("capturing nothing"))?;
        let num_bytes = captured.len() * self.graph_bytes_per_launch;
        if num_bytes > self.free_bytes() {
            return Err(LaunchError::OutOfMemory {
                needed_bytes: num_bytes,
                reason: "a graph".to_owned(),
            });
        }
        self.queue.graphs.push(Some((num_bytes, captured)));
        Ok(GraphId(self.queue.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), LaunchError> {
        let launches = self.queue.graphs.get(graph.0 as usize).cloned();
        let (_, launches) = launches
            .flatten()
            .ok_or_else(|| misuse("a graph that is not there"))?;
        self.queue.num_replays += 1;
        for launch in &launches {
            self.launch(&Launch {
                kernel: &launch.kernel,
                grid: launch.grid,
                num_threads: launch.num_threads,
                shared_bytes: launch.shared_bytes,
                args: &launch.args,
            })?;
        }
        Ok(())
    }

    fn drop_graph(&mut self, graph: GraphId) {
        if let Some(launches) = self.queue.graphs.get_mut(graph.0 as usize) {
            *launches = None;
        }
    }

    fn begin_profile(&mut self, max_num_launches: usize) -> Result<bool, LaunchError> {
        if self.profile.is_some() || self.queue.capturing.is_some() {
            return Err(misuse("timing or capturing already"));
        }
        self.profile = Some(EmulatedProfile::new(max_num_launches));
        Ok(true)
    }

    fn end_profile(&mut self) -> Result<Vec<LaunchTime>, LaunchError> {
        let profile = self.profile.take();
        profile.ok_or_else(|| misuse("timing nothing"))?.end()
    }

    fn open_products(&mut self) -> Result<Option<String>, LaunchError> {
        self.open_library()
    }

    fn plan_product(&mut self, shape: &ProductShape) -> Result<Option<PlanId>, LaunchError> {
        self.plan_on_library(shape)
    }

    fn run_product(&mut self, plan: PlanId, product: &DenseProduct) -> Result<bool, LaunchError> {
        if self.queue.capturing.is_some() {
            return Err(misuse("a product of a library while capturing"));
        }
        self.timed(
            || Operation::of_product(&product.shape),
            |emulator| emulator.run_on_library(plan, product),
        )
    }
}
