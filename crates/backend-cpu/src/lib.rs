//! backend-cpu: see docs/ARCHITECTURE.md.
