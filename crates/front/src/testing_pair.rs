//! Two fronts and a made-up pair between them: roles are what the test says.
//!
//! Invariant: nothing here is in a release build.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_failover::{
    Admission, BootTime, Command, Eligibility, Epoch, Gate, Health, Mode, Obstacle, Outcome, Role,
};
use hotspare_pair::{PairView, PeerFacts, PeerView};
use tokio::sync::{mpsc, watch};

use crate::testing::{ScriptedLauncher, config, model_info, numbered_text_model, scripted};
use crate::{Front, FrontConfig, FrontHandle, Operation, PairSetup, Pairing, PeerIo};

/// Bytes that a stream between the fronts holds.
const STREAM_BYTES: usize = 64 << 10;

/// One side of a pair whose roles the test sets.
pub(crate) struct FakePairing {
    started: Instant,
    view: watch::Sender<Arc<PairView>>,
    to_peer: Mutex<Option<mpsc::Sender<PeerIo>>>,
    from_peer: tokio::sync::Mutex<mpsc::Receiver<PeerIo>>,
    pub(crate) audits: Mutex<Vec<(u64, u64)>>,
    pub(crate) told: Mutex<Option<(Health, Vec<Gate>)>>,
}

impl FakePairing {
    fn new(node: &str, from_peer: mpsc::Receiver<PeerIo>, to_peer: mpsc::Sender<PeerIo>) -> Self {
        let mut view = PairView::starting(node, Mode::Available);
        view.peer = Some(PeerView {
            node: "peer".to_owned(),
            boot: 1,
            role: Role::Standby,
            epoch: Epoch::NONE,
            eligibility: Eligibility::Eligible,
            health: Health::Ok,
            leaving: false,
            gates: Vec::new(),
            facts: PeerFacts::default(),
            last_heard: BootTime::MAX,
        });
        Self {
            started: Instant::now(),
            view: watch::Sender::new(Arc::new(view)),
            to_peer: Mutex::new(Some(to_peer)),
            from_peer: tokio::sync::Mutex::new(from_peer),
            audits: Mutex::default(),
            told: Mutex::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut PairView)) {
        let mut view = PairView::clone(&self.view.borrow());
        change(&mut view);
        self.view.send_replace(Arc::new(view));
    }

    /// It serves in this epoch.
    pub(crate) fn serve(&self, epoch: u64) {
        let epoch = Epoch::new(epoch);
        self.change(|view| {
            view.role = Role::Primary;
            (view.epoch, view.seen) = (epoch, epoch);
            view.admission = Admission::Open {
                epoch,
                until: BootTime::MAX,
            };
        });
    }

    /// It stands by; `epoch`: that in which the peer serves, or `None` where nobody does.
    pub(crate) fn stand_by(&self, epoch: Option<u64>) {
        self.change(|view| {
            view.role = Role::Standby;
            if let Some(epoch) = epoch {
                view.epoch = Epoch::new(epoch);
                view.seen = view.seen.max(view.epoch);
            }
            view.admission = match epoch {
                Some(epoch) => Admission::ToPeer {
                    epoch: Epoch::new(epoch),
                },
                None => Admission::Hold,
            };
        });
    }

    /// No stream to the peer can be opened from now on.
    pub(crate) fn cut(&self) {
        self.to_peer.lock().expect("no holder panics").take();
    }

    /// Epochs in which requests were admitted here.
    pub(crate) fn admitted_in(&self) -> Vec<u64> {
        let audits = self.audits.lock().expect("no holder panics");
        audits.iter().map(|(epoch, _)| *epoch).collect()
    }
}

impl Pairing for FakePairing {
    fn admission(&self) -> Admission {
        self.view.borrow().admission
    }

    fn now(&self) -> BootTime {
        BootTime::from_ms(self.started.elapsed().as_millis() as u64)
    }

    fn view(&self) -> Arc<PairView> {
        Arc::clone(&self.view.borrow())
    }

    fn subscribe(&self) -> watch::Receiver<Arc<PairView>> {
        self.view.subscribe()
    }

    fn peer_traffic(&self) {}

    fn set_health(&self, health: Health) {
        let mut told = self.told.lock().expect("no holder panics");
        let gates = told.take().map_or_else(Vec::new, |(_, gates)| gates);
        *told = Some((health, gates));
    }

    fn set_gates(&self, gates: Vec<Gate>) {
        let mut told = self.told.lock().expect("no holder panics");
        let health = told.take().map_or(Health::Ok, |(health, _)| health);
        *told = Some((health, gates));
    }

    fn set_facts(&self, _: PeerFacts) {}

    fn connect(&self) -> BoxFuture<'_, io::Result<PeerIo>> {
        async {
            let to_peer = self.to_peer.lock().expect("no holder panics").clone();
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let to_peer = to_peer.ok_or_else(refused)?;
            let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
            let sent = to_peer.send(Box::new(theirs)).await;
            sent.map_err(|_| refused())?;
            Ok(Box::new(ours) as PeerIo)
        }
        .boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Option<PeerIo>> {
        async { self.from_peer.lock().await.recv().await }.boxed()
    }

    fn audit(&self, epoch: u64, request_id: u64) {
        let mut audits = self.audits.lock().expect("no holder panics");
        audits.push((epoch, request_id));
    }

    fn command(&self, _: Operation) -> BoxFuture<'_, Outcome> {
        async { Outcome::Running }.boxed()
    }

    fn dry_run(&self, _: Command) -> Vec<Obstacle> {
        Vec::new()
    }

    fn why_not(&self) -> Vec<Obstacle> {
        Vec::new()
    }
}

/// One node.
pub(crate) struct Node {
    pub(crate) pairing: Arc<FakePairing>,
    pub(crate) handle: FrontHandle,
}

impl Node {
    pub(crate) fn front(&self) -> &Front {
        self.handle.front()
    }

    /// Returns once its engine is ready and, where there is one, the peer's can be used.
    pub(crate) async fn ready(&self) {
        crate::testing_streams::ready(&self.handle).await;
        let shared = self.front().shared();
        let mut states = shared.slot.subscribe();
        while shared.slot.peer_hello().is_none() {
            states.changed().await.expect("the front lives");
        }
    }
}

/// Bounds that tests can wait for.
pub(crate) fn quick() -> FrontConfig {
    FrontConfig {
        takeover_hold_ms: 20_000,
        max_num_engine_failures: 1_000,
        ..config()
    }
}

/// Two nodes of one scripted model; `faults` are those of their engines. `prepare` sets the roles
/// in which they start.
pub(crate) fn pair(
    config: &FrontConfig,
    faults: [&str; 2],
    prepare: impl FnOnce(&FakePairing, &FakePairing),
) -> [Node; 2] {
    let (to_a, from_b) = mpsc::channel(4);
    let (to_b, from_a) = mpsc::channel(4);
    let a = FakePairing::new("a", from_b, to_b);
    let b = FakePairing::new("b", from_a, to_a);
    prepare(&a, &b);
    [(a, faults[0]), (b, faults[1])].map(|(pairing, faults)| {
        let pairing = Arc::new(pairing);
        let faults = faults.to_owned();
        let launcher = ScriptedLauncher(move |_| EngineOptions {
            faults: faults.clone(),
            ..scripted(script())
        });
        let setup = PairSetup {
            pairing: Arc::clone(&pairing) as _,
            http_address: String::new(),
        };
        let model = model_info(Some(numbered_text_model()));
        let handle = Front::start_paired(config.clone(), model, Arc::new(launcher), setup);
        Node { pairing, handle }
    })
}

/// What their engines do.
pub(crate) fn script() -> ScriptedOptions {
    ScriptedOptions {
        step_time_us: 2_000,
        ..ScriptedOptions::default()
    }
}
