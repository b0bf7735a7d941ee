//! The kernels of a module, as the driver knows them.
//!
//! Invariant: all are loaded at once, so that no launch loads one while a graph is captured.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// Shared memory, declared and dynamic, that a launch may use without asking for more.
const DEFAULT_MAX_SHARED_BYTES: u32 = 48 << 10;

/// A kernel of the module.
pub(super) struct Kernel {
    pub(super) function: sys::CUfunction,
    /// Bytes of its one argument.
    pub(super) args_len: usize,
    /// Dynamic shared memory that it may use now.
    pub(super) max_shared_bytes: u32,
}

/// All functions of `module` by name, loaded.
///
/// # Safety
/// The module is live.
pub(super) unsafe fn load_kernels(
    module: sys::CUmodule,
) -> Result<HashMap<String, Kernel>, DriverError> {
    let mut count = 0;
    // SAFETY: the pointer is to a local.
    unsafe { sys::cuModuleGetFunctionCount(&raw mut count, module) }.result()?;
    let mut functions: Vec<sys::CUfunction> = vec![ptr::null_mut(); count as usize];
    // SAFETY: the vector has `count` elements.
    unsafe { sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module) }.result()?;
    let mut kernels = HashMap::new();
    for function in functions {
        let mut name: *const c_char = ptr::null();
        let (mut offset, mut args_len) = (0, 0);
        // SAFETY: pointers to locals; the function is the module's.
        unsafe {
            sys::cuFuncGetName(&raw mut name, function).result()?;
            sys::cuFuncLoad(function).result()?;
            sys::cuFuncGetParamInfo(function, 0, &raw mut offset, &raw mut args_len).result()?;
        }
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        let declared_bytes = unsafe {
            result::function::get_function_attribute(function, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        }?;
        let declared_bytes = u32::try_from(declared_bytes).unwrap_or(0);
        // SAFETY: the driver gave a string that lives as long as the module.
        let name = unsafe { CStr::from_ptr(name) };
        let kernel = Kernel {
            function,
            args_len,
            max_shared_bytes: DEFAULT_MAX_SHARED_BYTES.saturating_sub(declared_bytes),
        };
        kernels.insert(name.to_string_lossy().into_owned(), kernel);
    }
    Ok(kernels)
}
