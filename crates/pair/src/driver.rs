//! The driver: steps the machine with what comes in, on a thread and a runtime of its own.
//!
//! It wakes when the machine asked to be, publishes the new picture before anything else, and then
//! does what the machine wants (`actions`).
//!
//! Invariant: only this thread steps the machine, and it never waits for disk, store, hook, peer or
//! front: their answers are inputs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotspare_failover::{BootTime, EpochFile, Event, Gate, State, step};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::commands::Commands;
use crate::config::ProbeTarget;
use crate::dial;
use crate::disk_thread::DiskThread;
use crate::heard::Heard;
use crate::hooks::{Hook, HookRunner};
use crate::input::Input;
use crate::lease::LeaseStore;
use crate::link::{LinkId, LinkSender};
use crate::listen::{self, Bound};
use crate::net::Net;
use crate::shared::{Shared, lock};
use crate::view::{HistoryEntry, PairCounters, PeerFacts};
use crate::wire::WireHeartbeat;

/// The clocks are compared at least this often, in milliseconds.
const MAX_SLEEP_MS: u64 = 1_000;

/// Where a node listens, before the runtime runs.
pub(crate) struct Sockets(pub(crate) Vec<Bound>);

/// An open link, as the driver sees it.
pub(crate) struct Link {
    pub(crate) sender: LinkSender,
    pub(crate) boot: u64,
    pub(crate) accepted: bool,
    pub(crate) heard_at: BootTime,
    pub(crate) farewell: bool,
}

/// What the peer told of itself.
pub(crate) struct PeerNews {
    pub(crate) node: String,
    pub(crate) boot: u64,
    pub(crate) facts: PeerFacts,
    pub(crate) gates: Vec<Gate>,
}

/// The driver's state.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) net: Arc<Net>,
    pub(crate) state: State,
    pub(crate) heard: Heard,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) peer: Option<PeerNews>,
    pub(crate) facts: PeerFacts,
    pub(crate) last_sent: Option<Arc<WireHeartbeat>>,
    pub(crate) disk: DiskThread,
    pub(crate) lease: Option<Arc<dyn LeaseStore>>,
    pub(crate) probe: Option<[ProbeTarget; 2]>,
    pub(crate) hooks: Option<HookRunner>,
    pub(crate) commands: Commands,
    pub(crate) history: VecDeque<HistoryEntry>,
    pub(crate) shown_history: Arc<[HistoryEntry]>,
    pub(crate) alerted: BTreeMap<&'static str, BootTime>,
    pub(crate) counters: PairCounters,
    pub(crate) exits: Vec<oneshot::Sender<()>>,
    pub(crate) farewell_said: bool,
    pub(crate) exiting: bool,
    pub(crate) resend_at: Option<BootTime>,
    pub(crate) senders: Vec<UdpSocket>,
    wall_offset: Option<i64>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        net: Arc<Net>,
        disk: DiskThread,
        lease: Option<Arc<dyn LeaseStore>>,
        probe: Option<[ProbeTarget; 2]>,
        history: Vec<HistoryEntry>,
    ) -> Self {
        let bounds = shared.bounds;
        let peer_rank = shared.settings.peer_rank;
        Self {
            heard: Heard::new(shared.boot, peer_rank, bounds.replay_window_ms),
            state: State::new(),
            links: BTreeMap::new(),
            peer: None,
            facts: PeerFacts::default(),
            last_sent: None,
            disk,
            lease,
            probe,
            hooks: None,
            commands: Commands::new(bounds.max_num_commands),
            shown_history: history.as_slice().into(),
            history: history.into(),
            alerted: BTreeMap::new(),
            counters: PairCounters::default(),
            exits: Vec::new(),
            farewell_said: false,
            exiting: false,
            resend_at: None,
            senders: Vec::new(),
            wall_offset: None,
            shared,
            net,
        }
    }

    /// Runs until `stop` is dropped; gives the disk's thread back to be joined.
    pub(crate) async fn run(
        mut self,
        sockets: Sockets,
        hooks: &[Hook],
        file: EpochFile,
        mut inputs: mpsc::Receiver<Input>,
        mut stop: oneshot::Receiver<()>,
    ) -> DiskThread {
        let timers = &self.shared.settings.timers;
        let hooks = HookRunner::start(hooks, timers.hook_timeout_ms, self.shared.bounds);
        self.hooks = Some(hooks);
        self.wall_offset = Some(self.offset());
        self.open(sockets).await;
        let boot = self.shared.boot;
        self.give(Event::Started { boot, file });
        let shared = Arc::clone(&self.shared);
        loop {
            let sleep = Duration::from_millis(self.sleep_ms());
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = shared.told_news.notified() => self.take_told(),
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                () = shared.traffic_news.notified() => self.give(Event::PeerTraffic),
                () = shared.replicated.to_send() => self.pump_replica(),
                () = tokio::time::sleep(sleep) => {}
            }
            self.check_clocks();
        }
        self.disk
    }

    /// Opens the doors; what cannot be opened any more is logged, as the node can still dial.
    async fn open(&mut self, sockets: Sockets) {
        let handshakes = Arc::new(Semaphore::new(self.net.bounds.max_num_handshakes));
        for bound in sockets.0 {
            let address = bound.address;
            match TcpListener::from_std(bound.tcp) {
                Ok(listener) => {
                    let net = Arc::clone(&self.net);
                    tokio::spawn(listen::accept(net, listener, Arc::clone(&handshakes)));
                }
                Err(error) => tracing::error!(%address, %error, "the pair cannot listen"),
            }
            match bound.udp.map(UdpSocket::from_std) {
                Some(Ok(socket)) => {
                    tokio::spawn(listen::receive(Arc::clone(&self.net), socket));
                }
                Some(Err(error)) => tracing::error!(%address, %error, "the pair cannot listen"),
                None => {}
            }
        }
        for index in 0..self.net.peers.len() {
            tokio::spawn(dial::run(Arc::clone(&self.net), index));
        }
        if self.net.bounds.udp && !self.net.peers.is_empty() {
            // Unbound, so that the kernel chooses the source address of each link.
            for any in ["0.0.0.0:0", "[::]:0"] {
                if let Ok(socket) = UdpSocket::bind(any).await {
                    self.senders.push(socket);
                }
            }
        }
    }

    fn sleep_ms(&self) -> u64 {
        let at = match self.resend_at {
            Some(at) => at.min(self.state.wakeup_at()),
            None => self.state.wakeup_at(),
        };
        at.ms_since(self.shared.clock.now()).min(MAX_SLEEP_MS)
    }

    /// By how much wall time is ahead of boot time.
    fn offset(&self) -> i64 {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(0);
        let clock = &self.shared.clock;
        ms(clock.wall_ms()) - ms(clock.now().ms())
    }

    /// After every input: whatever came in, the machine is stepped when it asked to be.
    fn check_clocks(&mut self) {
        let now = self.shared.clock.now();
        let offset = self.offset();
        // From one look to the next: a clock that is slowly put right does not jump.
        let before = self.wall_offset.replace(offset).unwrap_or(offset);
        let by_ms = offset.saturating_sub(before);
        if by_ms.unsigned_abs() >= self.shared.bounds.wall_clock_jump_ms {
            self.give(Event::WallClockJumped { by_ms });
        }
        if self.resend_at.is_some_and(|at| now >= at) {
            self.resend_at = None;
            self.shared.replicated.rewind();
            self.pump_replica();
        }
        if now >= self.state.wakeup_at() {
            self.give(Event::Timer);
        }
    }

    /// Steps the machine, shows the new picture, does what is wanted.
    pub(crate) fn give(&mut self, event: Event) {
        let now = self.shared.clock.now();
        let state = std::mem::take(&mut self.state);
        let (state, actions) = step(&self.shared.settings, state, event, now);
        self.state = state;
        self.publish(now);
        let history = Arc::clone(&self.shown_history);
        for action in actions {
            self.act(action, now);
        }
        if !Arc::ptr_eq(&history, &self.shown_history) {
            self.publish(now);
        }
    }

    fn take_told(&mut self) {
        let told = std::mem::take(&mut *lock(&self.shared.told));
        if let Some(facts) = told.facts {
            self.facts = facts;
        }
        if let Some(gates) = told.gates
            && *gates != *self.state.gates()
        {
            self.give(Event::Gates(gates));
        }
        if let Some(health) = told.health
            && health != self.state.health()
        {
            self.give(Event::Health(health));
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.give(event),
            Input::Datagram(message) => self.hear(*message),
            Input::LinkUp {
                id,
                hello,
                accepted,
                sender,
            } => self.link_up(id, &hello, accepted, sender),
            Input::Frame { link, frame } => self.frame(link, frame),
            Input::LinkDown { id, end } => self.link_down(id, end),
            Input::Command {
                id,
                command,
                reason,
                requested_by,
                reply,
            } => {
                if self
                    .commands
                    .begin(id, command, reason, requested_by, reply)
                {
                    self.give(Event::Command { id, command });
                }
            }
            Input::Terminate(reply) => {
                if self.farewell_said {
                    // Who asked may have gone.
                    let _gone = reply.send(());
                } else {
                    self.exits.push(reply);
                    if !self.exiting {
                        self.give(Event::Terminate);
                    }
                }
            }
            Input::FarewellSaid => {
                self.farewell_said = true;
                for exit in self.exits.drain(..) {
                    let _gone = exit.send(());
                }
            }
        }
    }

    pub(crate) fn counters(&self) -> PairCounters {
        let net = &self.net;
        PairCounters {
            num_unauthenticated: net.num_unauthenticated.load(Ordering::Relaxed),
            num_refused_handshakes: net.num_refused_handshakes.load(Ordering::Relaxed),
            num_lost_records: self.shared.records.num_lost(),
            num_hook_failures: self.hooks.as_ref().map_or(0, HookRunner::num_failures),
            ..self.counters
        }
    }
}
