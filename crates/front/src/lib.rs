//! The front: everything between an HTTP request and an engine process, except HTTP itself.
//!
//! It supervises the engine, turns jobs into sequences, routes token events back, detokenizes,
//! watches stop strings, counts, and says truly what state it is in.
//!
//! Invariant: every stream it hands out ends with a finish reason or an explicit error, and every
//! sequence it sent to an engine is finished, cancelled or lost with that engine.
#![forbid(unsafe_code)]

mod job;
mod model_info;
mod status;

pub use job::{ChoiceDelta, ChoiceFinish, GenerateError, GenerationJob};
pub use model_info::ServedModel;
pub use status::{EngineStatus, GpuStatus, NodeStatus, Readiness};

// The API that the http crate uses, beside the types above. `Front` is cheap to clone.
//
// impl Front {
//     async fn generate(&self, job: GenerationJob) -> Result<GenerationStream, GenerateError>;
//     fn served_model(&self) -> &ServedModel;
//     fn text(&self) -> Option<&Arc<hotspare_text::TextModel>>;
//     fn defaults(&self) -> &GenerationDefaults;
//     fn readiness(&self) -> Readiness;
//     fn status(&self) -> NodeStatus;
//     fn metrics_text(&self) -> String;      // Prometheus text format, content type
// metrics_content_type()     fn server_load(&self) -> u64;          // requests in flight
//     fn drain(&self);                       // refuse new jobs from now on
//     fn is_draining(&self) -> bool;
// }
// impl futures::Stream for GenerationStream (Unpin, Send) {
//     type Item = Result<ChoiceDelta, GenerateError>;
// }
