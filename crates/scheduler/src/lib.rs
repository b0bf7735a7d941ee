//! scheduler: see docs/ARCHITECTURE.md.
