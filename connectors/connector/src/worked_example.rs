//! A worked connector: a source and a sink over files, with durable writes, a lock, fencing, and recovery after a crash in
//! the middle of a commit.
//!
//! It is `examples/files.rs` of this crate (`cargo run -p fluvial-connector --example files`), and `tests/files.rs` shows
//! that it passes the [conformance kit](crate::conformance): copy both to begin a connector. It reads more of its files
//! than a connector for large ones should, and has no metrics and no settings.
//!
//! ```
#![doc = include_str!("../examples/files.rs")]
//! ```
