//! text: see docs/ARCHITECTURE.md.
