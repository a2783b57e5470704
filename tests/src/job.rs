//! The job binaries.
