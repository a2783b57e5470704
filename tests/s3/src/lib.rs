//! A store that speaks S3's protocol, for tests and benchmarks, and what stands in front of it and misbehaves on request; and one
//! that speaks the protocol of Azure Blob Storage.
//!
//! ```text
//!   job ──request──► Front: counts; refuses, drops, delays, changes ──► Server: moto, in memory
//! ```
//!
//! The server is PyPI's `moto`, which honours conditional creates. It lists a few objects on each page, and the front reverses the
//! order of each page, since neither is promised.

mod azurite;
mod front;
mod message;
mod server;

pub use azurite::Azurite;
pub use front::{Fault, Front, Requests};
pub use message::Message;
pub use server::{Server, environment};
