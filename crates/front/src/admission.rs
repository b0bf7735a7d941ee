//! Where a new request may begin: here, on the peer, later, or not at all.
//!
//! The pair's machine says which; this translates it into a target. A request that may begin
//! neither here nor there, but perhaps soon, is held without a byte sent, bounded in time and
//! number.
//!
//! Invariant: asked again for every request right before it is submitted. A node that does not
//! serve begins nothing by itself: it asks the peer's front, which admits by its own rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hotspare_failover::Admission;
use tokio::time::{sleep, timeout_at};

use crate::client::{Asked, EngineClient};
use crate::target::Target;
use crate::{EngineState, Front, GenerateError, Model, Pairing, Readiness, lone};

/// How often a held request looks again where nothing wakes it: admission ends by the clock, too.
const HOLD_POLL: Duration = Duration::from_millis(50);

/// Where a request begins.
pub(crate) struct Entry {
    /// The engine.
    pub(crate) client: Arc<EngineClient>,
    /// It, or it with a question for the peer's front.
    pub(crate) target: Arc<dyn Target>,
    /// In which this node admits; `None` without a pair, and where the peer admits.
    epoch: Option<u64>,
}

impl Entry {
    fn of(client: Arc<EngineClient>, epoch: Option<u64>) -> Self {
        Self {
            target: Arc::clone(&client) as _,
            client,
            epoch,
        }
    }

    fn asking(client: Arc<EngineClient>, epoch: u64) -> Self {
        let asked = Asked {
            client: Arc::clone(&client),
            epoch,
        };
        Self {
            client,
            target: Arc::new(asked),
            epoch: None,
        }
    }
}

/// What becomes of a request that comes now.
pub(crate) enum Door {
    /// It begins there.
    Open(Entry),
    /// Not yet, and here is why.
    Held(&'static str),
    /// Not on this node.
    Closed(String),
}

/// A request that wants to begin, and has waited for so long.
pub(crate) struct Waiting<'a> {
    front: &'a Front,
    deadline: Instant,
    held: Option<Held<'a>>,
}

/// Counts as one held request while it lives.
struct Held<'a>(&'a AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Front {
    /// What becomes of a request for `model` that comes now.
    pub(crate) fn door(&self, model: &Model) -> Door {
        let slot = &self.shared.slot;
        if self.is_draining() {
            return Door::Closed("the server is draining".to_owned());
        }
        let local = slot.target_of(model.generation);
        let local = local.filter(|_| slot.state() == EngineState::Ready);
        let Some(pairing) = &self.shared.pairing else {
            return match local {
                Some(client) => Door::Open(Entry::of(client, None)),
                None => Door::Closed(self.local_readiness().reason),
            };
        };
        // Of the last engine, where none runs: the model is the same.
        let hello = match self.shared.is_lone {
            true => slot.peer_hello(),
            false => slot.hello(),
        };
        let hash = hello.map(|hello| hello.model_hash);
        let peer = hash.as_ref().and_then(|hash| slot.peer_target(hash));
        match pairing.admission() {
            Admission::Open { epoch, .. } => match local.or(peer) {
                Some(client) => Door::Open(Entry::of(client, Some(epoch.number()))),
                None => Door::Held("no engine runs at the moment"),
            },
            Admission::ToPeer { epoch } => match (peer, slot.peer_hello()) {
                (Some(client), _) => match self.unlike_peer(pairing) {
                    None => Door::Open(Entry::asking(client, epoch.number())),
                    Some(reason) => Door::Closed(reason),
                },
                (None, _) if hash.is_none() && !self.shared.is_lone => {
                    Door::Closed(self.local_readiness().reason)
                }
                (None, Some(_)) => {
                    Door::Closed("the node that serves has another model".to_owned())
                }
                (None, None) => Door::Held("the node that serves cannot be reached yet"),
            },
            Admission::Hold => Door::Held("no node of the pair serves at the moment"),
            Admission::Closed => {
                let role = pairing.view().role;
                Door::Closed(format!("this node is {role}, and no other one serves"))
            }
        }
    }

    fn unlike_peer(&self, pairing: &Arc<dyn Pairing>) -> Option<String> {
        let shared = &self.shared;
        shared.is_lone.then(|| lone::unlike(shared, pairing))?
    }

    /// Whether the engine of this node could serve.
    pub(crate) fn local_readiness(&self) -> Readiness {
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

    /// Whether a request would be served here now: by this node's engine, or by the peer's.
    pub fn readiness(&self) -> Readiness {
        if self.shared.pairing.is_none() {
            return self.local_readiness();
        }
        let reason = match self.door(&self.model()) {
            Door::Open(_) => String::new(),
            Door::Held(reason) => reason.to_owned(),
            Door::Closed(reason) => reason,
        };
        Readiness {
            ready: reason.is_empty(),
            reason,
        }
    }

    /// A request that comes now.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting {
            front: self,
            deadline: Instant::now() + self.shared.config.takeover_hold(),
            held: None,
        }
    }

    /// Remembers that a request was admitted here, where this node did it.
    pub(crate) fn audit(&self, entry: &Entry, request_id: u64) {
        if let (Some(pairing), Some(epoch)) = (&self.shared.pairing, entry.epoch) {
            pairing.audit(epoch, request_id);
        }
    }
}

impl Waiting<'_> {
    /// Where the request begins, as soon as there is such a place.
    pub(crate) async fn enter(&mut self, model: &Model) -> Result<Entry, GenerateError> {
        loop {
            let mut change = self.changes();
            match self.front.door(model) {
                Door::Open(entry) => {
                    self.held = None;
                    return Ok(entry);
                }
                Door::Closed(reason) => return Err(self.not_ready(reason)),
                Door::Held(reason) => {
                    self.hold()?;
                    let waited = timeout_at(self.deadline.into(), change.wait()).await;
                    waited.map_err(|_| self.not_ready(self.too_late(reason)))?;
                }
            }
        }
    }

    /// The place where it was to begin is gone before it began: there will be another, or not.
    pub(crate) async fn retry(&mut self) -> Result<(), GenerateError> {
        self.hold()?;
        let mut change = self.changes();
        let waited = timeout_at(self.deadline.into(), change.wait()).await;
        let reason = "the engine that it was given to ended before it took it in";
        waited.map_err(|_| self.not_ready(self.too_late(reason)))
    }

    fn too_late(&self, reason: &str) -> String {
        let hold_ms = self.front.shared.config.takeover_hold_ms;
        format!("{reason}, and the request was held for {hold_ms} ms")
    }

    fn not_ready(&self, reason: String) -> GenerateError {
        GenerateError::NotReady {
            reason,
            retry_after_s: self.front.shared.config.not_ready_retry_after_s,
        }
    }

    /// Counts it among the held ones.
    fn hold(&mut self) -> Result<(), GenerateError> {
        if self.held.is_some() {
            return Ok(());
        }
        let shared = &self.front.shared;
        let (num_held, max_num_held) = (&shared.num_held, shared.config.max_num_takeover_holds);
        let held = Held(num_held);
        if num_held.fetch_add(1, Ordering::SeqCst) >= max_num_held {
            return Err(GenerateError::QueueFull {
                max_num_waiting: u32::try_from(max_num_held).unwrap_or(u32::MAX),
                retry_after_s: shared.config.queue_full_retry_after_s,
            });
        }
        self.held = Some(held);
        Ok(())
    }

    /// What wakes it, counted from now on.
    fn changes(&self) -> Changes {
        let shared = &self.front.shared;
        let mut states = shared.slot.subscribe();
        states.borrow_and_update();
        let mut views = shared.pairing.as_ref().map(|pairing| pairing.subscribe());
        if let Some(views) = &mut views {
            views.borrow_and_update();
        }
        Changes { states, views }
    }
}

/// Engines and roles as they change.
struct Changes {
    states: tokio::sync::watch::Receiver<EngineState>,
    views: Option<tokio::sync::watch::Receiver<Arc<hotspare_pair::PairView>>>,
}

impl Changes {
    async fn wait(&mut self) {
        let views = async {
            let is_changed = match &mut self.views {
                Some(views) => views.changed().await.is_ok(),
                None => false,
            };
            if !is_changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Ok(()) = self.states.changed() => {}
            () = views => {}
            () = sleep(HOLD_POLL) => {}
        }
    }
}
