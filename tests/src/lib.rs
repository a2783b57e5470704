//! The system from outside: what its tests need and no user does.
//!
//! Everything here sees Fluvial as a user's machine does: job binaries that run as processes, brokers that are reached
//! by a socket, clients that are not ours. Nothing here looks inside the engine.
//!
//! | module | what |
//! | --- | --- |
//! | [`apache`] | Apache Kafka itself, started on free ports in a folder of its own |
//! | [`campaign`] | jobs that are run, killed, run again, and compared with what must be there |
//! | [`child`] | processes that end with the test, however it ends |
//! | [`client`] | producing and reading with a plain rdkafka client |
//! | [`conformance`] | what any broker must do, as observations that can be compared |
//! | [`foreign`] | kcat and a Python client |
//! | [`history`] | what a job has emitted, and whether it is right |
//! | [`job`] | the workspace's job binaries, run as processes |
//! | [`journal`] | a kept journal, as anyone may read it |
//! | [`stage`] | a job on an embedded broker, for what a person does with it |
//! | [`workspace`] | where the sources and the built things lie |

pub mod apache;
pub mod campaign;
pub mod child;
pub mod client;
pub mod conformance;
pub mod foreign;
pub mod history;
pub mod job;
pub mod journal;
pub mod stage;
pub mod workspace;
