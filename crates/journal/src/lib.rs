//! The journal: what each request has received so far, and how to go on from there.
//!
//! A record holds what a `Generate` holds and the tokens delivered since, choice by choice. From it
//! comes the `Generate` that continues the request on any engine of the same model. Whatever else
//! a stream consists of (detokenizer, stop strings, a grammar, parsers of tools and reasoning) is a
//! function of the delivered ids: who holds such state keeps it, and who lost it pushes the ids
//! again. The identity of the answer on the wire stays with whoever writes it.
//!
//! Invariant: counters are absolute (from the request's start, never from an attempt's), and the
//! bytes that the journal says it holds are those of the records alive.
#![forbid(unsafe_code)]

mod budget;
mod choice;
mod record;
#[cfg(test)]
mod record_test;

pub use budget::{Journal, JournalConfig};
pub use choice::ChoiceStart;
pub use record::{JobParams, NotResumable, Origin, RequestRecord};
