//! Tests of the epoch file.
