//! A simulator of a pair: two nodes around the real state machine, in a made-up world.
//!
//! Clocks drift and jump, processes stop and die, machines lose power, disks fail and lie, networks
//! lose, delay, double and cut in one direction, the lease store is slow or gone, people give
//! commands. A plan follows from its seed, a run from its plan; checkers watch true time.
//!
//! Invariant: nothing here reads a clock or a random device: a seed reproduces a run exactly.
#![forbid(unsafe_code)]

mod check;
mod clients;
mod exhaustive;
mod faults;
mod front;
mod network;
mod node;
mod pauses;
mod people;
mod plan;
mod rng;
mod run;
mod shrink;
mod world;

#[cfg(test)]
mod outage_test;
#[cfg(test)]
mod sim_test;

pub use check::Violation;
pub use exhaustive::{Bounds, Explored, explore};
pub use plan::{Bug, Fault, FaultKind, Plan};
pub use rng::Rng;
pub use run::{Report, run, run_with_trace};
pub use shrink::shrink;
