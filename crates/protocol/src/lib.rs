//! protocol: see docs/ARCHITECTURE.md.
