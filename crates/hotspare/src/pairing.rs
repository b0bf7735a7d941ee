//! This node's side of its pair: from settings to a running pair, and the front's view of it.
//!
//! Invariant: the pair is started before the front, and takes no part until the front says that its
//! model is loaded.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hotspare_failover::{Admission, BootTime, Command, Epoch, Gate, Health, Obstacle, Outcome};
use hotspare_front::{ModelInfo, Operation, PairSetup, Pairing, PeerIo};
use hotspare_pair::{
    Hook, HookTarget, Pair, PairConfig, PairKeys, PairTls, PairView, PeerFacts, PeerStreams,
    ProbeTarget, SystemClock,
};
use tokio::sync::{Mutex, watch};

use crate::cli::{HaSettings, Settings};
use crate::references::References;

/// Beyond the machine's own limit, to hear how a handover ended.
const TERMINATE_MARGIN: Duration = Duration::from_secs(2);

/// The gates of a node: the front's, and what its references say.
#[derive(Default)]
struct Gates {
    of_front: Vec<Gate>,
    of_references: Option<Gate>,
}

/// A running pair as the front sees it.
pub(crate) struct Paired {
    pair: Pair,
    gates: std::sync::Mutex<Gates>,
    streams: Mutex<PeerStreams>,
}

impl Paired {
    /// Starts this node's side of the pair; `None` for a node alone. `address` is that of this
    /// node's HTTP.
    pub(crate) fn start(
        settings: &Settings,
        address: SocketAddr,
    ) -> Result<Option<Arc<Self>>, String> {
        let ha = &settings.ha;
        if ha.peers.is_empty() {
            return Ok(None);
        }
        let key_file = ha.key_file.as_ref().ok_or("--ha-key-file is missing")?;
        let config = PairConfig {
            node: settings.front.node.clone(),
            settings: ha.machine.clone(),
            listen: ha.listen.clone(),
            peers: ha.peers.clone(),
            keys: PairKeys::from_file(key_file).map_err(|e| e.to_string())?,
            tls: tls(ha)?,
            state_dir: state_dir(settings)?,
            hooks: hooks(ha),
            probe: probe(ha, address),
            bounds: ha.bounds,
        };
        let (pair, streams) = Pair::start(config, None, Arc::new(SystemClock))
            .map_err(|error| format!("the pair: {error}"))?;
        tracing::info!(
            addresses = ?pair.addresses(),
            rank = ha.machine.rank,
            mode = ?ha.machine.mode,
            "This node is one of a pair."
        );
        let streams = Mutex::new(streams);
        let paired = Arc::new(Self {
            pair,
            gates: std::sync::Mutex::default(),
            streams,
        });
        let references = References {
            targets: ha.references.clone(),
            min_num: ha.min_num_references,
            interval: Duration::from_millis(ha.reference_interval_ms),
            timeout: Duration::from_millis(ha.reference_timeout_ms),
        };
        let weak = Arc::downgrade(&paired);
        tokio::spawn(references.watch(move |gate| {
            if let Some(paired) = weak.upgrade() {
                paired.change_gates(|known| known.of_references = Some(gate));
            }
        }));
        Ok(Some(paired))
    }

    /// The gates change only together, so that the machine never sees half of them.
    fn change_gates(&self, change: impl FnOnce(&mut Gates)) {
        let mut known = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        // Before the front has said anything nothing was checked.
        if !known.of_front.is_empty() {
            let references = known.of_references.iter();
            let gates = known.of_front.iter().chain(references).cloned();
            self.pair.set_gates(gates.collect());
        }
    }

    /// What the front is started with.
    pub(crate) fn setup(self: &Arc<Self>, address: SocketAddr) -> PairSetup {
        PairSetup {
            pairing: Arc::clone(self) as _,
            http_address: address.to_string(),
        }
    }

    /// Hands over where there is somebody to hand over to, and says farewell.
    pub(crate) async fn terminate(&self) {
        let ms = self.pair.settings().timers.operation_timeout_ms;
        let patience = Duration::from_millis(ms) + TERMINATE_MARGIN;
        if tokio::time::timeout(patience, self.pair.terminate())
            .await
            .is_err()
        {
            tracing::warn!("The other node did not take over in time.");
        }
    }
}

impl Pairing for Paired {
    fn admission(&self) -> Admission {
        self.pair.admission()
    }

    fn now(&self) -> BootTime {
        self.pair.now()
    }

    fn view(&self) -> Arc<PairView> {
        self.pair.view()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<PairView>> {
        self.pair.subscribe()
    }

    fn peer_traffic(&self) {
        self.pair.peer_traffic();
    }

    fn set_health(&self, health: Health) {
        self.pair.set_health(health);
    }

    fn set_gates(&self, gates: Vec<Gate>) {
        self.change_gates(|known| known.of_front = gates);
    }

    fn set_facts(&self, facts: PeerFacts) {
        self.pair.set_payload(facts);
    }

    fn connect(&self) -> BoxFuture<'_, io::Result<PeerIo>> {
        async {
            let stream = self.pair.connect().await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as PeerIo)
        }
        .boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Option<PeerIo>> {
        async {
            let stream = self.streams.lock().await.next().await?;
            Some(Box::new(stream) as PeerIo)
        }
        .boxed()
    }

    fn audit(&self, epoch: u64, request_id: u64) {
        self.pair.audit(&request_id.to_string(), Epoch::new(epoch));
    }

    fn command(&self, operation: Operation) -> BoxFuture<'_, Outcome> {
        let Operation {
            id,
            command,
            reason,
            requested_by,
        } = operation;
        self.pair.command(id, command, reason, requested_by).boxed()
    }

    fn dry_run(&self, command: Command) -> Vec<Obstacle> {
        self.pair.dry_run(command)
    }

    fn why_not(&self) -> Vec<Obstacle> {
        self.pair.why_not()
    }
}

/// The directory of the node's epoch file: as set, or the user's place for state.
fn state_dir(settings: &Settings) -> Result<PathBuf, String> {
    if let Some(dir) = &settings.ha.state_dir {
        return Ok(dir.clone());
    }
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = of("XDG_STATE_HOME").map(PathBuf::from);
    let home = || of("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = base
        .or_else(home)
        .ok_or("there is no HOME: set --state-dir")?;
    // A name is no path.
    let node = settings.front.node.replace(['/', '\0'], "_");
    Ok(base.join("hotspare").join(node))
}

/// What mTLS between the nodes needs; `None` where it is not set.
pub(crate) fn tls(ha: &HaSettings) -> Result<Option<PairTls>, String> {
    let (Some(cert), Some(key), Some(ca)) = (&ha.tls_cert, &ha.tls_key, &ha.tls_ca) else {
        return Ok(None);
    };
    let tls = PairTls::from_files(cert, key, ca, ha.tls_peer_name.as_deref());
    tls.map(Some).map_err(|error| error.to_string())
}

fn hooks(ha: &HaSettings) -> Vec<Hook> {
    let required = ha.machine.require_hooks;
    let programs = ha.hooks.iter().map(|program| Hook {
        name: program.display().to_string(),
        target: HookTarget::Exec {
            program: program.clone(),
            args: Vec::new(),
        },
        required,
    });
    let webhooks = ha.webhooks.iter().map(|url| Hook {
        name: url.clone(),
        target: HookTarget::Webhook { url: url.clone() },
        required,
    });
    programs.chain(webhooks).collect()
}

/// The peer's pair port and its HTTP, which listens on this node's port unless it is set.
fn probe(ha: &HaSettings, address: SocketAddr) -> Option<[ProbeTarget; 2]> {
    let pair = ha.peers.first()?;
    let http = match &ha.peer_http {
        Some(http) => http.clone(),
        None => format!("{}:{}", pair.rsplit_once(':')?.0, address.port()),
    };
    Some([ProbeTarget::Pair(pair.clone()), ProbeTarget::Http(http)])
}

/// Hash of what must be configured equally on both nodes: what a client could tell them apart by.
/// What belongs to a machine (addresses, device, memory, threads, directories, logs, timers) is not
/// in it.
pub(crate) fn config_hash(settings: &Settings, model: &ModelInfo) -> String {
    let Settings { http, engine, .. } = settings;
    let mut hasher = blake3::Hasher::new_derive_key("hotspare pair configuration v1");
    let mut add = |name: &str, value: &dyn std::fmt::Debug| {
        let text = format!("{name}={value:?}\n");
        hasher.update(text.as_bytes());
    };
    add("names", &model.served.names);
    add("max_model_len", &model.served.max_model_len);
    add("vocab_size", &model.served.vocab_size);
    add("defaults", &model.defaults);
    add("chat_template", &settings.model.chat_template);
    add("skip_tokenizer_init", &settings.model.skip_tokenizer_init);
    add("quantization", &engine.quantization);
    add("dtype", &engine.dtype);
    add("kv_cache_dtype", &engine.kv_cache_dtype);
    add("priority_scheduling", &engine.priority_scheduling);
    // Keys only by their hash, as all of it.
    let mut keys = http.api_keys.clone();
    keys.sort_unstable();
    add("api_keys", &keys);
    add("allowed_origins", &http.allowed_origins);
    add("max_body_bytes", &http.max_body_bytes);
    add("max_logprobs", &http.max_logprobs);
    add("max_num_choices", &http.max_num_choices);
    add("max_stop_string_bytes", &http.max_stop_string_bytes);
    let trust = &http.trust_request_chat_template;
    add("trust_request_chat_template", trust);
    let details = &http.enable_prompt_tokens_details;
    add("enable_prompt_tokens_details", details);
    let usage = &http.enable_force_include_usage;
    add("enable_force_include_usage", usage);
    hasher.finalize().to_hex()[..32].to_owned()
}
