//! A model on a device, ready for the engine.
//!
//! Invariant: everything that a step needs is allocated when loading ends.

use hotspare_model::{
    LoadOptions, LoadProgress, ModelError, ModelFiles, ModelRunner, PipelinedRunner,
};

use crate::ops::CudaOps;
use crate::{CudaOptions, Device};

/// Loads models onto devices.
#[derive(Debug)]
pub struct CudaBackend<D>(std::marker::PhantomData<D>);

impl<D: Device> CudaBackend<D> {
    /// Loads the model of `files` onto `device`. The result is the engine's executor; its
    /// `into_runner` is for the plain loop.
    ///
    /// # Errors
    /// A damaged or unsupported model, impossible options, not enough memory, or a failure of the
    /// device.
    pub fn load(
        device: D,
        options: CudaOptions,
        files: &ModelFiles,
        load_options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<PipelinedRunner<CudaOps<D>>, ModelError> {
        let ops = CudaOps::new(device, options)?;
        let runner = ModelRunner::load(ops, files, load_options, progress)?;
        Ok(PipelinedRunner::new(runner))
    }
}
