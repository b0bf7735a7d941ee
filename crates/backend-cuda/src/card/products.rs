//! Large dense products of a card: its cuBLASLt.
//!
//! Invariant: what the library says before a step is no fault of the card; in a step it is.

use cudarc::cublaslt::sys::cublasStatus_t;

use super::Card;
use super::cublaslt::{self, CublasLt};
use crate::{DenseProduct, LaunchError, Launcher as _, PlanId, ProductShape};

impl Card {
    pub(super) fn open_library(&mut self) -> Result<Option<String>, LaunchError> {
        self.begin("open_products")?;
        let version = cublaslt::find().map_err(LaunchError::Misuse)?;
        let num_bytes = cublaslt::workspace_bytes(self.info().capability.major);
        let workspace = self.alloc(num_bytes)?;
        let library = CublasLt::new(workspace, num_bytes)
            .map_err(|error| LaunchError::Misuse(format!("cublasLtCreate: {error}")))?;
        self.library = Some(library);
        Ok(Some(format!("cublaslt{version}")))
    }

    pub(super) fn plan_on_library(
        &mut self,
        shape: &ProductShape,
    ) -> Result<Option<PlanId>, LaunchError> {
        self.begin("plan_product")?;
        let plan = opened(&mut self.library)?.plan(shape);
        let plan = plan.map_err(|error| {
            LaunchError::Misuse(format!("cublasLtMatmulAlgoGetHeuristic: {error}"))
        })?;
        Ok(plan.map(PlanId))
    }

    pub(super) fn run_on_library(
        &mut self,
        plan: PlanId,
        product: &DenseProduct,
    ) -> Result<bool, LaunchError> {
        self.begin("run_product")?;
        let stream = self.stream;
        let library = opened(&mut self.library)?;
        if !library.has(plan.0, product) {
            let what = format!("{plan:?} is none for {:?}", product.shape);
            return Err(LaunchError::Misuse(what));
        }
        self.last_kernel.clear();
        self.last_kernel.push_str("cublasLtMatmul");
        match library.run(plan.0, product, stream) {
            Ok(is_queued) => Ok(is_queued),
            Err(error) => {
                // Where the context is lost, the driver says it.
                self.synchronize()?;
                if error.0 == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
                    return Err(LaunchError::OutOfMemory {
                        needed_bytes: 0,
                        reason: format!("cublasLtMatmul: {error}"),
                    });
                }
                Err(LaunchError::Kernel {
                    kernel: self.last_kernel.clone(),
                    reason: error.to_string(),
                })
            }
        }
    }
}

fn opened(library: &mut Option<CublasLt>) -> Result<&mut CublasLt, LaunchError> {
    library
        .as_mut()
        .ok_or_else(|| LaunchError::Misuse("no library was opened".to_owned()))
}
