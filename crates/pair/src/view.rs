//! What the rest of a node sees of its pair: role, epoch, admission, peer, history.
//!
//! A view is a picture after one step of the machine, shared and never changed.
//!
//! Invariant: `admission` may be over; whoever admits asks [`crate::Pair::admission`], which
//! compares it with the clock.

use std::sync::Arc;

use hotspare_failover::{
    Admission, BootTime, Eligibility, Epoch, Gate, Health, Mode, OperationId, Role,
};
use serde::{Deserialize, Serialize};

/// A node's picture of its pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairView {
    /// This node's name.
    pub node: String,
    /// Its role.
    pub role: Role,
    /// Since when, on the boot-time clock.
    pub since: BootTime,
    /// In which it serves, or the highest known to have served.
    pub epoch: Epoch,
    /// The highest known to have served: what carries a lower one is refused.
    pub seen: Epoch,
    /// Who decides about promotions.
    pub mode: Mode,
    /// What to do with new requests, at the time of the step.
    pub admission: Admission,
    /// The health that was last told.
    pub health: Health,
    /// What the gates say together.
    pub eligibility: Eligibility,
    /// The gates that were last told.
    pub gates: Vec<Gate>,
    /// Pause, hold-off and quarantine: name and whether it is on.
    pub overlays: [(&'static str, bool); 3],
    /// The operation that runs.
    pub operation: Option<OperationId>,
    /// The alert that waits for `Confirm` or `Reject`.
    pub alert: Option<u64>,
    /// Whether what must be the same on both nodes may be changed here.
    pub may_write: bool,
    /// Which share of a tenant's limits this node may grant.
    pub limit_share_percent: u8,
    /// The peer, once it was heard.
    pub peer: Option<PeerView>,
    /// Links to the peer that are open.
    pub num_links: usize,
    /// Role changes, alerts and commands, oldest first; bounded.
    pub history: Arc<[HistoryEntry]>,
    /// Tasks of the driver's runtime that have not ended.
    pub num_tasks: usize,
    /// Counts of what the drivers saw.
    pub counters: PairCounters,
}

impl PairView {
    /// The picture of a node that has just started.
    #[must_use]
    pub fn starting(node: &str, mode: Mode) -> Self {
        Self {
            node: node.to_owned(),
            role: Role::Starting,
            since: BootTime::ZERO,
            epoch: Epoch::NONE,
            seen: Epoch::NONE,
            mode,
            admission: Admission::Closed,
            health: Health::Ok,
            eligibility: Eligibility::Ineligible,
            gates: Vec::new(),
            overlays: [("paused", false), ("holdoff", false), ("quarantine", false)],
            operation: None,
            alert: None,
            may_write: false,
            limit_share_percent: 100,
            peer: None,
            num_links: 0,
            history: Arc::from([]),
            num_tasks: 0,
            counters: PairCounters::default(),
        }
    }

    /// Whether something changed that those who wait for changes want to know; the passing of time
    /// and another heartbeat are no such things.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let kind = |admission: &Admission| match *admission {
            Admission::Open { epoch, .. } => (0, epoch),
            Admission::ToPeer { epoch } => (1, epoch),
            Admission::Hold => (2, Epoch::NONE),
            Admission::Closed => (3, Epoch::NONE),
        };
        let peer = |view: &Self| {
            view.peer.as_ref().map(|peer| {
                let facts = &peer.facts;
                (
                    (peer.node.clone(), peer.boot, peer.role, peer.epoch),
                    (peer.eligibility, peer.health, peer.leaving),
                    (facts.model_hash.clone(), facts.numerics_id.clone()),
                    (facts.config_hash.clone(), peer.gates.clone()),
                )
            })
        };
        (self.role, self.since, self.epoch, self.seen)
            != (other.role, other.since, other.epoch, other.seen)
            || kind(&self.admission) != kind(&other.admission)
            || (self.health, self.eligibility, self.operation, self.alert)
                != (
                    other.health,
                    other.eligibility,
                    other.operation,
                    other.alert,
                )
            || (self.may_write, self.limit_share_percent, self.num_links)
                != (other.may_write, other.limit_share_percent, other.num_links)
            || self.gates != other.gates
            || self.overlays != other.overlays
            || !Arc::ptr_eq(&self.history, &other.history)
            || peer(self) != peer(other)
    }
}

/// What is known of the peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerView {
    /// Its name.
    pub node: String,
    /// Names its process.
    pub boot: u64,
    /// Its role, as it last said.
    pub role: Role,
    /// The epoch in which it serves, or the highest that it knows to have served.
    pub epoch: Epoch,
    /// What its gates say together.
    pub eligibility: Eligibility,
    /// Its engine's health.
    pub health: Health,
    /// It said farewell.
    pub leaving: bool,
    /// Its gates that do not pass; bounded.
    pub gates: Vec<Gate>,
    /// What it told of itself.
    pub facts: PeerFacts,
    /// When it was last heard, on this node's clock.
    pub last_heard: BootTime,
}

/// What a node tells of itself beside what the machine needs; strings are cut to 96 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// The served model's name.
    pub model: String,
    /// Content hash of the model; empty while none is loaded.
    pub model_hash: String,
    /// Equal where two engines compute equal bits.
    pub numerics_id: String,
    /// Hash of what must be configured equally on both nodes.
    pub config_hash: String,
    /// Where clients reach the node's HTTP; for status.
    pub http_address: String,
    /// Steps of its engine, as progress.
    pub num_steps: u64,
    /// Sequences that run.
    pub num_running: u32,
    /// Sequences that wait.
    pub num_waiting: u32,
    /// KV blocks in use, in thousandths.
    pub kv_used_permille: u16,
}

/// The longest string in [`PeerFacts`], in bytes.
const MAX_FACT_BYTES: usize = 96;

impl PeerFacts {
    pub(crate) fn bounded(mut self) -> Self {
        for text in [
            &mut self.model,
            &mut self.model_hash,
            &mut self.numerics_id,
            &mut self.config_hash,
            &mut self.http_address,
        ] {
            cut(text, MAX_FACT_BYTES);
        }
        self
    }
}

/// Cuts `text` to at most `max` bytes, at a character's border.
pub(crate) fn cut(text: &mut String, max: usize) {
    let mut at = max.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Boot-time clock, in milliseconds.
    pub boot_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: HistoryEvent,
}

/// What is worth remembering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum HistoryEvent {
    /// The role changed.
    RoleChanged {
        /// The role before.
        from: Role,
        /// The role now.
        to: Role,
        /// The epoch.
        epoch: u64,
        /// Why, in words.
        cause: String,
        /// The operation behind it, 32 hexadecimal digits.
        operation: Option<String>,
        /// Why the operator asked for it.
        reason: String,
        /// Who asked for it.
        requested_by: String,
    },
    /// Operators were told something.
    Alert {
        /// Its name.
        name: String,
        /// In words.
        text: String,
    },
    /// An operator's command ended, or was refused.
    Command {
        /// The operation's id, 32 hexadecimal digits.
        operation: String,
        /// What was asked.
        command: String,
        /// Why.
        reason: String,
        /// By whom.
        requested_by: String,
        /// How it ended.
        outcome: String,
    },
}

/// What the drivers counted since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PairCounters {
    /// Heartbeats handed to the machine.
    pub num_heartbeats_heard: u64,
    /// Heartbeats that came twice, over another link or plane.
    pub num_duplicate_heartbeats: u64,
    /// Messages that looked like a replay of older ones.
    pub num_replays: u64,
    /// Datagrams and handshakes without the right key, or that do not decode.
    pub num_unauthenticated: u64,
    /// Connections closed because too many handshakes ran.
    pub num_refused_handshakes: u64,
    /// Links that closed without a farewell.
    pub num_links_lost: u64,
    /// Audit and history records that were lost: the disk was too slow, or failed.
    pub num_lost_records: u64,
    /// Attempts of hooks that failed.
    pub num_hook_failures: u64,
    /// How often this node began to serve.
    pub num_promotions: u64,
    /// How often the peer took over what this node served, because it was asked to.
    pub num_handovers: u64,
    /// How often this node stopped serving by itself.
    pub num_fencings: u64,
}
