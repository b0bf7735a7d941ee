//! testkit: see docs/ARCHITECTURE.md.
