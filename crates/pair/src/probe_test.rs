//! Tests of probes.
