//! front: see docs/ARCHITECTURE.md.
