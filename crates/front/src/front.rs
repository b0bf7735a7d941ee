//! The front itself: jobs in, streams out, and what it says about itself.
//!
//! Invariant: a job is either refused with a reason or its stream is handed out after an engine
//! admitted every choice of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hotspare_journal::{Journal, JournalConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::in_flight::InFlight;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::model::{Model, ModelCell};
use crate::replays::Replays;
use crate::seeds::Seeds;
use crate::shadow::Shadow;
use crate::slot::{EngineSlot, EngineView, Order};
use crate::stream::StreamJob;
use crate::supervisor::{Reload, Supervisor};
use crate::trail::Trails;
use crate::{
    EngineLauncher, EngineState, EngineStatus, FrontConfig, FrontError, GenerateError,
    GenerationJob, GenerationStream, ModelInfo, ModelLoader, NodeStatus, Readiness, ShadowMode,
};

/// What clones of a front share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    pub(crate) models: Arc<ModelCell>,
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) journal: Journal,
    pub(crate) replays: Arc<Replays>,
    pub(crate) trails: Arc<Trails>,
    pub(crate) seeds: Seeds,
    pub(crate) num_request_ids: AtomicU64,
    pub(crate) in_flight: InFlight,
    pub(crate) is_draining: AtomicBool,
    pub(crate) reloads: mpsc::Sender<Reload>,
    /// Models that were made so far.
    pub(crate) num_models: AtomicU64,
    pub(crate) loader: OnceLock<Arc<dyn ModelLoader>>,
}

/// Cheap to clone; see the module.
#[derive(Clone)]
pub struct Front {
    pub(crate) shared: Arc<Shared>,
}

/// The running parts of a front. Dropping it ends the engine without ceremony.
pub struct FrontHandle {
    front: Front,
    supervisor: JoinHandle<Result<(), FrontError>>,
    stats_log: JoinHandle<()>,
    shadow: JoinHandle<()>,
}

impl Front {
    /// Starts the engine and its supervision on the current runtime. Returns at once.
    pub fn start(
        config: FrontConfig,
        model: ModelInfo,
        launcher: Arc<dyn EngineLauncher>,
    ) -> FrontHandle {
        let slot = Arc::new(EngineSlot::new());
        let served = &model.served;
        let journal = Journal::new(JournalConfig {
            max_request_bytes: config.journal_max_request_bytes,
            max_bytes: config.journal_max_bytes,
        });
        let metrics = Metrics::new(
            served.name(),
            served.max_model_len,
            Arc::clone(&slot),
            journal.clone(),
        );
        let models = Arc::new(ModelCell::new(Arc::new(Model::new(
            model,
            0,
            Arc::new(metrics),
        ))));
        let replays = Arc::new(Replays::new(&config));
        let supervisor = Supervisor::new(
            Arc::clone(&slot),
            Arc::clone(&models),
            config.clone(),
            launcher,
            Arc::clone(&replays),
        );
        let (reloads, reload_receiver) = mpsc::channel(1);
        let stats_log = tokio::spawn(crate::stats_log::run(
            Arc::clone(&slot),
            Duration::from_secs(config.stats_log_interval_s),
        ));
        let trails = Arc::new(Trails::new(match config.num_spare_engines {
            0 => ShadowMode::Off,
            _ => config.spare_shadow,
        }));
        let shadow = Shadow::new(&config, Arc::clone(&slot), Arc::clone(&trails));
        let shared = Shared {
            seeds: Seeds::new(config.assigned_seed),
            replays,
            trails,
            journal,
            config,
            models,
            slot,
            reloads,
            num_models: AtomicU64::new(1),
            loader: OnceLock::new(),
            num_request_ids: AtomicU64::new(0),
            in_flight: InFlight::new(),
            is_draining: AtomicBool::new(false),
        };
        FrontHandle {
            front: Self {
                shared: Arc::new(shared),
            },
            supervisor: tokio::spawn(supervisor.run(reload_receiver)),
            stats_log,
            shadow: tokio::spawn(shadow.run()),
        }
    }

    /// Starts a job. Resolves once an engine admitted every choice.
    ///
    /// Dropping the future or the stream cancels the job's sequences within one step.
    ///
    /// # Errors
    /// Nothing of the job runs then.
    pub async fn generate(&self, job: GenerationJob) -> Result<GenerationStream, GenerateError> {
        let result = self.try_generate(job).await;
        if let Err(error) = &result {
            self.model().metrics.on_rejection(match error {
                GenerateError::QueueFull { .. } => "queue_full",
                GenerateError::NotReady { .. } => "not_ready",
                GenerateError::Impossible(_) => "impossible",
                GenerateError::EngineFailed(_) => "engine_failed",
                GenerateError::Convicted(_) => "convicted",
            });
        }
        result
    }

    async fn try_generate(&self, job: GenerationJob) -> Result<GenerationStream, GenerateError> {
        let shared = &self.shared;
        let started_at = Instant::now();
        let readiness = self.readiness();
        let not_ready = |reason: String| GenerateError::NotReady {
            reason,
            retry_after_s: shared.config.not_ready_retry_after_s,
        };
        let model = job.model.clone().unwrap_or_else(|| self.model());
        let find_target = || {
            let target = shared.slot.target_of(model.generation);
            target.filter(|_| self.readiness().ready)
        };
        let Some(target) = find_target() else {
            return Err(not_ready(readiness.reason));
        };
        let n = job.n;
        if shared.config.log_requests {
            log_request(&job);
        }
        let in_flight = shared.in_flight.enter();
        let (starts, record) = self.sequences(job, &model)?;
        self.check_convictions(&record, &starts)?;
        self.wait_turn(&target).await?;
        // It may have waited for long.
        let target = find_target().ok_or_else(|| not_ready(self.readiness().reason))?;
        let job = StreamJob {
            starts,
            record,
            target,
            in_flight,
            started_at,
        };
        let context = self.stream_context(&model);
        let stream = GenerationStream::open(context, job).await?;
        model.metrics.on_job(n);
        Ok(stream)
    }

    /// The model that new requests get.
    pub fn model(&self) -> Arc<Model> {
        self.shared.models.current()
    }

    /// The content hash of a model, once an engine that serves it has said it.
    pub fn model_hash(&self, model: &Model) -> Option<String> {
        let client = self.shared.slot.target_of(model.generation)?;
        Some(client.hello().model_hash.clone())
    }

    /// Whether a request would be served here now.
    pub fn readiness(&self) -> Readiness {
        let state = self.shared.slot.state();
        let reason = match &state {
            _ if self.is_draining() => Some("the server is draining".to_owned()),
            EngineState::Failed { reason } => Some(format!("the engine failed: {reason}")),
            state => state.not_ready_reason().map(str::to_owned),
        };
        Readiness {
            ready: reason.is_none(),
            reason: reason.unwrap_or_default(),
        }
    }

    /// The engine's state as it changes.
    pub fn engine_states(&self) -> watch::Receiver<EngineState> {
        self.shared.slot.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.shared.config.node
    }

    /// The body of `/ha/status`.
    pub fn status(&self) -> NodeStatus {
        let shared = &self.shared;
        let state = shared.slot.state();
        let readiness = self.readiness();
        let role = match &state {
            _ if self.is_draining() => "draining",
            EngineState::Starting | EngineState::Loading { .. } => "starting",
            EngineState::Draining | EngineState::Stopped => "draining",
            EngineState::Failed { .. } => "failed",
            EngineState::Ready | EngineState::Backoff { .. } => "primary-solo",
        };
        let mut reasons = Vec::new();
        let is_ready = readiness.ready;
        if !readiness.ready {
            reasons.push(readiness.reason);
        }
        if let EngineState::Backoff { reason, .. } = &state {
            reasons.push(reason.clone());
        }
        let engines = shared.slot.engines();
        // A spare that cannot be had is worth knowing of while all is well.
        let num_spares = shared.slot.stats().num_ready_spares;
        let is_short = num_spares < shared.config.num_spare_engines.into();
        if let (true, Some(reason)) = (is_ready && is_short, shared.slot.last_failure()) {
            reasons.push(format!(
                "{num_spares} of {} spare engines are ready; the last failure: {reason}",
                shared.config.num_spare_engines
            ));
        }
        NodeStatus {
            node: shared.config.node.clone(),
            role,
            epoch: 0,
            mode: "available",
            engines: engines
                .into_iter()
                .map(|engine| self.engine_status(engine))
                .collect(),
            gpus: Vec::new(),
            degraded: false,
            reasons,
        }
    }

    fn engine_status(&self, engine: EngineView) -> EngineStatus {
        let num_restarts = self.shared.slot.stats().num_restarts;
        let unread_tokens = self.num_unread_tokens(&engine);
        let served = engine
            .served
            .unwrap_or_else(|| Arc::clone(&self.model().served));
        let hello = engine.hello;
        let (model_hash, numerics_id, device) = hello.map_or_else(Default::default, |hello| {
            (hello.model_hash, hello.numerics_id, hello.device)
        });
        EngineStatus {
            pid: engine.pid,
            model: served.name().to_owned(),
            model_hash,
            numerics_id,
            device,
            state: engine.state.name(),
            steps: engine.num_steps,
            running: engine.stats.num_running,
            waiting: engine.stats.num_waiting,
            unread_tokens,
            restarts: match engine.name.as_str() {
                "main" => num_restarts,
                _ => 0,
            },
            name: engine.name,
        }
    }

    /// What the engine has to read along yet, where it is the one that does.
    fn num_unread_tokens(&self, engine: &EngineView) -> Option<u64> {
        let Shared { slot, trails, .. } = &*self.shared;
        let reader = (trails.mode() != ShadowMode::Off).then(|| slot.next_main())??;
        let hello = reader.hello();
        let is_reader = engine.hello.as_ref()?.engine_id == hello.engine_id;
        is_reader.then(|| crate::shadow::num_unread(trails, hello) as u64)
    }

    /// All metrics; see [`Front::metrics_content_type`].
    pub fn metrics_text(&self) -> String {
        self.model().metrics.text()
    }

    /// The media type of [`Front::metrics_text`].
    pub fn metrics_content_type(&self) -> &'static str {
        CONTENT_TYPE
    }

    /// Says where models come from, for [`Self::reload`]; once.
    pub fn set_loader(&self, loader: Arc<dyn ModelLoader>) {
        // The first one stays.
        let _ = self.shared.loader.set(loader);
    }

    /// Jobs in flight.
    pub fn server_load(&self) -> u64 {
        self.shared.in_flight.count()
    }

    /// Refuses new jobs from now on; what runs goes on.
    pub fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::SeqCst);
    }

    /// Whether new jobs are refused.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::SeqCst)
    }

    /// Returns once no job is in flight.
    pub async fn wait_idle(&self) {
        self.shared.in_flight.wait_idle().await;
    }
}

impl FrontHandle {
    /// The front.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Returns once no engine could be started at all.
    pub async fn failed(&mut self) -> FrontError {
        match (&mut self.supervisor).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::future::pending().await,
            Err(panic) => FrontError::Supervisor(panic.to_string()),
        }
    }

    /// Ends the engine: jobs that still run end with an error.
    ///
    /// # Errors
    /// The engine failed before it could be ended.
    pub async fn stop(mut self) -> Result<(), FrontError> {
        self.front.drain();
        self.front.shared.slot.give_order(Order::Drain);
        match (&mut self.supervisor).await {
            Ok(result) => result,
            Err(panic) => Err(FrontError::Supervisor(panic.to_string())),
        }
    }
}

impl Drop for FrontHandle {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.stats_log.abort();
        self.shadow.abort();
    }
}

fn log_request(job: &GenerationJob) {
    let num_prompt_tokens: usize = job.prompts.iter().map(Vec::len).sum();
    tracing::info!(
        num_prompts = job.prompts.len(),
        num_prompt_tokens,
        n = job.n,
        max_tokens = job.stop.max_tokens,
        temperature = job.sampling.temperature,
        top_p = job.sampling.top_p,
        seed = job.seed,
        priority = job.priority,
        "request"
    );
}

#[cfg(test)]
#[path = "front_test.rs"]
mod front_test;
