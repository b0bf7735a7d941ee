//! What the server says about itself: readiness, and the body of `/ha/status`.
//!
//! Invariant: it is true. Every value is read from the state it describes, when it is asked for.

use serde::Serialize;

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
    /// `primary-solo` for a node without a peer; `starting`, `draining` and `failed` when it does
    /// not admit requests for that reason.
    pub role: &'static str,
    /// Epoch of the pair; 0 without a peer.
    pub epoch: u64,
    /// How promotion is decided; `available` without a lease store.
    pub mode: &'static str,
    /// The engines of this node.
    pub engines: Vec<EngineStatus>,
    /// Its GPUs.
    pub gpus: Vec<GpuStatus>,
    /// Whether answers come from something other than the main model.
    pub degraded: bool,
    /// Why the node is not ready, or degraded.
    pub reasons: Vec<String>,
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
