//! The engine: what a job is written against, and what runs it.

pub mod durable;
pub mod journal;
pub mod protocol;
pub mod state;

pub use fluvial_connector as connector;
