//! The engine slot: what is known about the engines of this node, whichever life they are in, and
//! about the peer's.
//!
//! Each engine's own task writes its entry, the supervisor says which generation serves; streams,
//! status and metrics read it. The engine that serves new requests is `main`; when it is lost, a
//! ready one of the same generation takes its place in the same statement.
//!
//! Invariant: an engine's client can be had from its proof until its connection is lost. Counters
//! never go back, however often engines are started again. Of the two locks, that of the state is
//! taken first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hotspare_link::{EngineHello, EngineStats};
use tokio::sync::watch;

mod view;

use view::add_counters;
pub(crate) use view::{EngineView, SlotStats};

use crate::client::EngineClient;
use crate::kv_mirror::LostMirrors;
use crate::target::LossCause;
use crate::{EngineState, KvMirror, ServedModel};

/// What an engine, or all of them, are asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Run.
    Run,
    /// End once nothing of it runs any more: another one takes its place.
    Retire,
    /// Let what runs finish, then end.
    Drain,
}

/// An engine by the number of engines that were started before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineId(pub(crate) u32);

/// One engine, from its start until its process was waited for.
struct Engine {
    id: EngineId,
    generation: u64,
    served: Arc<ServedModel>,
    pid: Option<u32>,
    state: EngineState,
    client: Option<Arc<EngineClient>>,
    hello: Option<EngineHello>,
    is_retired: bool,
    /// Its connection ended; only its process is left, perhaps.
    is_lost: bool,
}

impl Engine {
    fn serves(&self, hash: &str) -> bool {
        let client = self.client.as_ref();
        client.is_some_and(|client| client.hello().model_hash == hash)
    }

    fn is_of(&self, generation: u64) -> bool {
        self.generation == generation && !self.is_retired && !self.is_lost
    }
}

struct Inner {
    engines: Vec<Engine>,
    /// The peers' main engines, while their fronts can be reached: one, or both nodes' of a front
    /// without an engine, by their numbers.
    peers: BTreeMap<usize, Arc<EngineClient>>,
    /// Of the one that serves.
    serving_peer: usize,
    main: Option<EngineId>,
    /// Engines of this generation serve new requests.
    generation: u64,
    /// What is said while no engine of it is there.
    absent: EngineState,
    /// Why the node does not count as ready until one serves.
    failed: Option<String>,
    /// Of the engine that serves, or served last.
    hello: Option<EngineHello>,
    num_restarts: u64,
    num_losses_outside: u64,
    num_losses_own: u64,
    /// Sums over the lives that ended.
    past: EngineStats,
    past_num_tokens: u64,
    lost_mirrors: LostMirrors,
}

impl Inner {
    fn engine(&mut self, id: EngineId) -> Option<&mut Engine> {
        self.engines.iter_mut().find(|engine| engine.id == id)
    }

    fn main(&self) -> Option<&Engine> {
        let main = self.main?;
        self.engines.iter().find(|engine| engine.id == main)
    }

    /// The one that is `main`, or will be when it is ready.
    fn first(&self) -> Option<&Engine> {
        let of_generation = |engine: &&Engine| engine.is_of(self.generation);
        self.main()
            .or_else(|| self.engines.iter().find(of_generation))
    }

    /// Gives the first ready engine of the generation the requests.
    fn elect(&mut self) {
        let is_fit = |engine: &&Engine| engine.is_of(self.generation) && engine.client.is_some();
        let elected = self.engines.iter().find(is_fit);
        self.main = elected.map(|engine| engine.id);
        if let Some(engine) = elected {
            self.hello.clone_from(&engine.hello);
            self.failed = None;
        }
    }

    /// The engine `id` is lost and left its KV blocks.
    fn add_mirror(&mut self, id: EngineId, mirror: Arc<KvMirror>) {
        // What never served has no streams.
        if self.main != Some(id) && !self.engine(id).is_some_and(|engine| engine.is_retired) {
            return;
        }
        let others = self.engines.iter().filter(|engine| engine.id != id);
        for client in others.filter_map(|engine| engine.client.as_ref()) {
            client.adopt_blocks(mirror.path());
        }
        self.lost_mirrors.push(mirror, Instant::now());
    }

    fn peer_of(&self, hash: &str) -> Option<Arc<EngineClient>> {
        let serving = self.peers.get(&self.serving_peer);
        let all = serving.into_iter().chain(self.peers.values());
        let mut like = all.filter(|peer| peer.hello().model_hash == hash);
        like.next().cloned()
    }

    fn state(&self) -> EngineState {
        if let Some(main) = self.main() {
            return main.state.clone();
        }
        if let Some(reason) = &self.failed {
            let reason = reason.clone();
            return EngineState::Failed { reason };
        }
        match self.first() {
            Some(engine) => engine.state.clone(),
            None => self.absent.clone(),
        }
    }
}

/// See the module.
pub(crate) struct EngineSlot {
    inner: Mutex<Inner>,
    state: watch::Sender<EngineState>,
    order: watch::Sender<Order>,
}

impl EngineSlot {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            engines: Vec::new(),
            peers: BTreeMap::new(),
            serving_peer: 0,
            main: None,
            generation: 0,
            absent: EngineState::Starting,
            failed: None,
            hello: None,
            num_restarts: 0,
            num_losses_outside: 0,
            num_losses_own: 0,
            past: EngineStats::default(),
            past_num_tokens: 0,
            lost_mirrors: LostMirrors::default(),
        };
        Self {
            inner: Mutex::new(inner),
            state: watch::Sender::new(EngineState::Starting),
            order: watch::Sender::new(Order::Run),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and wakes whoever waits for changes.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.inner());
        self.state
            .send_modify(|state| *state = self.inner().state());
        result
    }

    /// The engine that takes the attempts of a stream: one that serves `model_hash`, or for a
    /// stream that has not begun (`None`) the one of this node that takes new requests. The peer's
    /// comes after all of this node's.
    pub(crate) fn target(&self, model_hash: Option<&str>) -> Option<Arc<EngineClient>> {
        let inner = self.inner();
        let Some(hash) = model_hash else {
            return inner.main()?.client.clone();
        };
        let main = inner.main().filter(|engine| engine.serves(hash));
        let others = || {
            let serving = inner.engines.iter().filter(|engine| engine.serves(hash));
            serving.min_by_key(|engine| engine.is_retired)
        };
        match main.or_else(others) {
            Some(engine) => engine.client.clone(),
            None => inner.peer_of(hash),
        }
    }

    /// The serving peer's main engine, where it serves `model_hash`.
    pub(crate) fn peer_target(&self, model_hash: &str) -> Option<Arc<EngineClient>> {
        let inner = self.inner();
        let serving = inner.peers.get(&inner.serving_peer);
        serving
            .filter(|peer| peer.hello().model_hash == model_hash)
            .cloned()
    }

    /// What the serving peer's main engine said it is, while it can be reached.
    pub(crate) fn peer_hello(&self) -> Option<EngineHello> {
        let inner = self.inner();
        let serving = inner.peers.get(&inner.serving_peer);
        serving.map(|client| client.hello().clone())
    }

    /// The main engine of peer `number` can be reached, or can not any more.
    pub(crate) fn set_peer(&self, number: usize, peer: Option<Arc<EngineClient>>) {
        self.change(|inner| match peer {
            Some(peer) => drop(inner.peers.insert(number, peer)),
            None => drop(inner.peers.remove(&number)),
        });
    }

    /// Which peer's engine takes new requests, and is the first choice for others.
    pub(crate) fn set_serving_peer(&self, number: usize) {
        self.change(|inner| inner.serving_peer = number);
    }

    /// Peers whose engines can be reached.
    pub(crate) fn num_peers(&self) -> usize {
        self.inner().peers.len()
    }

    /// The engine that is `main` next, should the one that serves be lost.
    pub(crate) fn next_main(&self) -> Option<Arc<EngineClient>> {
        let inner = self.inner();
        let main = inner.main()?.id;
        let mut spares = inner.engines.iter().filter(|engine| engine.id != main);
        let next = spares.find(|engine| engine.is_of(inner.generation) && engine.client.is_some());
        next?.client.clone()
    }

    /// The engine that takes new requests which were made for this generation's tokenizer.
    pub(crate) fn target_of(&self, generation: u64) -> Option<Arc<EngineClient>> {
        let inner = self.inner();
        if generation == inner.generation {
            drop(inner);
            return self.target(None);
        }
        let mut others = inner.engines.iter().filter(|e| e.generation == generation);
        others.find_map(|engine| engine.client.clone())
    }

    /// The state of the node's serving engine.
    pub(crate) fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// Wakes whenever the answer of [`Self::target`] may have changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// An engine is about to be started.
    pub(crate) fn add(&self, id: EngineId, generation: u64, served: Arc<ServedModel>) {
        self.change(|inner| {
            inner.engines.push(Engine {
                id,
                generation,
                served,
                pid: None,
                state: EngineState::Starting,
                client: None,
                hello: None,
                is_retired: false,
                is_lost: false,
            });
        });
    }

    /// Its process was started.
    pub(crate) fn on_launch(&self, id: EngineId, pid: Option<u32>) {
        self.change(|inner| {
            if let Some(engine) = inner.engine(id) {
                engine.pid = pid;
            }
        });
    }

    /// It is in this state.
    pub(crate) fn set_state(&self, id: EngineId, state: EngineState) {
        self.change(|inner| {
            if let Some(engine) = inner.engine(id) {
                engine.state = state;
            }
        });
    }

    /// It was proved, and serves where its generation does and nobody else serves.
    pub(crate) fn on_ready(&self, id: EngineId, client: Arc<EngineClient>) {
        self.change(|inner| {
            let lost_mirrors = std::mem::take(&mut inner.lost_mirrors);
            if let Some(engine) = inner.engine(id) {
                engine.hello = Some(client.hello().clone());
                lost_mirrors.offer_all(&client);
                engine.client = Some(client);
                engine.state = EngineState::Ready;
            }
            inner.lost_mirrors = lost_mirrors;
            if inner.main.is_none() {
                inner.elect();
            }
        });
    }

    /// Its connection ended: nobody can reach it any more, and another one takes its place. Those
    /// that may take its streams over are told where its KV blocks are, before anything else.
    pub(crate) fn on_disconnect(&self, id: EngineId, reason: &str, mirror: Option<Arc<KvMirror>>) {
        self.change(|inner| {
            if let Some(mirror) = mirror {
                inner.add_mirror(id, mirror);
            }
            let Some(engine) = inner.engine(id) else {
                return;
            };
            engine.is_lost = true;
            if let Some(client) = engine.client.take() {
                add_counters(&mut inner.past, &client.stats());
                inner.past_num_tokens += client.num_tokens();
            }
            if inner.main == Some(id) {
                // How long the wait will be is known once the supervisor has heard of it.
                inner.absent = EngineState::Backoff {
                    reason: reason.to_owned(),
                    restart_in: Duration::ZERO,
                };
                inner.elect();
            }
        });
    }

    /// Lets go of what lost engines left so long ago.
    pub(crate) fn expire_mirrors(&self, retention: Duration) {
        let mut inner = self.inner();
        if inner.lost_mirrors.expire(Instant::now(), retention) {
            for client in inner.engines.iter().filter_map(|e| e.client.as_ref()) {
                client.forget_blocks();
            }
        }
    }

    /// When [`Self::expire_mirrors`] will have something to do.
    pub(crate) fn mirrors_expire_at(&self, retention: Duration) -> Option<Instant> {
        self.inner().lost_mirrors.expires_at(retention)
    }

    /// It served and was lost.
    pub(crate) fn on_loss(&self, cause: LossCause) {
        let mut inner = self.inner();
        match cause {
            LossCause::Outside => inner.num_losses_outside += 1,
            LossCause::Own => inner.num_losses_own += 1,
        }
    }

    /// Its process was waited for.
    pub(crate) fn remove(&self, id: EngineId) {
        self.change(|inner| inner.engines.retain(|engine| engine.id != id));
    }

    /// What is said while no engine is there; `is_failed`: until one serves.
    pub(crate) fn set_absent(&self, absent: EngineState) {
        self.change(|inner| {
            inner.failed = match &absent {
                EngineState::Failed { reason } => Some(reason.clone()),
                _ => None,
            };
            inner.absent = absent;
        });
    }

    /// Why an engine of the serving generation was lost or could not start, the last time.
    pub(crate) fn last_failure(&self) -> Option<String> {
        match &self.inner().absent {
            EngineState::Backoff { reason, .. } | EngineState::Failed { reason } => {
                Some(reason.clone())
            }
            _ => None,
        }
    }

    /// An engine was started in place of one that was lost.
    pub(crate) fn count_restart(&self) {
        self.inner().num_restarts += 1;
    }

    /// New requests go to this generation from now on; engines of others are retired.
    pub(crate) fn switch_to(&self, generation: u64) {
        self.change(|inner| {
            inner.generation = generation;
            for engine in &mut inner.engines {
                engine.is_retired = engine.generation != generation;
                if engine.is_retired && engine.client.is_some() {
                    engine.state = EngineState::Draining;
                }
            }
            inner.elect();
        });
    }

    /// Of the engine that serves, or served last.
    pub(crate) fn hello(&self) -> Option<EngineHello> {
        self.inner().hello.clone()
    }

    /// Orders only grow: a drain is not taken back.
    pub(crate) fn give_order(&self, order: Order) {
        grow(&self.order, order);
    }

    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }
}

/// Gives an order unless it is less than the one before.
pub(crate) fn grow(sender: &watch::Sender<Order>, order: Order) {
    sender.send_if_modified(|current| {
        let grows = order > *current;
        *current = order.max(*current);
        grows
    });
}
