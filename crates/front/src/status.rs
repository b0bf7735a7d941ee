//! What the server says about itself: readiness, and the body of `/ha/status`.
//!
//! Invariant: it is true. Every value is read from the state it describes, when it is asked for.

use std::sync::{Arc, PoisonError};

use hotspare_failover::{Admission, Eligibility, Gate, Mode, Verdict};
use hotspare_pair::PairView;
use serde::Serialize;

use crate::front::Shared;
use crate::slot::EngineView;
use crate::{EngineState, Front, Pairing};

/// Would a request be served here, now?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The answer.
    pub ready: bool,
    /// Why not, as a clause that completes "the server is not ready: …"; empty when ready.
    pub reason: String,
}

/// The body of `GET /ha/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeStatus {
    /// This node's name.
    pub node: String,
    /// As the pair's machine says. Without a peer `primary-solo`; `starting`, `draining` and
    /// `failed` when it does not admit requests for that reason.
    pub role: &'static str,
    /// Epoch of the pair; 0 without a peer.
    pub epoch: u64,
    /// How promotion is decided; `available` without a lease store.
    pub mode: &'static str,
    /// The peer, once it was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerStatus>,
    /// What else the pair says; absent without one.
    #[serde(flatten)]
    pub pair: Option<PairStatus>,
    /// The engines of this node.
    pub engines: Vec<EngineStatus>,
    /// Its GPUs.
    pub gpus: Vec<GpuStatus>,
    /// Whether answers come from something other than the main model.
    pub degraded: bool,
    /// Why the node is not ready, or degraded.
    pub reasons: Vec<String>,
}

/// What a node of a pair says beside its role.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairStatus {
    /// How long it has had its role, milliseconds.
    pub role_age_ms: u64,
    /// What happens to a request that comes now: `open`, `to-peer`, `hold` or `closed`.
    pub admission: &'static str,
    /// Whether this node could take over: `eligible`, `degraded` or `ineligible`.
    pub eligibility: &'static str,
    /// Every gate with its verdict.
    pub gates: Vec<Gate>,
    /// Of `paused`, `holdoff` and `quarantine` those that are on.
    pub overlays: Vec<&'static str>,
    /// The operation that runs, 32 hexadecimal digits.
    pub operation: Option<String>,
    /// The alert that waits for `confirm` or `reject`.
    pub alert: Option<u64>,
    /// Whether what must be the same on both nodes may be changed here.
    pub may_write: bool,
    /// Which share of a tenant's limits this node may grant.
    pub limit_share_percent: u8,
    /// Links to the peer that are open.
    pub num_links: usize,
    /// Whether the peer's engine can be used from here.
    pub peer_engine: bool,
    /// Nodes whose engines can be used from here.
    pub num_peer_engines: usize,
}

/// What is known of the peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// Its role, as it last said.
    pub role: &'static str,
    /// In which it serves, or the highest that it knows to have served.
    pub epoch: u64,
    /// Whether it could take over, as it last said.
    pub eligibility: &'static str,
    /// Its engine's health, as it last said.
    pub health: hotspare_failover::Health,
    /// Its gates that do not pass.
    pub gates: Vec<Gate>,
    /// Time since it was heard last, milliseconds.
    pub silent_ms: u64,
    /// Name of its model.
    pub model: String,
    /// Hash of its model.
    pub model_hash: String,
    /// Equal where its engine computes the bits of this node's.
    pub numerics_id: String,
    /// Hash of what must be configured equally.
    pub config_hash: String,
    /// Where clients reach its HTTP.
    pub http_address: String,
    /// Sequences that run there.
    pub running: u32,
    /// Sequences that wait there.
    pub waiting: u32,
}

/// The pair's part of the status, with the mode, which stands elsewhere in it.
struct PairPart {
    mode: &'static str,
    status: PairStatus,
}

impl PairPart {
    fn of(front: &Front, pairing: &Arc<dyn Pairing>, view: &PairView) -> Self {
        let overlays = view.overlays.iter().filter(|(_, is_on)| *is_on);
        let status = PairStatus {
            role_age_ms: pairing.now().ms_since(view.since),
            admission: match pairing.admission() {
                Admission::Open { .. } => "open",
                Admission::ToPeer { .. } => "to-peer",
                Admission::Hold => "hold",
                Admission::Closed => "closed",
            },
            eligibility: eligibility_name(view.eligibility),
            gates: view.gates.clone(),
            overlays: overlays.map(|(name, _)| *name).collect(),
            operation: view.operation.map(|id| format!("{:032x}", id.0)),
            alert: view.alert,
            may_write: view.may_write,
            limit_share_percent: view.limit_share_percent,
            num_links: view.num_links,
            peer_engine: front.shared.slot.peer_hello().is_some(),
            num_peer_engines: front.shared.slot.num_peers(),
        };
        let mode = match view.mode {
            // It decides nothing.
            _ if front.shared.is_lone => "none",
            Mode::Available => "available",
            Mode::Strict => "strict",
            Mode::Confirm => "confirm",
            Mode::Manual => "manual",
        };
        Self { mode, status }
    }
}

impl PeerStatus {
    fn of(pairing: &Arc<dyn Pairing>, view: &PairView) -> Option<Self> {
        let peer = view.peer.as_ref()?;
        Some(Self {
            node: peer.node.clone(),
            role: peer.role.name(),
            epoch: peer.epoch.number(),
            eligibility: eligibility_name(peer.eligibility),
            health: peer.health,
            gates: peer.gates.clone(),
            silent_ms: pairing.now().ms_since(peer.last_heard),
            model: peer.facts.model.clone(),
            model_hash: peer.facts.model_hash.clone(),
            numerics_id: peer.facts.numerics_id.clone(),
            config_hash: peer.facts.config_hash.clone(),
            http_address: peer.facts.http_address.clone(),
            running: peer.facts.num_running,
            waiting: peer.facts.num_waiting,
        })
    }
}

fn eligibility_name(eligibility: Eligibility) -> &'static str {
    match eligibility {
        Eligibility::Eligible => "eligible",
        Eligibility::Degraded => "degraded",
        Eligibility::Ineligible => "ineligible",
    }
}

/// One engine process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineStatus {
    /// `main` for the one that serves, or will; `spare-N`, `next` (a reload loads it) and
    /// `retired-N` (it finishes what it had before a reload) for others.
    pub name: String,
    /// Process id; absent where no process runs.
    pub pid: Option<u32>,
    /// Name of its model.
    pub model: String,
    /// Hash of weights, tokenizer, template and generation config; empty until it has loaded.
    pub model_hash: String,
    /// Engines with equal hashes and equal ids compute equal bits; empty until it has loaded.
    pub numerics_id: String,
    /// Its device.
    pub device: String,
    /// State of its supervision.
    pub state: &'static str,
    /// Steps run in its present life.
    pub steps: u64,
    /// Sequences that run.
    pub running: u32,
    /// Sequences that wait.
    pub waiting: u32,
    /// Of the spare that reads running streams along: tokens that it has not read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_tokens: Option<u64>,
    /// Of `main`: how often an engine was started in place of one that was lost. 0 of others.
    pub restarts: u64,
}

/// One GPU. None on a build or machine without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuStatus {
    /// Index, as the driver counts.
    pub index: u32,
    /// Product name.
    pub name: String,
}

impl Front {
    /// The body of `/ha/status`.
    pub fn status(&self) -> NodeStatus {
        let shared = &self.shared;
        let state = shared.slot.state();
        let readiness = self.readiness();
        let mut reasons = Vec::new();
        let is_ready = readiness.ready;
        if !readiness.ready {
            reasons.push(readiness.reason);
        }
        if let EngineState::Backoff { reason, .. } = &state {
            reasons.push(reason.clone());
        }
        let view = self.pairing().map(|pairing| pairing.view());
        let pair = self
            .pairing()
            .zip(view.as_ref())
            .map(|(pairing, view)| PairPart::of(self, pairing, view));
        for gate in view.iter().flat_map(|view| &view.gates) {
            if gate.verdict > Verdict::Pass {
                reasons.push(format!("{}: {}", gate.name, gate.reason));
            }
        }
        let degraded = self.degraded();
        reasons.extend(
            degraded
                .as_ref()
                .map(|reason| format!("degraded: {reason}")),
        );
        let engines = match shared.is_lone {
            true => Vec::new(),
            false => shared.slot.engines(),
        };
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
            role: self.role().name(),
            epoch: self.epoch(),
            mode: pair.as_ref().map_or("available", |pair| pair.mode),
            peer: view
                .as_ref()
                .and_then(|view| PeerStatus::of(self.pairing()?, view)),
            pair: pair.map(|pair| pair.status),
            engines: engines
                .into_iter()
                .map(|engine| self.engine_status(engine))
                .collect(),
            gpus: Vec::new(),
            degraded: degraded.is_some(),
            reasons,
        }
    }

    /// Why what this node serves is not what its pair should serve: it took over although its model
    /// or its configuration differs.
    pub fn degraded(&self) -> Option<String> {
        let view = self.pairing()?.view();
        let reason = || {
            let degraded = self.shared.degraded.lock();
            degraded.unwrap_or_else(PoisonError::into_inner).clone()
        };
        view.role.claims().then(reason).flatten()
    }

    /// What the engine has to read along yet, where it is the one that does.
    fn num_unread_tokens(&self, engine: &EngineView) -> Option<u64> {
        let Shared {
            readers, trails, ..
        } = &*self.shared;
        let reader = readers.reader()?.client;
        let hello = reader.hello();
        let is_reader = engine.hello.as_ref()?.engine_id == hello.engine_id;
        is_reader.then(|| crate::shadow::num_unread(trails, hello) as u64)
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
}
