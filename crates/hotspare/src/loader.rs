//! Where a running server gets models from: the settings that it began with, and a name.
//!
//! Invariant: a model that is loaded so is served as if the server had been started with it.

use std::sync::Arc;

use hotspare_engine::{Backend, EngineOptions};
use hotspare_front::{EngineLauncher, FrontError, ModelInfo, ModelLoader, ProcessLauncher};

use crate::cli::{LogFormat, Settings};
use crate::hub;

/// See the module.
pub(crate) struct Loader {
    /// As the user gave them: a model of the hub has not been fetched here.
    settings: Settings,
}

impl Loader {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    fn try_load(&self, model: Option<&str>) -> Result<(ModelInfo, ProcessLauncher), String> {
        let mut settings = self.settings.clone();
        if let Some(model) = model {
            model.clone_into(&mut settings.model.model);
            model.clone_into(&mut settings.engine.model);
            // Those of the old model mean nothing to another one.
            settings.revision = None;
        }
        if let Some(request) = hub::of_settings(&settings)? {
            let found = request.run(None)?;
            hub::use_found(&mut settings, &found);
        }
        let info = ModelInfo::load(&settings.model).map_err(|e| e.to_string())?;
        let launcher = launcher(&settings, &info)?;
        Ok((info, launcher))
    }
}

impl ModelLoader for Loader {
    fn load(
        &self,
        model: Option<&str>,
    ) -> Result<(ModelInfo, Arc<dyn EngineLauncher>), FrontError> {
        let (info, launcher) = self.try_load(model).map_err(FrontError::Option)?;
        Ok((info, Arc::new(launcher)))
    }
}

/// How this program starts its engine.
pub(crate) fn launcher(settings: &Settings, model: &ModelInfo) -> Result<ProcessLauncher, String> {
    let mut options: EngineOptions = settings.engine.clone();
    options.max_model_len = Some(model.served.max_model_len as usize);
    options.max_frame_bytes = settings.front.max_frame_bytes;
    if let Backend::Scripted(scripted) = &mut options.backend {
        scripted.vocab_size = model.served.vocab_size;
    }
    let options = serde_json::to_string(&options).map_err(|e| e.to_string())?;
    let format = match settings.log_format {
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    };
    let args = [
        "engine",
        "--log-format",
        format,
        "--log-level",
        &settings.log_level,
        "--options",
        &options,
    ];
    ProcessLauncher::this_program(args.into_iter().map(Into::into).collect())
        .map_err(|e| format!("this program cannot be found: {e}"))
}
