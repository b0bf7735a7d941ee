//! What runs kernels: memory, and launches by name.
//!
//! Invariant: a launch names everything it depends on; what is launched later sees what was
//! launched earlier.

use bytemuck::{Pod, Zeroable};

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
        /// What was asked for.
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
