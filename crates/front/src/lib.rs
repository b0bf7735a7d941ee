//! The front: everything between an HTTP request and an engine process, except HTTP itself.
//!
//! It supervises the engine, turns jobs into sequences, routes token events back, detokenizes,
//! watches stop strings, counts, and says truly what state it is in. [`Front::start`] is the way
//! in.
//!
//! Invariant: every stream it hands out ends with a finish reason or an explicit error, and every
//! sequence it sent to an engine is finished, cancelled or lost with that engine.
#![forbid(unsafe_code)]

mod admission;
mod buckets;
mod choice;
mod client;
mod config;
mod connection;
mod convictions;
mod engine_metrics;
mod engine_state;
mod entry;
mod error;
mod front;
mod gguf_text;
mod in_flight;
mod job;
mod kv_mirror;
mod launch;
mod life;
mod liveness;
mod load;
mod lone;
mod metrics;
mod model;
mod model_info;
mod pair_metrics;
#[cfg(test)]
mod pair_test;
mod pairing;
mod peer_link;
mod placement;
mod process;
mod readers;
mod relay;
mod relay_outbox;
mod reload;
mod replay;
mod replay_metrics;
mod replay_policy;
#[cfg(test)]
mod replay_test;
mod replays;
#[cfg(test)]
mod resume_props_test;
mod seeds;
mod sequences;
mod shadow;
mod shadow_plan;
mod slot;
mod standing;
mod stats_log;
mod status;
mod stream;
mod stream_replay;
mod supervisor;
mod target;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_pair;
#[cfg(test)]
mod testing_streams;
mod trail;
mod wire;

pub use config::FrontConfig;
pub use engine_state::EngineState;
pub use error::FrontError;
pub use front::{Front, FrontHandle};
pub use hotspare_model::LoadFormat;
pub use job::{ChoiceDelta, ChoiceFinish, GenerateError, GenerationJob};
pub use kv_mirror::KvMirror;
pub use launch::{ENGINE_LIFE_ENV, EngineLauncher, KV_MIRROR_ENV, LaunchedEngine, ProcessLauncher};
pub use load::{GenerationConfigSource, ModelInfo, ModelLoader, ModelOptions};
pub use model::Model;
pub use model_info::ServedModel;
pub use pairing::{Io, Operation, PairSetup, Pairing, PeerIo};
pub use shadow::ShadowMode;
pub use status::{EngineStatus, GpuStatus, NodeStatus, PairStatus, PeerStatus, Readiness};
pub use stream::GenerationStream;
