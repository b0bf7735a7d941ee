//! cuBLASLt, where the loader finds it at run time: large dense products under `--numerics fast`.
//!
//! cudarc panics where a library or a function is missing, so the library is looked for first and
//! must be of CUDA 13, whose functions are known. What it knows of a shape (descriptors, the way it
//! chose) is made at start-up; a product sets its number of rows and is queued.
//!
//! Invariant: sums are in f32 and nothing is rounded between parts of a sum; nothing is allocated
//! after start-up.

use std::ffi::c_void;
use std::panic::catch_unwind;
use std::ptr;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use crate::dense::{ColumnMajor, DenseProduct, Gemm, ProductShape};
use crate::{Address, Dtype};

/// The library's major version: functions and structs are those of its headers.
const MAJOR_VERSION: usize = 13;

/// `cublasOperation_t` of a matrix that is taken transposed; cudarc has the enum with cuBLAS alone.
const CUBLAS_OP_T: i32 = 1;

/// Addresses and rows start at multiples of so many bytes.
const ALIGNMENT: u32 = 16;

/// Bytes that the library may work in: what it recommends for Hopper, and less for cards where
/// memory is dear.
pub(super) fn workspace_bytes(compute_major: u32) -> usize {
    match compute_major {
        9 | 10 => 32 << 20,
        _ => 8 << 20,
    }
}

/// The version of the library that the loader finds, as "13.0.2".
///
/// # Errors
/// There is none, or one of another major version.
pub(super) fn find() -> Result<String, String> {
    // SAFETY: opening the library runs its constructors, which are made for it.
    let is_present = catch_unwind(|| unsafe { sys::is_culib_present() });
    if !is_present.unwrap_or(false) {
        return Err("libcublasLt.so.13 was not found".to_owned());
    }
    // SAFETY: the library is there, and every version has the function.
    let version = catch_unwind(|| unsafe { sys::cublasLtGetVersion() });
    let version = version.map_err(|_| "libcublasLt has no cublasLtGetVersion".to_owned())?;
    let [major, minor, patch] = [version / 10_000, version / 100 % 100, version % 100];
    let name = format!("{major}.{minor}.{patch}");
    match major {
        MAJOR_VERSION => Ok(name),
        _ => Err(format!(
            "cuBLASLt {name} was found; this needs one of CUDA 13"
        )),
    }
}

/// An opaque thing of the library's, and how it is given back.
struct Owned<T: Copy>(T, unsafe fn(T) -> Result<(), CublasError>);

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the function's counterpart, and given back once.
        let _ = unsafe { self.1(self.0) };
    }
}

type Layout = Owned<sys::cublasLtMatrixLayout_t>;

/// How products of a shape are computed.
struct Plan {
    shape: ProductShape,
    desc: Owned<sys::cublasLtMatmulDesc_t>,
    a: Layout,
    b: Layout,
    d: Layout,
    algo: sys::cublasLtMatmulAlgo_t,
    /// Rows that `b` and `d` say now, and whether `algo` takes them.
    rows: (usize, bool),
}

/// The library, set up on the current context.
pub(super) struct CublasLt {
    plans: Vec<Plan>,
    handle: Owned<sys::cublasLtHandle_t>,
    workspace: Address,
    workspace_bytes: usize,
}

impl CublasLt {
    /// Sets up the library, which [`find`] has found, on the current context.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn new(workspace: Address, workspace_bytes: usize) -> Result<Self, CublasError> {
        Ok(Self {
            plans: Vec::new(),
            handle: Owned(result::create_handle()?, result::destroy_handle),
            workspace,
            workspace_bytes,
        })
    }

    /// Asks how it would compute `shape`; returns the plan's number, or `None` where it has no way.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn plan(&mut self, shape: &ProductShape) -> Result<Option<u32>, CublasError> {
        let Gemm { a, b, d } = shape.gemm(shape.max_rows);
        let desc = Owned(
            result::create_matmul_desc(
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cudaDataType_t::CUDA_R_32F,
            )?,
            result::destroy_matmul_desc,
        );
        let transposed = CUBLAS_OP_T;
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // SAFETY: the attribute is a 32-bit number.
        unsafe {
            let value = (&raw const transposed).cast();
            result::set_matmul_desc_attribute(desc.0, attribute, value, size_of::<i32>())?;
        }
        let preference = preference(self.workspace_bytes)?;
        let [a, b, d] = [layout(&a)?, layout(&b)?, layout(&d)?];
        // SAFETY: all of them were just made and are live.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle.0,
                desc.0,
                a.0,
                b.0,
                d.0,
                d.0,
                preference.0,
            )
        };
        let algo = match found {
            Ok(found) => found.algo,
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.plans.push(Plan {
            shape: *shape,
            desc,
            a,
            b,
            d,
            algo,
            rows: (shape.max_rows, true),
        });
        Ok(Some(self.plans.len() as u32 - 1))
    }

    /// Whether `plan` is of `product`'s shape.
    pub(super) fn has(&self, plan: u32, product: &DenseProduct) -> bool {
        let plan = self.plans.get(plan as usize);
        plan.is_some_and(|plan| plan.shape == product.shape)
            && product.num_rows <= product.shape.max_rows
    }

    /// Queues a product on `stream`; `false`, with nothing queued, where its plan does not take so
    /// many rows.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn run(
        &mut self,
        plan: u32,
        product: &DenseProduct,
        stream: CUstream,
    ) -> Result<bool, CublasError> {
        let (handle, limit) = (self.handle.0, self.workspace_bytes);
        let plan = &mut self.plans[plan as usize];
        if plan.rows.0 != product.num_rows {
            plan.rows = (
                product.num_rows,
                plan.takes(handle, product.num_rows, limit)?,
            );
        }
        if !plan.rows.1 {
            return Ok(false);
        }
        let (one, zero) = (1f32, 0f32);
        let out = product.out.0 as *mut c_void;
        // SAFETY: descriptors, algorithm and workspace are this struct's own; the addresses are the
        // caller's to keep in range, of the shape's strides; alpha and beta are read now.
        unsafe {
            result::matmul(
                handle,
                plan.desc.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                product.weight.0 as *const c_void,
                plan.a.0,
                product.x.0 as *const c_void,
                plan.b.0,
                out,
                plan.d.0,
                out,
                plan.d.0,
                &raw const plan.algo,
                self.workspace.0 as *mut c_void,
                self.workspace_bytes,
                stream.cast(),
            )?;
        }
        Ok(true)
    }
}

impl Plan {
    /// Puts `num_rows` into the layouts; whether the algorithm takes them in `limit` bytes.
    fn takes(
        &self,
        handle: sys::cublasLtHandle_t,
        num_rows: usize,
        limit: usize,
    ) -> Result<bool, CublasError> {
        let columns = num_rows as u64;
        let attribute = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
        for layout in [&self.b, &self.d] {
            // SAFETY: the attribute is a 64-bit number.
            unsafe {
                let value = (&raw const columns).cast();
                result::set_matrix_layout_attribute(layout.0, attribute, value, size_of::<u64>())?;
            }
        }
        // SAFETY: a struct of numbers, which the library fills.
        let mut checked: sys::cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let (desc, a, b, d) = (self.desc.0, self.a.0, self.b.0, self.d.0);
        // SAFETY: all of them are live.
        let status = unsafe {
            let algo = &raw const self.algo;
            sys::cublasLtMatmulAlgoCheck(handle, desc, a, b, d, d, algo, &raw mut checked)
        };
        Ok(status.result().is_ok() && checked.workspaceSize <= limit)
    }
}

fn layout(matrix: &ColumnMajor) -> Result<Layout, CublasError> {
    let dtype = match matrix.dtype {
        Dtype::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Dtype::F16 => sys::cudaDataType_t::CUDA_R_16F,
        Dtype::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let [rows, columns] = [matrix.num_rows as u64, matrix.num_columns as u64];
    let layout = result::create_matrix_layout(dtype, rows, columns, matrix.leading as i64)?;
    Ok(Owned(layout, result::destroy_matrix_layout))
}

/// What a way must keep to: the workspace, the alignment of all addresses, and sums of parts of K
/// in f32 alone.
fn preference(
    workspace_bytes: usize,
) -> Result<Owned<sys::cublasLtMatmulPreference_t>, CublasError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    use sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

    let preference = Owned(result::create_matmul_pref()?, result::destroy_matmul_pref);
    let set = |attribute, value: *const c_void, len| {
        // SAFETY: `value` points to a number of `len` bytes, as the attribute is.
        unsafe { result::set_matmul_pref_attribute(preference.0, attribute, value, len) }
    };
    let bytes = workspace_bytes as u64;
    let attribute = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    set(attribute, (&raw const bytes).cast(), size_of::<u64>())?;
    let scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    for (attribute, value) in [
        (
            Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            scheme,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            ALIGNMENT,
        ),
        (
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ALIGNMENT,
        ),
    ] {
        set(attribute, ptr::from_ref(&value).cast(), size_of::<u32>())?;
    }
    Ok(preference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_said_and_panics_nowhere() {
        match find() {
            Ok(version) => {
                assert!(version.starts_with("13."), "{version}");
                // Descriptors need no card; without one there is no handle.
                let matrix = ColumnMajor {
                    dtype: Dtype::Bf16,
                    num_rows: 64,
                    num_columns: 128,
                    leading: 64,
                };
                assert!(layout(&matrix).is_ok());
                assert!(preference(1 << 20).is_ok());
            }
            Err(reason) => assert!(reason.contains("ublasLt"), "{reason}"),
        }
    }
}
