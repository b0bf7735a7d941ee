//! Where a running server gets models from: its options, read once more, and a name.
//!
//! Of the configuration file what concerns model and engine may have changed: the next engine has
//! it. What the front and the log are stays as it was at the start.
//!
//! Invariant: a model that is loaded so is served as if the server had been started with it.

use std::sync::Arc;

use hotspare_engine::{Backend, EngineOptions};
use hotspare_front::{EngineLauncher, FrontError, ModelInfo, ModelLoader, ProcessLauncher};

use crate::cli::{self, Environment, LogFormat, Settings};
use crate::hub;
use crate::pairing::config_hash;

/// See the module.
pub(crate) struct Loader {
    /// As the user gave them: a model of the hub has not been fetched here.
    settings: Settings,
}

impl Loader {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The settings, with those of model and engine as the configuration file has them now.
    fn reread(&self) -> Result<Settings, String> {
        // They were text when the server began.
        let args: Vec<String> = std::env::args().collect();
        match cli::parse(&args, &Environment::new(std::env::vars_os())) {
            Ok(cli::Command::Serve(now)) => Ok(Settings {
                model: now.model,
                engine: now.engine,
                revision: now.revision,
                ..self.settings.clone()
            }),
            Ok(_) => Ok(self.settings.clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn try_load(&self, model: Option<&str>) -> Result<(ModelInfo, ProcessLauncher), String> {
        let mut settings = self.reread()?;
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
        let mut info = ModelInfo::load(&settings.model).map_err(|e| e.to_string())?;
        info.config_hash = config_hash(&settings, &info);
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
    let launcher = ProcessLauncher::this_program(args.into_iter().map(Into::into).collect())
        .map_err(|e| format!("this program cannot be found: {e}"))?;
    Ok(match settings.front.has_kv_mirror {
        true => launcher.with_kv_mirror(),
        false => launcher,
    })
}
