//! A library for dense products as the emulator has one: sums in f32 over column-major matrices,
//! as the real one is asked, and faults on request.
//!
//! Invariant: what would be an error with the real one (a product while capturing, more rows than
//! were planned for, an address that is not aligned) is one here.

use crate::dense::{DenseProduct, PlanId, ProductShape};
use crate::emulator::Emulator;
use crate::launch::{LaunchError, Launcher};

/// Where an emulated library fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulatedFault {
    /// It cannot be set up.
    Open,
    /// It cannot say how it would compute a shape.
    Plan,
    /// It knows no way for any shape.
    NoPlan,
    /// It does not take the rows that it was planned for.
    Refuse,
    /// A product fails.
    Run,
    /// A product finds no memory for the library's own kernels.
    Memory,
}

/// The library of an emulator.
#[derive(Debug, Default)]
pub struct EmulatedLibrary {
    /// Whether there is one.
    pub is_present: bool,
    /// What goes wrong.
    pub fault: Option<EmulatedFault>,
    /// What was planned, in order.
    pub plans: Vec<ProductShape>,
    /// What was computed, in order.
    pub products: Vec<DenseProduct>,
}

/// Addresses that plans are made for start at multiples of so many bytes.
const ALIGNMENT: u64 = 16;

impl Emulator {
    pub(crate) fn open_library(&mut self) -> Result<Option<String>, LaunchError> {
        match self.library.fault {
            _ if !self.library.is_present => Ok(None),
            Some(EmulatedFault::Open) => Err(misuse("the library is of another version")),
            _ => Ok(Some("reference".to_owned())),
        }
    }

    pub(crate) fn plan_on_library(
        &mut self,
        shape: &ProductShape,
    ) -> Result<Option<PlanId>, LaunchError> {
        match self.library.fault {
            Some(EmulatedFault::Plan) => return Err(misuse("no heuristic")),
            Some(EmulatedFault::NoPlan) => return Ok(None),
            _ => {}
        }
        self.library.plans.push(*shape);
        Ok(Some(PlanId(self.library.plans.len() as u32 - 1)))
    }

    pub(crate) fn run_on_library(
        &mut self,
        plan: PlanId,
        product: &DenseProduct,
    ) -> Result<bool, LaunchError> {
        let planned = self.library.plans.get(plan.0 as usize);
        let planned = planned.ok_or_else(|| misuse("a plan that is not there"))?;
        if *planned != product.shape || product.num_rows > planned.max_rows {
            return Err(misuse("a product of another shape than its plan"));
        }
        let addresses = [product.x, product.weight, product.out];
        if addresses.iter().any(|at| !at.0.is_multiple_of(ALIGNMENT)) {
            return Err(misuse("an address that is not aligned"));
        }
        match self.library.fault {
            Some(EmulatedFault::Refuse) => return Ok(false),
            Some(EmulatedFault::Memory) => {
                return Err(LaunchError::OutOfMemory {
                    needed_bytes: 0,
                    reason: "no room for a kernel".to_owned(),
                });
            }
            Some(EmulatedFault::Run) => {
                return Err(LaunchError::Kernel {
                    kernel: "reference".to_owned(),
                    reason: "execution failed".to_owned(),
                });
            }
            _ => {}
        }
        let gemm = product.shape.gemm(product.num_rows);
        let mut load = |at, span: usize| {
            let mut bytes = vec![0; span * product.shape.dtype.size()];
            self.read(at, &mut bytes)?;
            Ok::<_, LaunchError>(product.shape.dtype.decode(&bytes))
        };
        let a = load(product.weight, gemm.a.span())?;
        let b = load(product.x, gemm.b.span())?;
        let mut d = vec![f32::NAN; gemm.d.span()];
        gemm.run(&a, &b, &mut d);
        let size = gemm.d.dtype.size();
        for (column, values) in d.chunks(gemm.d.leading).enumerate() {
            let bytes = gemm.d.dtype.encode(&values[..gemm.d.num_rows]);
            let to = product.out.offset(column * gemm.d.leading * size);
            self.write(to, &bytes)?;
        }
        self.library.products.push(*product);
        Ok(true)
    }
}

fn misuse(what: &str) -> LaunchError {
    LaunchError::Misuse(what.to_owned())
}
