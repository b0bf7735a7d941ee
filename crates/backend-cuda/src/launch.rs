//! What runs kernels: memory, and launches by name.
//!
//! Invariant: a launch names everything it depends on; what is launched later sees what was
//! launched earlier.

use bytemuck::{Pod, Zeroable};

use crate::dense::{DenseProduct, PlanId, ProductShape};
use crate::profile::LaunchTime;

/// Where something lies on the device: what a kernel sees as a pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct Address(pub u64);

impl Address {
    /// No address: an argument that is left out.
    pub const NULL: Self = Self(0);

    /// `num_bytes` further on.
    #[must_use]
    pub fn offset(self, num_bytes: usize) -> Self {
        Self(self.0 + num_bytes as u64)
    }
}

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel's name in the fatbin.
    pub kernel: &'a str,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, whole warps.
    pub num_threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The kernel's one argument, a struct.
    pub args: &'a [u8],
}

/// Why a launch, or an access to device memory, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The device refused the kernel or failed while it ran; it cannot be used again.
    #[error("kernel {kernel}: {reason}")]
    Kernel {
        /// The kernel's name.
        kernel: String,
        /// What the device said.
        reason: String,
    },
    /// An address, a length or a shape that does not fit what is there.
    #[error("{0}")]
    Misuse(String),
    /// A check found a result that is not the oracle's.
    #[error("{0}")]
    Wrong(String),
    /// Not enough memory on the device.
    #[error("{needed_bytes} bytes of device memory: {reason}")]
    OutOfMemory {
        /// What was asked for; 0 where it is the driver's own need, which it does not say.
        needed_bytes: usize,
        /// What the allocator said.
        reason: String,
    },
}

/// A device, or what stands for one.
pub trait Launcher {
    /// Memory of `num_bytes`, aligned to 256 bytes, holding anything.
    ///
    /// # Errors
    /// Out of memory.
    fn alloc(&mut self, num_bytes: usize) -> Result<Address, LaunchError>;

    /// Copies `bytes` to `to`.
    ///
    /// # Errors
    /// A range outside one allocation.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError>;

    /// Copies from `from` to `bytes`, after all launches before it.
    ///
    /// # Errors
    /// A range outside one allocation.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), LaunchError>;

    /// Frees all memory.
    fn free_all(&mut self);

    /// Runs a kernel.
    ///
    /// # Errors
    /// What the device says.
    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError>;
}

/// Reads that may be under way at once: one for each step in flight, and one to spare.
pub const MAX_READS_IN_FLIGHT: usize = 3;

/// How much memory a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Bytes that nobody uses now.
    pub free_bytes: usize,
    /// Bytes of the card.
    pub total_bytes: usize,
}

/// A read that was started: what [`Device::finish_read`] waits for. Used once.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadTicket(pub u64);

/// Launches that were captured, to be replayed as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphId(pub u32);

/// A device that runs whole models: a [`Launcher`] whose work is queued on one stream.
///
/// `launch`, `upload`, `start_read` and `replay` queue and return; each sees what was queued before
/// it and nothing of what is queued later. `write` and `read` of [`Launcher`] may wait for the
/// device and are for loading and for tests. An error of any of them means that the device cannot
/// be used again, but for [`LaunchError::OutOfMemory`] and [`LaunchError::Misuse`]. One thread at a
/// time owns a device; it may be handed to another.
pub trait Device: Launcher + Send + 'static {
    /// The card, for logs and errors: "NVIDIA GeForce RTX 3050, sm_86, GPU-1f…".
    fn description(&self) -> String;

    /// What of the device enters the bits of a result: card generation and kernel build, without
    /// spaces: "sm86-k1a2b3c4d".
    fn numerics_id(&self) -> String;

    /// Free and total memory, measured now.
    ///
    /// # Errors
    /// What the device says.
    fn memory(&self) -> Result<DeviceMemory, LaunchError>;

    /// Takes the pinned memory of uploads and reads: each upload is at most `upload_bytes` long and
    /// each read at most `read_bytes`. Called once, at start-up, before the first of either.
    ///
    /// # Errors
    /// Out of (host) memory.
    fn reserve_staging(
        &mut self,
        upload_bytes: usize,
        read_bytes: usize,
    ) -> Result<(), LaunchError>;

    /// Queues a copy of `bytes` to `to`, through pinned memory of the device's own: `bytes` may be
    /// changed as soon as it returns. Waits only where [`MAX_READS_IN_FLIGHT`] uploads are still
    /// queued.
    ///
    /// # Errors
    /// A range outside one allocation, more than was reserved, or while capturing.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError>;

    /// Queues a copy of `num_bytes` from `from` to pinned memory, and does not wait for it.
    ///
    /// # Errors
    /// As for `upload`; more than [`MAX_READS_IN_FLIGHT`] that were not finished.
    fn start_read(&mut self, from: Address, num_bytes: usize) -> Result<ReadTicket, LaunchError>;

    /// Waits for the read of `ticket`, and for what was queued before it, and copies its bytes (as
    /// many as it was started with) to `bytes`.
    ///
    /// # Errors
    /// An unknown ticket, another length, or what the device says of the work before.
    fn finish_read(&mut self, ticket: ReadTicket, bytes: &mut [u8]) -> Result<(), LaunchError>;

    /// Starts capturing launches instead of running them; `false` where the device cannot. While it
    /// captures, only `launch` may be called.
    ///
    /// # Errors
    /// Already capturing; what the device says.
    fn begin_capture(&mut self) -> Result<bool, LaunchError> {
        Ok(false)
    }

    /// Ends capturing. Nothing of it has run yet.
    ///
    /// # Errors
    /// Not capturing; what the device says.
    fn end_capture(&mut self) -> Result<GraphId, LaunchError> {
        Err(LaunchError::Misuse("this device captures nothing".into()))
    }

    /// Queues all launches of a graph, with the arguments that they had then.
    ///
    /// # Errors
    /// An unknown graph; what the device says.
    fn replay(&mut self, graph: GraphId) -> Result<(), LaunchError> {
        Err(LaunchError::Misuse(format!("{graph:?} of no device")))
    }

    /// Gives back what a graph takes; it is not replayed again.
    fn drop_graph(&mut self, _graph: GraphId) {}

    /// Times each launch and each product of the library from now on, `max_num_launches` of them;
    /// `false` where the device cannot. Nothing is captured meanwhile.
    ///
    /// # Errors
    /// Timing already, or capturing; what the device says.
    fn begin_profile(&mut self, _max_num_launches: usize) -> Result<bool, LaunchError> {
        Ok(false)
    }

    /// Ends timing: waits for what was queued, and says what each launch took, in order.
    ///
    /// # Errors
    /// Not timing; more launches than there was room for; what the device says.
    fn end_profile(&mut self) -> Result<Vec<LaunchTime>, LaunchError> {
        Err(LaunchError::Misuse("this device times nothing".into()))
    }

    /// Sets up the library that computes large dense products: its handle and its workspace. Called
    /// at most once, at start-up. Returns its name without spaces, which enters `numerics_id`, as
    /// "cublaslt13.1.0"; `None` where such a device has none.
    ///
    /// # Errors
    /// Why it cannot be used; the device can.
    fn open_products(&mut self) -> Result<Option<String>, LaunchError> {
        Ok(None)
    }

    /// Chooses how products of `shape` are computed; `None` where the library has no way. Runs
    /// nothing. Called at start-up only, after `open_products`.
    ///
    /// # Errors
    /// What the library says.
    fn plan_product(&mut self, _shape: &ProductShape) -> Result<Option<PlanId>, LaunchError> {
        Ok(None)
    }

    /// Queues a product; `false`, with nothing queued, where the plan does not suit so many rows.
    /// Not while capturing.
    ///
    /// # Errors
    /// An unknown plan; what the library or the device says.
    fn run_product(&mut self, plan: PlanId, _product: &DenseProduct) -> Result<bool, LaunchError> {
        Err(LaunchError::Misuse(format!("{plan:?} of no device")))
    }
}
