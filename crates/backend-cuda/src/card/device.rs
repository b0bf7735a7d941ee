//! A card as a [`Device`]: its primary context, one stream, the kernels, memory and graphs.
//!
//! Everything that a step does is queued on the one stream, so each operation sees what was queued
//! before it. Memory is taken at load; a step allocates nothing, so that captured graphs hold
//! kernels and nothing else.
//!
//! Invariant: a range that a copy touches lies in one allocation; all functions are loaded when the
//! card is opened, so that no launch loads one while a graph is captured.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::cublaslt::CublasLt;
use super::fault::{is_sticky, name_of};
use super::functions::{Kernel, load_kernels};
use super::profile::Profile;
use super::staging::{Staging, StagingError};
use super::{CardError, CardFault, CardInfo, Code, Driver, FATBIN, FaultCell, KERNELS_HASH};
use crate::profile::{LaunchTime, Operation};
use crate::{
    Address, DenseProduct, Device, DeviceMemory, GraphId, Launch, LaunchError, Launcher, PlanId,
    ProductShape, ReadTicket,
};

/// What stands for the kernels of a graph in messages.
const REPLAYED: &str = "(one of a captured step)";

/// A card that runs kernels.
pub struct Card {
    pub(super) info: CardInfo,
    code: Code,
    cuda_version: u32,
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    module: sys::CUmodule,
    kernels: HashMap<String, Kernel>,
    /// Length by address.
    allocations: BTreeMap<u64, usize>,
    staging: Option<Staging>,
    /// `None`: given back.
    graphs: Vec<Option<sys::CUgraphExec>>,
    /// cuBLASLt, once it was asked for.
    pub(super) library: Option<CublasLt>,
    is_capturing: bool,
    /// Launches that are timed, where that was asked for.
    pub(super) profile: Option<Profile>,
    /// For messages: errors of kernels show at later calls.
    pub(super) last_kernel: String,
    /// Whether a graph was launched since the last upload.
    has_replayed: bool,
    fault: FaultCell,
}

// SAFETY: the handles are the driver's and cuBLASLt's, which take them from any thread; each
// function here makes the context current on the thread that calls it, and `&mut self` keeps
// callers one at a time.
unsafe impl Send for Card {}

impl Card {
    /// Opens the card `cuda:ordinal` and loads the kernels. An error that ends the context is left
    /// in `fault` too.
    ///
    /// # Errors
    /// No such card, one that is too old, or what the driver says.
    pub fn open(driver: Driver, ordinal: usize, fault: FaultCell) -> Result<Self, CardError> {
        let info = driver.card(ordinal)?;
        let code = info.code()?;
        // SAFETY: the device is the driver's own; released in `Drop`.
        let context = unsafe { result::primary_ctx::retain(info.device) };
        let mut card = Self {
            info,
            code,
            cuda_version: driver.cuda_version,
            context: context.map_err(CardError::call("cuDevicePrimaryCtxRetain"))?,
            stream: ptr::null_mut(),
            module: ptr::null_mut(),
            kernels: HashMap::new(),
            allocations: BTreeMap::new(),
            staging: None,
            graphs: Vec::new(),
            library: None,
            is_capturing: false,
            profile: None,
            last_kernel: "none".to_owned(),
            has_replayed: false,
            fault,
        };
        card.bind().map_err(CardError::call("cuCtxSetCurrent"))?;
        card.stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(CardError::call("cuStreamCreate"))?;
        // SAFETY: the bytes are a fatbin's, aligned, and live as long as the program.
        card.module = unsafe { result::module::load_data(FATBIN.as_ptr().cast()) }
            .map_err(CardError::call("cuModuleLoadData"))?;
        // SAFETY: the module was just loaded.
        card.kernels =
            unsafe { load_kernels(card.module) }.map_err(CardError::call("loading the kernels"))?;
        Ok(card)
    }

    /// What the driver says of it.
    pub fn info(&self) -> &CardInfo {
        &self.info
    }

    /// Waits for all that was queued.
    ///
    /// # Errors
    /// What the device says of it.
    pub fn synchronize(&mut self) -> Result<(), LaunchError> {
        self.bind()
            .map_err(|error| self.failed("cuCtxSetCurrent", error))?;
        // SAFETY: the stream is this card's own.
        let done = unsafe { result::stream::synchronize(self.stream) };
        done.map_err(|error| self.failed("cuStreamSynchronize", error))
    }

    fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained until `Drop`.
        unsafe { result::ctx::set_current(self.context) }
    }

    /// The error of a call, and the end of the card where it is one.
    pub(super) fn failed(&self, call: &str, error: DriverError) -> LaunchError {
        let name = name_of(error);
        if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return LaunchError::OutOfMemory {
                needed_bytes: 0,
                reason: format!("{call}: {name}"),
            };
        }
        if is_sticky(error.0) {
            self.fault.set(CardFault {
                error: format!("{call}: {name}"),
                kernel: self.last_kernel.clone(),
                gpu_uuid: self.info.uuid.clone(),
            });
        }
        LaunchError::Kernel {
            kernel: self.last_kernel.clone(),
            reason: format!("{call}: {name}"),
        }
    }

    fn staging_failed(&self, error: StagingError) -> LaunchError {
        match error {
            StagingError::Misuse(what) => LaunchError::Misuse(what),
            StagingError::Driver(call, error) => self.failed(call, error),
        }
    }

    /// That `len` bytes from `address` on lie in one allocation.
    fn check_range(&self, address: Address, len: usize) -> Result<(), LaunchError> {
        let before = self.allocations.range(..=address.0).next_back();
        let fits = |(&start, &size): (&u64, &usize)| {
            usize::try_from(address.0 - start)
                .ok()
                .and_then(|offset| offset.checked_add(len))
                .is_some_and(|end| end <= size)
        };
        match before.is_some_and(fits) {
            true => Ok(()),
            false => Err(LaunchError::Misuse(format!(
                "{len} bytes at {:#x} are no allocation's",
                address.0
            ))),
        }
    }

    /// Makes the context current; not while a graph is captured.
    pub(super) fn begin(&self, what: &str) -> Result<(), LaunchError> {
        if self.is_capturing {
            return Err(LaunchError::Misuse(format!("{what} while capturing")));
        }
        self.bind()
            .map_err(|error| self.failed("cuCtxSetCurrent", error))
    }
}

impl Launcher for Card {
    fn alloc(&mut self, num_bytes: usize) -> Result<Address, LaunchError> {
        self.begin("alloc")?;
        // SAFETY: freed in `free_all`.
        match unsafe { result::malloc_sync(num_bytes.max(1)) } {
            Ok(address) => {
                self.allocations.insert(address, num_bytes);
                Ok(Address(address))
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let reason = match result::mem_get_info() {
                    Ok((free, total)) => format!("{} has {free} of {total} free", self.info.name),
                    Err(error) => name_of(error),
                };
                Err(LaunchError::OutOfMemory {
                    needed_bytes: num_bytes,
                    reason,
                })
            }
            Err(error) => Err(self.failed("cuMemAlloc", error)),
        }
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.check_range(to, bytes.len())?;
        self.begin("write")?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is an allocation's; `bytes` live until the copy is over, below.
        unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) }
            .map_err(|error| self.failed("cuMemcpyHtoDAsync", error))?;
        // Some systems copy straight from pageable memory, later.
        self.synchronize()
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), LaunchError> {
        self.check_range(from, bytes.len())?;
        self.begin("read")?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: as in `write`.
        unsafe { result::memcpy_dtoh_async(bytes, from.0, self.stream) }
            .map_err(|error| self.failed("cuMemcpyDtoHAsync", error))?;
        self.synchronize()
    }

    fn free_all(&mut self) {
        // What is still queued may use it. After a fault the driver refuses, and the process ends.
        drop(self.synchronize());
        // Its workspace is among them.
        self.library = None;
        for (address, _) in std::mem::take(&mut self.allocations) {
            // SAFETY: made in `alloc`, taken out of the list, and nothing is queued.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        self.timed(|| Operation::of(launch), |card| card.queue(launch))
    }
}

impl Card {
    fn queue(&mut self, launch: &Launch<'_>) -> Result<(), LaunchError> {
        self.bind()
            .map_err(|error| self.failed("cuCtxSetCurrent", error))?;
        let misuse = |what: String| Err(LaunchError::Misuse(what));
        let Some(kernel) = self.kernels.get_mut(launch.kernel) else {
            return misuse(format!("there is no kernel {}", launch.kernel));
        };
        if kernel.args_len != launch.args.len() {
            let [is, was] = [kernel.args_len, launch.args.len()];
            return misuse(format!("{} takes {is} bytes, not {was}", launch.kernel));
        }
        self.last_kernel.clear();
        if self.has_replayed {
            self.last_kernel.push_str(REPLAYED);
            self.last_kernel.push_str(", then ");
        }
        self.last_kernel.push_str(launch.kernel);
        if launch.shared_bytes > kernel.max_shared_bytes {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
            // SAFETY: the function is the module's.
            let set = unsafe {
                result::function::set_function_attribute(
                    kernel.function,
                    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    bytes,
                )
            };
            kernel.max_shared_bytes = launch.shared_bytes;
            set.map_err(|error| self.failed("cuFuncSetAttribute", error))?;
        }
        let function = self.kernels[launch.kernel].function;
        let mut params = [launch.args.as_ptr().cast_mut().cast::<c_void>()];
        let [x, y, z] = launch.grid;
        // SAFETY: the kernel takes one struct of as many bytes, which the driver copies now; the
        // addresses in it are the caller's to keep in range, as the emulator checks.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.num_threads, 1, 1),
                launch.shared_bytes,
                self.stream,
                &mut params,
            )
        }
        .map_err(|error| self.failed("cuLaunchKernel", error))
    }
}

impl Device for Card {
    fn description(&self) -> String {
        let info = &self.info;
        format!("{}, {}, {}", info.name, info.capability.name(), info.uuid)
    }

    fn numerics_id(&self) -> String {
        self.code
            .numerics_id(self.info.capability, self.cuda_version, KERNELS_HASH)
    }

    fn memory(&self) -> Result<DeviceMemory, LaunchError> {
        self.bind()
            .map_err(|error| self.failed("cuCtxSetCurrent", error))?;
        let (free_bytes, total_bytes) =
            result::mem_get_info().map_err(|error| self.failed("cuMemGetInfo", error))?;
        Ok(DeviceMemory {
            free_bytes,
            total_bytes,
        })
    }

    fn reserve_staging(
        &mut self,
        upload_bytes: usize,
        read_bytes: usize,
    ) -> Result<(), LaunchError> {
        self.begin("reserve_staging")?;
        let staging = Staging::new(upload_bytes, read_bytes);
        self.staging = Some(staging.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => LaunchError::OutOfMemory {
                needed_bytes: crate::MAX_READS_IN_FLIGHT * (upload_bytes + read_bytes),
                reason: "pinned memory of the host".to_owned(),
            },
            _ => self.failed("cuMemHostAlloc", error),
        })?);
        Ok(())
    }

    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<(), LaunchError> {
        self.check_range(to, bytes.len())?;
        self.begin("upload")?;
        self.has_replayed = false;
        let done = staging(&mut self.staging)?.upload(self.stream, to.0, bytes);
        done.map_err(|error| self.staging_failed(error))
    }

    fn start_read(&mut self, from: Address, num_bytes: usize) -> Result<ReadTicket, LaunchError> {
        self.check_range(from, num_bytes)?;
        self.begin("start_read")?;
        let ticket = staging(&mut self.staging)?.start_read(self.stream, from.0, num_bytes);
        ticket.map_err(|error| self.staging_failed(error))
    }

    fn finish_read(&mut self, ticket: ReadTicket, bytes: &mut [u8]) -> Result<(), LaunchError> {
        self.begin("finish_read")?;
        let done = staging(&mut self.staging)?.finish_read(&ticket, bytes);
        done.map_err(|error| self.staging_failed(error))
    }

    fn begin_capture(&mut self) -> Result<bool, LaunchError> {
        self.begin("begin_capture")?;
        if self.profile.is_some() {
            return Err(LaunchError::Misuse("a capture while timing".to_owned()));
        }
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is this card's own.
        unsafe { result::stream::begin_capture(self.stream, mode) }
            .map_err(|error| self.failed("cuStreamBeginCapture", error))?;
        self.is_capturing = true;
        Ok(true)
    }

    fn end_capture(&mut self) -> Result<GraphId, LaunchError> {
        if !std::mem::take(&mut self.is_capturing) {
            return Err(LaunchError::Misuse("not capturing".to_owned()));
        }
        self.begin("end_capture")?;
        // SAFETY: the stream is capturing.
        let graph = unsafe { result::stream::end_capture(self.stream) }
            .map_err(|error| self.failed("cuStreamEndCapture", error))?;
        // SAFETY: the graph was just made; it is not needed once it is instantiated.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable
        };
        let executable = executable.map_err(|error| self.failed("cuGraphInstantiate", error))?;
        self.graphs.push(Some(executable));
        let id = GraphId(self.graphs.len() as u32 - 1);
        // SAFETY: graph and stream are this card's own.
        if let Err(error) = unsafe { result::graph::upload(executable, self.stream) } {
            self.drop_graph(id);
            return Err(self.failed("cuGraphUpload", error));
        }
        Ok(id)
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), LaunchError> {
        self.begin("replay")?;
        let Some(&Some(executable)) = self.graphs.get(graph.0 as usize) else {
            return Err(LaunchError::Misuse(format!("{graph:?} was never captured")));
        };
        self.last_kernel.clear();
        self.last_kernel.push_str(REPLAYED);
        self.has_replayed = true;
        // SAFETY: graph and stream are this card's own.
        unsafe { result::graph::launch(executable, self.stream) }
            .map_err(|error| self.failed("cuGraphLaunch", error))
    }

    fn drop_graph(&mut self, graph: GraphId) {
        let graph = self.graphs.get_mut(graph.0 as usize).and_then(Option::take);
        if let Some(executable) = graph
            && self.bind().is_ok()
        {
            // SAFETY: this card's own, taken out of the list; one that runs is freed when it ends.
            let _ = unsafe { result::graph::exec_destroy(executable) };
        }
    }

    fn begin_profile(&mut self, max_num_launches: usize) -> Result<bool, LaunchError> {
        self.start_profile(max_num_launches)
    }

    fn end_profile(&mut self) -> Result<Vec<LaunchTime>, LaunchError> {
        self.finish_profile()
    }

    fn open_products(&mut self) -> Result<Option<String>, LaunchError> {
        self.open_library()
    }

    fn plan_product(&mut self, shape: &ProductShape) -> Result<Option<PlanId>, LaunchError> {
        self.plan_on_library(shape)
    }

    fn run_product(&mut self, plan: PlanId, product: &DenseProduct) -> Result<bool, LaunchError> {
        let operation = || Operation::of_product(&product.shape);
        self.timed(operation, |card| card.run_on_library(plan, product))
    }
}

fn staging(staging: &mut Option<Staging>) -> Result<&mut Staging, LaunchError> {
    staging
        .as_mut()
        .ok_or_else(|| LaunchError::Misuse("no staging memory was reserved".to_owned()))
}

impl Drop for Card {
    fn drop(&mut self) {
        self.is_capturing = false;
        self.free_all();
        (self.staging, self.profile) = (None, None);
        // SAFETY: all are this card's own and nothing is queued; null ones were never made. After a
        // fault the driver refuses, and the process ends anyway.
        unsafe {
            for graph in self.graphs.drain(..).flatten() {
                let _ = result::graph::exec_destroy(graph);
            }
            if !self.module.is_null() {
                let _ = result::module::unload(self.module);
            }
            if !self.stream.is_null() {
                let _ = result::stream::destroy(self.stream);
            }
            let _ = result::primary_ctx::release(self.info.device);
        }
    }
}
