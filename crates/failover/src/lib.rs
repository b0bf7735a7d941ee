//! The pair's state machine, pure: who serves, in which epoch, and who takes over.
//!
//! `step(settings, state, event, now)` gives the next state and a list of actions. A driver (crate
//! `pair`) feeds it heartbeats, answers and clock readings, and does what the actions say; the
//! simulator (crate `sim`) does the same with a made-up world. docs/FAILOVER.md is the
//! specification.
//!
//! Invariant: no clock, thread, file, socket or random number here; time is an argument.
#![forbid(unsafe_code)]

mod absorb;
mod action;
mod answers;
mod command;
mod commands;
mod condition;
mod diagram;
mod due;
mod effects;
mod epoch;
mod error;
mod event;
mod explain;
mod gate;
mod heartbeat;
mod lease;
mod role;
mod settings;
mod state;
mod step;
mod table;
mod time;

#[cfg(test)]
mod command_test;
#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod strict_test;
#[cfg(test)]
mod table_test;
#[cfg(test)]
mod testing;

pub use action::{Action, Alert};
pub use answers::Admission;
pub use command::{Command, Force, Obstacle, OperationId, Outcome};
pub use commands::dry_run;
pub use diagram::{mermaid, timers_table, transitions};
pub use epoch::{Epoch, EpochFile, EpochHalf};
pub use error::FailoverError;
pub use event::{Event, PortAnswer, Ticket};
pub use explain::why_not;
pub use gate::{Eligibility, Gate, Health, Verdict, eligibility};
pub use heartbeat::{Echo, Heartbeat, Promise};
pub use lease::{LeaseCall, LeaseRecord, LeaseReply};
pub use role::Role;
pub use settings::{InitialRole, Mode, Profile, Settings, Timers};
pub use state::State;
pub use step::step;
pub use table::Cause;
pub use time::BootTime;
