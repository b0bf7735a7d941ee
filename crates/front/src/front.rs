//! The front itself: jobs in, streams out, and what it says about itself.
//!
//! Invariant: a job is either refused with a reason or its stream is handed out after an engine
//! admitted every choice of it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hotspare_failover::Role;
use hotspare_journal::{Journal, JournalConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::in_flight::InFlight;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::model::{Model, ModelCell};
use crate::pair_metrics;
use crate::peer_link::PeerLink;
use crate::readers::Readers;
use crate::replays::Replays;
use crate::seeds::Seeds;
use crate::shadow::Shadow;
use crate::slot::{EngineSlot, Order};
use crate::stream::{NotOpened, StreamJob};
use crate::supervisor::{Reload, Supervisor};
use crate::trail::Trails;
use crate::{
    EngineLauncher, EngineState, FrontConfig, FrontError, GenerateError, GenerationJob,
    GenerationStream, ModelInfo, ModelLoader, PairSetup, Pairing, lone, relay, standing,
};

/// What clones of a front share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    pub(crate) models: Arc<ModelCell>,
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) journal: Journal,
    pub(crate) replays: Arc<Replays>,
    pub(crate) trails: Arc<Trails>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) seeds: Seeds,
    pub(crate) num_request_ids: AtomicU64,
    pub(crate) in_flight: InFlight,
    pub(crate) is_draining: AtomicBool,
    pub(crate) reloads: mpsc::Sender<Reload>,
    /// Models that were made so far.
    pub(crate) num_models: AtomicU64,
    pub(crate) loader: OnceLock<Arc<dyn ModelLoader>>,
    pub(crate) pairing: Option<Arc<dyn Pairing>>,
    /// No engine belongs to this front.
    pub(crate) is_lone: bool,
    /// What this node lacked of what the pair serves when it was last measured; see `standing`.
    pub(crate) degraded: Mutex<Option<String>>,
    /// New requests that wait for a role to change.
    pub(crate) num_held: AtomicUsize,
    /// What runs for the peer is to end: set when this front drains.
    pub(crate) closing: watch::Sender<bool>,
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
    /// What keeps the pair and the front in touch.
    pair_tasks: Vec<JoinHandle<()>>,
    shadow: JoinHandle<()>,
}

impl Front {
    /// Starts the engine and its supervision on the current runtime. Returns at once.
    pub fn start(
        config: FrontConfig,
        model: ModelInfo,
        launcher: Arc<dyn EngineLauncher>,
    ) -> FrontHandle {
        Self::start_node(config, model, Some(launcher), None)
    }

    /// The same for a node of a pair.
    pub fn start_paired(
        config: FrontConfig,
        model: ModelInfo,
        launcher: Arc<dyn EngineLauncher>,
        setup: PairSetup,
    ) -> FrontHandle {
        Self::start_node(config, model, Some(launcher), Some(setup))
    }

    /// A front without an engine, which uses those of both nodes of a pair.
    pub fn start_lone(config: FrontConfig, model: ModelInfo, setup: PairSetup) -> FrontHandle {
        Self::start_node(config, model, None, Some(setup))
    }

    fn start_node(
        config: FrontConfig,
        model: ModelInfo,
        launcher: Option<Arc<dyn EngineLauncher>>,
        setup: Option<PairSetup>,
    ) -> FrontHandle {
        let slot = Arc::new(EngineSlot::new());
        let journal = Journal::new(JournalConfig {
            max_request_bytes: config.journal_max_request_bytes,
            max_bytes: config.journal_max_bytes,
        });
        let (name, max_len) = (model.served.name(), model.served.max_model_len);
        let metrics = Metrics::new(name, max_len, Arc::clone(&slot), journal.clone());
        let model = Model::new(model, 0, Arc::new(metrics));
        let models = Arc::new(ModelCell::new(Arc::new(model)));
        let replays = Arc::new(Replays::new(&config));
        let (reloads, reload_receiver) = mpsc::channel(1);
        let is_lone = launcher.is_none();
        let supervisor = match launcher {
            None => tokio::spawn(lone::until_stopped(Arc::clone(&slot))),
            Some(launcher) => {
                let (slot, models) = (Arc::clone(&slot), Arc::clone(&models));
                let (config, replays) = (config.clone(), Arc::clone(&replays));
                let supervisor = Supervisor::new(slot, models, config, launcher, replays);
                tokio::spawn(supervisor.run(reload_receiver))
            }
        };
        let stats_interval = Duration::from_secs(config.stats_log_interval_s);
        let stats_log = tokio::spawn(crate::stats_log::run(Arc::clone(&slot), stats_interval));
        let pairing = setup.as_ref().map(|setup| Arc::clone(&setup.pairing));
        let readers = Arc::new(Readers::new(&config, Arc::clone(&slot), pairing.clone()));
        let trails = Arc::new(Trails::new(readers.mode()));
        let shadow = Shadow::new(&config, &slot, &readers, &trails);
        let shared = Shared {
            seeds: Seeds::new(config.assigned_seed),
            replays,
            trails,
            readers,
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
            pairing,
            is_lone,
            degraded: Mutex::default(),
            num_held: AtomicUsize::new(0),
            closing: watch::Sender::new(false),
        };
        let shared = Arc::new(shared);
        FrontHandle {
            pair_tasks: setup.map_or_else(Vec::new, |setup| pair_tasks(&shared, setup)),
            front: Self { shared },
            supervisor,
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
        let started_at = Instant::now();
        let model = job.model.clone().unwrap_or_else(|| self.model());
        let mut waiting = self.waiting();
        waiting.enter(&model).await?;
        if self.shared.config.log_requests {
            log_request(&job);
        }
        loop {
            let in_flight = self.shared.in_flight.enter();
            let (starts, record) = self.sequences(&job, &model)?;
            self.check_convictions(&record, &starts)?;
            let entry = waiting.enter(&model).await?;
            self.wait_turn(&entry.client).await?;
            // It may have waited for long.
            let entry = waiting.enter(&model).await?;
            if let Some(first) = starts.first() {
                self.audit(&entry, first.request.request_id.0);
            }
            let stream_job = StreamJob {
                starts,
                record,
                entry,
                in_flight,
                started_at,
            };
            let context = self.stream_context(&model);
            match GenerationStream::open(context, stream_job).await {
                Ok(stream) => {
                    model.metrics.on_job(job.n);
                    return Ok(stream);
                }
                Err(NotOpened::Failed(error)) => return Err(error),
                Err(NotOpened::Moved) => waiting.retry().await?,
            }
        }
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

    /// The engine's state as it changes.
    pub fn engine_states(&self) -> watch::Receiver<EngineState> {
        self.shared.slot.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The pair; `None` for a node without a peer.
    pub fn pairing(&self) -> Option<&Arc<dyn Pairing>> {
        self.shared.pairing.as_ref()
    }

    /// This node's role: without a pair it serves by itself as soon as it has an engine.
    pub fn role(&self) -> Role {
        if let Some(pairing) = self.pairing() {
            return pairing.view().role;
        }
        match self.shared.slot.state() {
            _ if self.is_draining() => Role::Draining,
            EngineState::Starting | EngineState::Loading { .. } => Role::Starting,
            EngineState::Draining | EngineState::Stopped => Role::Draining,
            EngineState::Failed { .. } => Role::Failed,
            EngineState::Ready | EngineState::Backoff { .. } => Role::PrimarySolo,
        }
    }

    /// The epoch that answers carry: in which this node serves, or the highest that it knows to
    /// have served; 0 without a pair.
    pub fn epoch(&self) -> u64 {
        let pairing = self.pairing();
        pairing.map_or(0, |pairing| pairing.view().epoch.number())
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.shared.config.node
    }

    /// All metrics; see [`Front::metrics_content_type`].
    pub fn metrics_text(&self) -> String {
        let mut text = self.model().metrics.samples();
        pair_metrics::append(self, &mut text);
        text
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
        self.shared.closing.send_replace(true);
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
        for task in &self.pair_tasks {
            task.abort();
        }
        self.shadow.abort();
    }
}

/// What runs beside a front of a pair.
fn pair_tasks(shared: &Arc<Shared>, setup: PairSetup) -> Vec<JoinHandle<()>> {
    if shared.is_lone {
        return lone::tasks(shared, &setup);
    }
    let link = PeerLink::new(Arc::clone(shared), Arc::clone(&setup.pairing), 0);
    let relays = relay::serve(Arc::clone(shared), Arc::clone(&setup.pairing));
    vec![
        tokio::spawn(link.run()),
        tokio::spawn(relays),
        tokio::spawn(standing::report(Arc::clone(shared), setup)),
    ]
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
