//! Two nodes of a pair in one process, over loopback: the drivers with real sockets and files.
//!
//! Timers are short, and every wait is bounded by minutes, so that a busy machine fails nothing.

mod links;
mod nodes;
mod partition;
mod relay;
mod roles;
mod security;
mod strict;
mod tls;
mod traffic;
