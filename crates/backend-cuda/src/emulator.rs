//! The emulator as a [`Launcher`]: kernels compiled as C++, memory of the host.
//!
//! Invariant: a kernel sees the allocations of its own emulator and nothing else; each is exactly
//! as long as was asked for, so that an access one byte behind it is found.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

use crate::emulator_device::Queue;
use crate::emulator_library::EmulatedLibrary;
use crate::emulator_profile::EmulatedProfile;
use crate::launch::{Address, Launch, LaunchError, Launcher};
use crate::profile::Operation;

/// As cudaMalloc aligns.
const ALIGNMENT: usize = 256;
/// What fresh memory holds: NaN in every float format.
const POISON: u8 = 0xFF;

/// `Launch` of kernels/emu/core.h.
#[repr(C)]
struct EmuLaunch {
    kernel: *const c_char,
    args: *const c_void,
    args_len: usize,
    grid: [u32; 3],
    num_threads: u32,
    shared_bytes: u32,
    seed: u64,
    regions: *const Region,
    num_regions: usize,
    error: *mut c_char,
    error_len: usize,
}

/// `Region` of kernels/emu/core.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Region {
    base: *const u8,
    len: usize,
    is_writable: u32,
}

unsafe extern "C" {
    fn hotspare_emu_launch(launch: *const EmuLaunch) -> i32;
    fn hotspare_emu_kernel(index: usize, args_len: *mut usize) -> *const c_char;
}

#[derive(Debug)]
struct Allocation {
    memory: NonNull<u8>,
    layout: Layout,
    len: usize,
    is_writable: bool,
}

/// A device that runs kernels on this thread, and checks them.
#[derive(Debug)]
pub struct Emulator {
    allocations: Vec<Allocation>,
    seed: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) used_bytes: usize,
    pub(crate) queue: Queue,
    pub(crate) profile: Option<EmulatedProfile>,
    /// What a graph takes for each of its launches: nothing, unless a test says so.
    pub graph_bytes_per_launch: usize,
    /// Pieces in which memory is taken for graphs; above 0.
    pub graph_chunk_bytes: usize,
    /// Its library for dense products: none, unless a test puts it there.
    pub library: EmulatedLibrary,
}

// SAFETY: an emulator owns its allocations; nobody else has their addresses as pointers.
unsafe impl Send for Emulator {}

impl Emulator {
    /// Memory of an emulator that was not told how much it has.
    const MEMORY_BYTES: usize = 4 << 30;

    /// An emulator that runs blocks and threads in an order that `seed` chooses.
    pub fn new(seed: u64) -> Self {
        Self {
            allocations: Vec::new(),
            seed,
            memory_bytes: Self::MEMORY_BYTES,
            used_bytes: 0,
            queue: Queue::default(),
            profile: None,
            graph_bytes_per_launch: 0,
            graph_chunk_bytes: 1,
            library: EmulatedLibrary::default(),
        }
    }

    /// As [`Emulator::new`], with a memory of so many bytes.
    pub fn with_memory(seed: u64, memory_bytes: usize) -> Self {
        let mut emulator = Self::new(seed);
        emulator.memory_bytes = memory_bytes;
        emulator
    }

    /// All kernels that were compiled for the emulator, those of its own tests among them: names,
    /// and lengths of the arguments in bytes.
    pub fn kernels() -> impl Iterator<Item = (&'static str, usize)> {
        (0..).map_while(|index| {
            let mut args_len = 0;
            // SAFETY: any index has an answer, and the length is written to a variable of our own.
            let name = unsafe { hotspare_emu_kernel(index, &raw mut args_len) };
            // SAFETY: a string of the program's own, or null.
            let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
            Some((name?.to_str().ok()?, args_len))
        })
    }

    /// Makes a write of any kernel to the allocation at `address` an error.
    pub fn protect(&mut self, address: Address) {
        for allocation in &mut self.allocations {
            if allocation.memory.as_ptr() as u64 == address.0 {
                allocation.is_writable = false;
            }
        }
    }

    /// What neither allocations nor graphs hold.
    pub(crate) fn free_bytes(&self) -> usize {
        let graphs = self.queue.graph_bytes();
        let graphs = graphs.next_multiple_of(self.graph_chunk_bytes.max(1));
        self.memory_bytes.saturating_sub(self.used_bytes + graphs)
    }

    /// The bytes of `len` from `address` on, if they are all in one allocation.
    fn find(&self, address: Address, len: usize) -> Result<*mut u8, LaunchError> {
        let found = self.allocations.iter().find_map(|allocation| {
            let start = allocation.memory.as_ptr() as u64;
            let offset = usize::try_from(address.0.checked_sub(start)?).ok()?;
            let is_inside = offset.checked_add(len)? <= allocation.len;
            // SAFETY: the offset is inside the allocation.
            is_inside.then(|| unsafe { allocation.memory.as_ptr().add(offset) })
        });
        found.ok_or_else(|| {
            LaunchError::Misuse(format!(
                "{len} bytes at {:#x} are no allocation's",
                address.0
            ))
        })
    }
}

impl Launcher for Emulator {
    fn alloc(&mut self, num_bytes: usize) -> Result<Address, LaunchError> {
        let out_of_memory = |reason: &str| LaunchError::OutOfMemory {
            needed_bytes: num_bytes,
            reason: reason.to_owned(),
        };
        if num_bytes > self.free_bytes() {
            return Err(out_of_memory("there is no more"));
        }
        let layout = Layout::from_size_align(num_bytes.max(1), ALIGNMENT)
            .map_err(|error| out_of_memory(&error.to_string()))?;
        // SAFETY: the layout has a size above zero.
        let memory = NonNull::new(unsafe { alloc(layout) });
        let memory = memory.ok_or_else(|| out_of_memory("the host has no more"))?;
        // SAFETY: the memory is as long as its layout says.
        unsafe { memory.as_ptr().write_bytes(POISON, layout.size()) };
        self.used_bytes += num_bytes;
        self.allocations.push(Allocation {
            memory,
            layout,
            len: num_bytes,
            is_writable: true,
        });
        Ok(Address(memory.as_ptr() as u64))
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        let to = self.find(to, bytes.len())?;
        // SAFETY: the range is inside an allocation of our own, which no reference points to.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), LaunchError> {
        let from = self.find(from, bytes.len())?;
        // SAFETY: as in `write`; all bytes were written when the memory was made.
        unsafe {
            bytes
                .as_mut_ptr()
                .copy_from_nonoverlapping(from, bytes.len())
        };
        Ok(())
    }

    fn free_all(&mut self) {
        self.used_bytes = 0;
        for allocation in self.allocations.drain(..) {
            // SAFETY: made in `alloc` with this layout, and taken out of the list.
            unsafe { dealloc(allocation.memory.as_ptr(), allocation.layout) };
        }
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        if self.queue.records(launch) {
            return Ok(());
        }
        self.timed(|| Operation::of(launch), |emulator| emulator.run(launch))
    }
}

impl Emulator {
    fn run(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        let kernel_error = |reason: String| LaunchError::Kernel {
            kernel: launch.kernel.to_owned(),
            reason,
        };
        let kernel =
            CString::new(launch.kernel).map_err(|error| kernel_error(error.to_string()))?;
        // Structs of arguments hold addresses: copied to where they are aligned.
        let mut args = vec![0u64; launch.args.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut args)[..launch.args.len()].copy_from_slice(launch.args);
        let region = |allocation: &Allocation| Region {
            base: allocation.memory.as_ptr(),
            len: allocation.len,
            is_writable: u32::from(allocation.is_writable),
        };
        let regions: Vec<Region> = self.allocations.iter().map(region).collect();
        let mut error = [0u8; 640];
        self.seed = self.seed.wrapping_add(1);
        let request = EmuLaunch {
            kernel: kernel.as_ptr(),
            args: args.as_ptr().cast(),
            args_len: launch.args.len(),
            grid: launch.grid,
            num_threads: launch.num_threads,
            shared_bytes: launch.shared_bytes,
            seed: self.seed,
            regions: regions.as_ptr(),
            num_regions: regions.len(),
            error: error.as_mut_ptr().cast(),
            error_len: error.len(),
        };
        // SAFETY: the struct is the emulator's, every pointer in it outlives the call, and the
        // emulator lets a kernel touch the regions only.
        if unsafe { hotspare_emu_launch(&raw const request) } == 0 {
            return Ok(());
        }
        let len = error
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(error.len());
        Err(kernel_error(
            String::from_utf8_lossy(&error[..len]).into_owned(),
        ))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.free_all();
    }
}
