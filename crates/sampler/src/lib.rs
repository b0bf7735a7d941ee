//! sampler: see docs/ARCHITECTURE.md.
