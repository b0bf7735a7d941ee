//! The front itself: jobs in, streams out, and what it says about itself.
//!
//! Invariant: a job is either refused with a reason or its stream is handed out after an engine
//! admitted every choice of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hotspare_batch::{Generate, RequestId, SamplingParams, TokenId};
use hotspare_journal::{ChoiceStart, JobParams, Journal, JournalConfig, RequestRecord};
use hotspare_text::{Detokenizer, StopBuffer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::choice::{Choice, ChoiceText};
use crate::in_flight::InFlight;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::model::{Model, ModelCell};
use crate::replays::Replays;
use crate::seeds::Seeds;
use crate::slot::{EngineSlot, EngineView, Order};
use crate::stream::{Start, StreamJob};
use crate::supervisor::{Reload, Supervisor};
use crate::{
    EngineLauncher, EngineState, EngineStatus, FrontConfig, FrontError, GenerateError,
    GenerationJob, GenerationStream, ModelInfo, ModelLoader, NodeStatus, Readiness, ServedModel,
};

/// What clones of a front share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    models: Arc<ModelCell>,
    pub(crate) slot: Arc<EngineSlot>,
    pub(crate) journal: Journal,
    pub(crate) replays: Arc<Replays>,
    seeds: Seeds,
    num_request_ids: AtomicU64,
    in_flight: InFlight,
    is_draining: AtomicBool,
    reloads: mpsc::Sender<Reload>,
    /// Models that were made so far.
    num_models: AtomicU64,
    loader: OnceLock<Arc<dyn ModelLoader>>,
}

/// The stop strings of a job, built once: its choices share the memory.
struct Stops {
    strings: Arc<[String]>,
    /// Fresh; each choice has a clone.
    buffer: StopBuffer,
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
        let supervisor = Supervisor::new(
            Arc::clone(&slot),
            Arc::clone(&models),
            config.clone(),
            launcher,
        );
        let (reloads, reload_receiver) = mpsc::channel(1);
        let stats_log = tokio::spawn(crate::stats_log::run(
            Arc::clone(&slot),
            Duration::from_secs(config.stats_log_interval_s),
        ));
        let shared = Shared {
            seeds: Seeds::new(config.assigned_seed),
            replays: Arc::new(Replays::new(&config)),
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
        self.check_convictions(&record, starts.len())?;
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

    /// The sequences of a job: `n` for each prompt.
    fn sequences(
        &self,
        job: GenerationJob,
        model: &Model,
    ) -> Result<(Vec<Start>, RequestRecord), GenerateError> {
        let max_num = self.shared.config.max_num_sequences_per_job;
        let num_sequences = job.prompts.len().saturating_mul(job.n as usize);
        if num_sequences == 0 {
            let message = "a request needs at least one prompt and one choice";
            return Err(GenerateError::Impossible(message.to_owned()));
        }
        if num_sequences > max_num {
            return Err(GenerateError::Impossible(format!(
                "the request asks for {num_sequences} sequences (prompts times n), more than the \
                 {max_num} that this server takes in one request"
            )));
        }
        let stops = Stops {
            strings: job.stop_strings.clone().into(),
            buffer: StopBuffer::new(&job.stop_strings, job.include_stop_str_in_output),
        };
        let block_hash_keys = job.cache_salt.as_deref().map_or(Vec::new(), salt_keys);
        let seed = job.seed.unwrap_or_else(|| self.shared.seeds.next());
        let mut starts = Vec::with_capacity(num_sequences);
        let mut choices = Vec::with_capacity(num_sequences);
        for prompt in &job.prompts {
            let max_tokens = max_tokens(&model.served, prompt, job.stop.max_tokens)?;
            let shared_prompt: Arc<[TokenId]> = prompt.as_slice().into();
            for i in 0..job.n {
                let index = starts.len() as u32;
                let mut sampling = job.sampling.clone();
                sampling.seed = seed;
                // With a seed of the client's, a prompt gives the same text in any list of
                // prompts; with one of ours, equal prompts of a list differ.
                sampling.choice = if job.seed.is_some() { i } else { index };
                let mut stop = job.stop.clone();
                stop.max_tokens = max_tokens;
                let request_id = self.shared.num_request_ids.fetch_add(1, Ordering::Relaxed);
                choices.push(ChoiceStart {
                    request_id: RequestId(request_id),
                    prompt: Arc::clone(&shared_prompt),
                    choice: sampling.choice,
                    max_tokens,
                });
                starts.push(Start {
                    choice: choice(model, index, prompt, &job, &stops),
                    request: Generate {
                        request_id: RequestId(request_id),
                        attempt: 0,
                        ids: prompt.clone(),
                        num_delivered: 0,
                        sampling,
                        stop,
                        priority: job.priority,
                        deadline_ms: job.deadline_ms,
                        block_hash_keys: block_hash_keys.clone(),
                        prefill_only: max_tokens == 0,
                    },
                });
            }
        }
        let params = JobParams {
            sampling: SamplingParams {
                seed,
                ..job.sampling
            },
            stop: job.stop,
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            block_hash_keys,
        };
        Ok((starts, self.shared.journal.begin(params, choices)))
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
            restarts: match engine.name.as_str() {
                "main" => num_restarts,
                _ => 0,
            },
            name: engine.name,
        }
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

    /// Serves another model, or the same one loaded afresh where `model` is `None`. Returns its
    /// name once it serves; requests that began on the old one finish there.
    ///
    /// # Errors
    /// Nothing has changed then: the old model is served.
    pub async fn reload(&self, model: Option<String>) -> Result<String, FrontError> {
        let shared = &self.shared;
        let Some(loader) = shared.loader.get().cloned() else {
            return Err(FrontError::Option("this server has one model".to_owned()));
        };
        if self.is_draining() {
            return Err(FrontError::Stopping);
        }
        let loaded = tokio::task::spawn_blocking(move || loader.load(model.as_deref())).await;
        let (info, launcher) =
            loaded.map_err(|panic| FrontError::Supervisor(panic.to_string()))??;
        let served = &info.served;
        let name = served.name().to_owned();
        let current = self.model();
        let is_like =
            current.served.name() == name && current.served.max_model_len == served.max_model_len;
        let metrics = match is_like {
            true => Arc::clone(&current.metrics),
            false => Arc::new(Metrics::new(
                &name,
                served.max_model_len,
                Arc::clone(&shared.slot),
                shared.journal.clone(),
            )),
        };
        let generation = shared.num_models.fetch_add(1, Ordering::Relaxed);
        let (done, is_done) = oneshot::channel();
        let reload = Reload {
            model: Arc::new(Model::new(info, generation, metrics)),
            launcher,
            done,
        };
        let sent = shared.reloads.send(reload).await;
        sent.map_err(|_| FrontError::Stopping)?;
        is_done.await.unwrap_or(Err(FrontError::Stopping))?;
        Ok(name)
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
    }
}

/// What is left of the context after `prompt`, up to `wanted`.
fn max_tokens(served: &ServedModel, prompt: &[TokenId], wanted: u32) -> Result<u32, GenerateError> {
    let ServedModel {
        max_model_len,
        vocab_size,
        ..
    } = *served;
    let num_left = u32::try_from(prompt.len())
        .ok()
        .filter(|len| *len > 0)
        .and_then(|len| max_model_len.checked_sub(len));
    let Some(num_left) = num_left.filter(|left| *left > 0 || wanted == 0) else {
        return Err(GenerateError::Impossible(format!(
            "a prompt of {} tokens does not fit a context of {max_model_len}",
            prompt.len()
        )));
    };
    if let Some(id) = prompt.iter().find(|id| **id >= vocab_size) {
        return Err(GenerateError::Impossible(format!(
            "token id {id} is not in the vocabulary of {vocab_size}"
        )));
    }
    Ok(wanted.min(num_left))
}

fn choice(
    model: &Model,
    index: u32,
    prompt: &[TokenId],
    job: &GenerationJob,
    stops: &Stops,
) -> Choice {
    let text = model.text.as_ref().filter(|_| job.detokenize);
    let text = text.map(|text| ChoiceText {
        detokenizer: Detokenizer::new(text, prompt, job.skip_special_tokens),
        stop_buffer: stops.buffer.clone(),
        stop_strings: Arc::clone(&stops.strings),
    });
    let include_stop = job.include_stop_str_in_output;
    Choice::new(index, text, include_stop, job.stop.min_tokens)
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

/// Two keys from a salt, so that requests of different salts never share a block.
fn salt_keys(salt: &str) -> Vec<u64> {
    let hash = blake3::derive_key("hotspare prefix cache salt v1", salt.as_bytes());
    let (first, rest) = hash.split_first_chunk().expect("the hash has 32 bytes");
    let (second, _) = rest.split_first_chunk().expect("the hash has 32 bytes");
    vec![u64::from_le_bytes(*first), u64::from_le_bytes(*second)]
}

#[cfg(test)]
#[path = "front_test.rs"]
mod front_test;
