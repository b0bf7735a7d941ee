//! Keeps the engines of a node running: the one that serves, its spares, and the next one while a
//! model is reloaded.
//!
//! Each engine's life is a task of its own. Where engines are missing, one is started at a time: at
//! once where a stable one was lost, else with exponential backoff; at the bound of failures in a
//! row the node says that it failed, and tries on at the longest wait. An engine that cannot
//! start at all, at the first start, ends the server with its message.
//!
//! Invariant: each process belongs to one life and ends with it; when this is dropped, so are all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::life::{Life, LifeEnd, LifeEvent, ordered};
use crate::model::{Model, ModelCell};
use crate::replays::Replays;
use crate::slot::{EngineId, EngineSlot, Order, grow};
use crate::{EngineLauncher, EngineState, FrontConfig, FrontError};

/// Events of lives that wait to be looked at. Each life has a handful in all.
const MAX_NUM_EVENTS: usize = 64;

/// How often it is looked whether streams that were taken over run again.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// A model to take the place of the one that is served.
pub(crate) struct Reload {
    pub(crate) model: Arc<Model>,
    pub(crate) launcher: Arc<dyn EngineLauncher>,
    /// Told when the new model serves, or why it does not.
    pub(crate) done: oneshot::Sender<Result<(), FrontError>>,
}

/// What the lives have told so far. The slot may be ahead of it.
struct Known {
    generation: u64,
    orders: watch::Sender<Order>,
    is_proved: bool,
    has_ended: bool,
}

/// A reload whose first engine is not proved yet.
struct Candidate {
    id: EngineId,
    reload: Reload,
}

/// See the module.
pub(crate) struct Supervisor {
    slot: Arc<EngineSlot>,
    models: Arc<ModelCell>,
    config: Arc<FrontConfig>,
    model: Arc<Model>,
    launcher: Arc<dyn EngineLauncher>,
    lives: JoinSet<()>,
    /// Until their processes are gone.
    engines: BTreeMap<EngineId, Known>,
    candidate: Option<Candidate>,
    num_started: u32,
    has_served: bool,
    num_failures: u32,
    replays: Arc<Replays>,
    /// Requests that had been convicted when an engine failed last.
    num_convictions: u64,
    /// The next start is not before this.
    not_before: Instant,
    last_failure: Instant,
    /// Starts that replace engines that were lost.
    num_to_replace: u64,
    events: mpsc::Receiver<(EngineId, LifeEvent)>,
    /// Given to each life.
    event_sender: mpsc::Sender<(EngineId, LifeEvent)>,
}

impl Supervisor {
    pub(crate) fn new(
        slot: Arc<EngineSlot>,
        models: Arc<ModelCell>,
        config: FrontConfig,
        launcher: Arc<dyn EngineLauncher>,
        replays: Arc<Replays>,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(MAX_NUM_EVENTS);
        Self {
            slot,
            model: models.current(),
            models,
            config: Arc::new(config),
            launcher,
            lives: JoinSet::new(),
            engines: BTreeMap::new(),
            candidate: None,
            num_started: 0,
            has_served: false,
            num_failures: 0,
            replays,
            num_convictions: 0,
            not_before: Instant::now(),
            last_failure: Instant::now(),
            num_to_replace: 0,
            events,
            event_sender,
        }
    }

    /// Runs until it is ordered to drain, which is `Ok`, or until it gives up.
    pub(crate) async fn run(mut self, reloads: mpsc::Receiver<Reload>) -> Result<(), FrontError> {
        let result = self.keep_running(reloads).await;
        self.slot.set_absent(match &result {
            Ok(()) => EngineState::Stopped,
            Err(error) => EngineState::Failed {
                reason: error.to_string(),
            },
        });
        result
    }

    async fn keep_running(
        &mut self,
        mut reloads: mpsc::Receiver<Reload>,
    ) -> Result<(), FrontError> {
        let mut orders = self.slot.orders();
        loop {
            let start_at = self.next_start();
            if start_at.is_some_and(|at| at <= Instant::now()) {
                match self.is_to_wait() {
                    true => self.not_before = Instant::now() + BUSY_POLL,
                    false => self.start_missing(),
                }
                continue;
            }
            let wait = async {
                match start_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let expired = self.mirrors_expired();
            tokio::select! {
                () = wait => {}
                () = ordered(&mut orders, Order::Drain) => break,
                Some((id, event)) = self.events.recv() => self.on_event(id, event)?,
                Some(reload) = reloads.recv() => self.on_reload(reload),
                () = expired => self.slot.expire_mirrors(self.kv_retention()),
                Some(joined) = self.lives.join_next() => {
                    joined.map_err(|panic| FrontError::Supervisor(panic.to_string()))?;
                }
            }
        }
        self.stop().await;
        Ok(())
    }

    fn kv_retention(&self) -> Duration {
        Duration::from_millis(self.config.kv_mirror_retention_ms)
    }

    /// Returns when the KV blocks of a lost engine have been held for long enough.
    fn mirrors_expired(&self) -> impl Future<Output = ()> + use<> {
        let at = self.slot.mirrors_expire_at(self.kv_retention());
        async move {
            match at {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Ends all engines, and waits for them.
    async fn stop(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            let _ = candidate.reload.done.send(Err(FrontError::Stopping));
        }
        for engine in self.engines.values() {
            grow(&engine.orders, Order::Drain);
        }
        loop {
            tokio::select! {
                joined = self.lives.join_next() => if joined.is_none() { return },
                // Nobody minds how they end, but none may wait for somebody to hear it.
                _ = self.events.recv() => {}
            }
        }
    }

    /// When the next engine is to be started; `None` while none is missing, or one is coming.
    fn next_start(&self) -> Option<Instant> {
        let engines = self.engines.values();
        let of_generation = engines
            .clone()
            .filter(|engine| engine.generation == self.model.generation && !engine.has_ended);
        let num_coming = of_generation.clone().filter(|e| !e.is_proved).count();
        let num_engines = of_generation.count();
        let num_unreaped = engines.filter(|engine| engine.has_ended).count();
        // Spares come one at a time, after the engine that serves.
        let num_wanted = match self.has_served {
            true => 1 + self.config.num_spare_engines as usize,
            false => 1,
        };
        let has_room = num_unreaped <= self.config.max_num_unreaped_engines as usize;
        (num_engines < num_wanted && num_coming == 0 && has_room).then_some(self.not_before)
    }

    fn start_missing(&mut self) {
        if self.num_to_replace > 0 {
            self.num_to_replace -= 1;
            self.slot.count_restart();
        }
        let (model, launcher) = (Arc::clone(&self.model), Arc::clone(&self.launcher));
        self.start(&model, launcher);
    }

    fn start(&mut self, model: &Model, launcher: Arc<dyn EngineLauncher>) -> EngineId {
        let id = EngineId(self.num_started);
        self.num_started += 1;
        let (orders, receiver) = watch::channel(Order::Run);
        let known = Known {
            generation: model.generation,
            orders,
            is_proved: false,
            has_ended: false,
        };
        self.engines.insert(id, known);
        self.slot
            .add(id, model.generation, Arc::clone(&model.served));
        let life = Life {
            id,
            slot: Arc::clone(&self.slot),
            launcher,
            config: Arc::clone(&self.config),
            served: Arc::clone(&model.served),
            model_hash: Arc::clone(&model.model_hash),
            orders: receiver,
            events: self.event_sender.clone(),
            kv_mirror: None,
        };
        self.lives.spawn(life.run());
        id
    }

    fn on_event(&mut self, id: EngineId, event: LifeEvent) -> Result<(), FrontError> {
        match event {
            LifeEvent::Ready => self.on_ready(id),
            LifeEvent::Ended(end) => return self.on_end(id, end),
            LifeEvent::Gone => {
                self.engines.remove(&id);
            }
        }
        Ok(())
    }

    fn on_ready(&mut self, id: EngineId) {
        if let Some(engine) = self.engines.get_mut(&id) {
            engine.is_proved = true;
        }
        match self.candidate.take_if(|candidate| candidate.id == id) {
            Some(candidate) => self.switch_to(candidate.reload),
            None => self.has_served = true,
        }
    }

    fn on_end(&mut self, id: EngineId, end: LifeEnd) -> Result<(), FrontError> {
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        engine.has_ended = true;
        let is_current = engine.generation == self.model.generation;
        let mut was_stable = false;
        let reason = match end {
            LifeEnd::Stopped => return Ok(()),
            LifeEnd::NotStarted(error) => {
                if let Some(candidate) = self.candidate.take_if(|candidate| candidate.id == id) {
                    tracing::error!(%error, "The new model cannot be served; the old one is.");
                    let _ = candidate.reload.done.send(Err(error));
                    return Ok(());
                }
                if !self.has_served {
                    return Err(error);
                }
                error.to_string()
            }
            LifeEnd::Died {
                served,
                reason,
                is_excused: true,
            } if is_current => {
                self.on_excused_failure(&reason, served);
                return Ok(());
            }
            LifeEnd::Died { served, reason, .. } => {
                was_stable = served >= self.config.engine_stable_after();
                if is_current && was_stable {
                    self.num_failures = 0;
                }
                reason
            }
        };
        match is_current {
            true => self.on_failure(&reason, was_stable),
            false => tracing::error!(reason, "A retired engine failed."),
        }
        Ok(())
    }

    /// The next start is not before so much time has passed; where a spare serves by now, there is
    /// no hurry.
    fn start_after(&mut self, wait: Duration) {
        self.last_failure = Instant::now();
        let wait = match self.slot.state() {
            EngineState::Ready => wait.max(self.config.spare_start_delay()),
            _ => wait,
        };
        self.not_before = Instant::now() + wait;
    }

    /// Whether the engine that serves is busy with what it took over, so that another one's start
    /// would only be in its way.
    fn is_to_wait(&self) -> bool {
        let since = Instant::now().saturating_duration_since(self.last_failure);
        self.slot.state() == EngineState::Ready
            && since < self.config.replay_timeout()
            && self.replays.is_busy()
    }

    /// A request ended it, and which one is being found out: no reason to wait, nor to count.
    fn on_excused_failure(&mut self, reason: &str, served: Duration) {
        self.num_to_replace += 1;
        self.start_after(Duration::ZERO);
        tracing::warn!(
            reason,
            served_ms = served.as_millis() as u64,
            "The engine ended over a suspect; it is started again at once."
        );
        self.slot.set_absent(EngineState::Backoff {
            reason: reason.to_owned(),
            restart_in: Duration::ZERO,
        });
    }

    fn on_failure(&mut self, reason: &str, was_stable: bool) {
        self.num_to_replace += 1;
        let num_convictions = self.replays.num_convictions();
        if num_convictions > std::mem::replace(&mut self.num_convictions, num_convictions) {
            // What was counted before was a request's doing.
            self.num_failures = 0;
        }
        self.num_failures = self.num_failures.saturating_add(1);
        let is_at_bound = self.num_failures >= self.config.max_num_engine_failures;
        let restart_in = match is_at_bound {
            true => Duration::from_millis(self.config.engine_restart_backoff_max_ms),
            false if was_stable => Duration::ZERO,
            false => self.config.restart_backoff(self.num_failures),
        };
        self.start_after(restart_in);
        let num_failures = self.num_failures;
        tracing::error!(
            reason,
            num_failures,
            restart_in_ms = restart_in.as_millis() as u64,
            "The engine failed; it will be started again."
        );
        self.slot.set_absent(match is_at_bound {
            true => EngineState::Failed {
                reason: format!(
                    "it failed {num_failures} times in a row, at last because {reason}"
                ),
            },
            false => EngineState::Backoff {
                reason: reason.to_owned(),
                restart_in,
            },
        });
    }

    fn on_reload(&mut self, reload: Reload) {
        if self.candidate.is_some() {
            let _ = reload.done.send(Err(FrontError::ReloadBusy));
            return;
        }
        let (model, launcher) = (Arc::clone(&reload.model), Arc::clone(&reload.launcher));
        tracing::info!(model = model.served.name(), "The next engine is loaded.");
        let id = self.start(&model, launcher);
        self.candidate = Some(Candidate { id, reload });
    }

    /// The new model's engine is proved: it gets what is new, and the others end when what they
    /// have is done.
    fn switch_to(&mut self, reload: Reload) {
        self.model = reload.model;
        self.launcher = reload.launcher;
        self.has_served = true;
        (self.num_failures, self.num_to_replace) = (0, 0);
        self.not_before = Instant::now();
        self.slot.switch_to(self.model.generation);
        self.models.set(Arc::clone(&self.model));
        for engine in self.engines.values() {
            if engine.generation != self.model.generation {
                grow(&engine.orders, Order::Retire);
            }
        }
        tracing::info!(model = self.model.served.name(), "The new model is served.");
        // Whoever asked may have left.
        let _ = reload.done.send(Ok(()));
    }
}

#[cfg(test)]
#[path = "supervisor_test.rs"]
mod supervisor_test;

#[cfg(test)]
#[path = "fleet_test.rs"]
mod fleet_test;
