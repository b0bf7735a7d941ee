//! Puts a node together: locks, reads, binds, then gives all to the driver's thread.
//!
//! Invariant: whatever can be wrong with configuration, disk or addresses is an error of the call;
//! a thread that runs has all it needs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

use hotspare_failover::{Mode, State};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::config::PairConfig;
use crate::credentials::Credentials;
use crate::disk::RealDisk;
use crate::disk_thread::DiskThread;
use crate::driver::{Driver, Sockets};
use crate::epoch_file::EpochStore;
use crate::lease::LeaseStore;
use crate::link::LinkContext;
use crate::listen;
use crate::log_limiter::LogLimiter;
use crate::net::Net;
use crate::noise::{Hello, Purpose};
use crate::pair::{Pair, PeerStreams};
use crate::records::{Records, load_history};
use crate::replicated::Replicated;
use crate::shared::{Life, Shared, Told};
use crate::view::PairView;
use crate::{Clock, PairError};

/// Above others by so much, where the system permits it.
const NICENESS: i32 = -10;

pub(crate) fn start(
    mut config: PairConfig,
    lease: Option<Box<dyn LeaseStore>>,
    clock: Arc<dyn Clock>,
) -> Result<(Pair, PeerStreams), PairError> {
    config.settings.require_hooks |= config.hooks.iter().any(|hook| hook.required);
    config.validate()?;
    if config.settings.mode == Mode::Strict
        && config.settings.peer_rank.is_some()
        && lease.is_none()
    {
        let why = "mode strict needs a lease store (--ha-lease)";
        return Err(PairError::Config(why.to_owned()));
    }
    let store = EpochStore::open(&config.state_dir, Box::new(RealDisk))?;
    let file = store.load()?;
    let sockets = sockets(&mut config)?;
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    let boot = (high ^ low).max(1);
    let (inputs, input_queue) = mpsc::channel(config.bounds.max_num_queued_inputs);
    let (streams, stream_queue) = mpsc::channel(config.bounds.max_num_waiting_streams);
    let net = Arc::new(net(&config, boot, &inputs, streams));
    let records = Records::start(&config.state_dir, &config.bounds)?;
    let max_history = config.bounds.max_num_history_entries;
    let history = load_history(&config.state_dir, max_history);
    let addresses = sockets.iter().map(|bound| bound.address).collect();
    let shared = Arc::new(shared(&config, clock, boot, addresses, records));
    let disk = DiskThread::start(store, inputs.clone())?;
    let driver = Driver::new(
        Arc::clone(&shared),
        Arc::clone(&net),
        disk,
        lease.map(Arc::from),
        config.probe.clone(),
        history,
    );
    let run = Run {
        driver,
        sockets: Sockets(sockets),
        hooks: config.hooks,
        file,
        input_queue,
    };
    let life = Arc::new(run.spawn()?);
    let pair = Pair {
        shared,
        net,
        inputs,
        life,
    };
    let streams = PeerStreams {
        streams: stream_queue,
    };
    Ok((pair, streams))
}

/// Binds every address; a node without a peer has none.
fn sockets(config: &mut PairConfig) -> Result<Vec<listen::Bound>, PairError> {
    if config.settings.peer_rank.is_none() {
        config.peers.clear();
        return Ok(Vec::new());
    }
    let udp = config.bounds.udp;
    let bound = config.listen.iter().map(|&to| listen::bind(to, udp));
    bound.collect()
}

fn shared(
    config: &PairConfig,
    clock: Arc<dyn Clock>,
    boot: u64,
    addresses: Vec<std::net::SocketAddr>,
    records: Records,
) -> Shared {
    let view = Arc::new(PairView::starting(&config.node, config.settings.mode));
    let replica_bytes = config.bounds.replica_max_bytes;
    Shared {
        clock,
        settings: config.settings.clone(),
        bounds: config.bounds,
        node: config.node.clone(),
        boot,
        addresses,
        view: watch::Sender::new(Arc::clone(&view)),
        changes: watch::Sender::new(view),
        state: Mutex::new(Arc::new(State::new())),
        told: Mutex::new(Told::default()),
        told_news: Notify::new(),
        traffic_at: AtomicU64::new(0),
        traffic_news: Notify::new(),
        flush: Mutex::new(None),
        replicated: Replicated::new(config.settings.rank, boot, replica_bytes),
        records,
    }
}

fn net(
    config: &PairConfig,
    boot: u64,
    inputs: &mpsc::Sender<crate::input::Input>,
    streams: mpsc::Sender<crate::net::LooseStream>,
) -> Net {
    let bounds = config.bounds;
    let dead_after_ms = config.settings.timers.dead_after_ms;
    Net {
        credentials: Credentials {
            keys: config.keys.clone(),
            tls: config.tls.clone(),
        },
        hello: Hello {
            node: config.node.clone(),
            rank: config.settings.rank,
            boot,
            purpose: Purpose::Control,
        },
        peer_rank: config.settings.peer_rank,
        peers: config.peers.clone(),
        bounds,
        dead_after_ms,
        links: LinkContext {
            inputs: inputs.clone(),
            max_frame_bytes: bounds.max_frame_bytes,
            idle_ms: dead_after_ms,
            ids: AtomicU64::new(1),
        },
        streams,
        news: watch::Sender::new(None),
        num_onlookers: AtomicUsize::new(0),
        addresses: Mutex::new(vec![Vec::new(); config.peers.len()]),
        preferred: AtomicUsize::new(0),
        leaving: AtomicBool::new(false),
        limiter: LogLimiter::new(bounds.log_interval_ms),
        num_unauthenticated: AtomicU64::new(0),
        num_refused_handshakes: AtomicU64::new(0),
    }
}

/// What the thread runs.
struct Run {
    driver: Driver,
    sockets: Sockets,
    hooks: Vec<crate::Hook>,
    file: hotspare_failover::EpochFile,
    input_queue: mpsc::Receiver<crate::input::Input>,
}

impl Run {
    fn spawn(self) -> Result<Life, PairError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(PairError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let (ended, has_ended) = watch::channel(false);
        std::thread::Builder::new()
            .name("pair".to_owned())
            .spawn(move || {
                if rustix::process::setpriority_process(None, NICENESS).is_err() {
                    tracing::debug!("the pair's thread keeps its priority: raising needs a right");
                }
                let Self {
                    driver,
                    sockets,
                    hooks,
                    file,
                    input_queue,
                } = self;
                let disk =
                    runtime.block_on(driver.run(sockets, &hooks, file, input_queue, stopped));
                runtime.shutdown_background();
                // The lock of the state directory goes with the disk's thread.
                disk.join();
                ended.send_replace(true);
            })
            .map_err(PairError::Thread)?;
        Ok(Life {
            stop: Mutex::new(Some(stop)),
            ended: has_ended,
        })
    }
}
