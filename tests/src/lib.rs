//! The system from outside: what its tests need and no user does.
//!
//! Everything here sees Fluvial as a user's machine does: job binaries that run as processes, brokers that are reached
//! by a socket, clients that are not ours. Nothing here looks inside the engine. Apache Kafka itself, and processes that
//! end with the test, come from [`fluvial_kafka_apache`], a server of S3's protocol from [`fluvial_s3`].
//!
//! | module | what |
//! | --- | --- |
//! | [`browser`] | headless Chromium, for what a person does with a page |
//! | [`campaign`] | jobs that are run, killed, run again, and compared with what must be there |
//! | [`cluster`] | a cluster on several hosts with many jobs, struck while users change them |
//! | [`client`] | producing and reading with a plain rdkafka client |
//! | [`conformance`] | what any broker must do, as observations that can be compared |
//! | [`deployment`] | the deployment files, as Kubernetes, KEDA and Nomad see them |
//! | [`foreign`] | kcat and a Python client |
//! | [`group`] | copies of one job on several hosts, struck by what happens to hosts and networks |
//! | [`history`] | what a job has emitted, and whether it is right |
//! | [`hosts`] | several hosts on this machine, whose links can be cut and whose power can fail |
//! | [`http`] | what a copy serves by HTTP |
//! | [`job`] | the workspace's job binaries, run as processes |
//! | [`journal`] | a kept journal, as anyone may read it |
//! | [`processes`] | what the kernel says of processes |
//! | [`proxy`] | what stands between a job and its broker, and cuts and holds its commits |
//! | [`stage`] | a job on an embedded broker, for what a person does with it |
//! | [`subject`] | the two jobs that the tests run |

pub mod browser;
pub mod campaign;
pub mod client;
pub mod cluster;
pub mod conformance;
pub mod deployment;
pub mod foreign;
pub mod group;
pub mod history;
pub mod hosts;
pub mod http;
pub mod job;
pub mod journal;
pub mod processes;
pub mod proxy;
pub mod stage;
pub mod subject;

pub use fluvial_kafka_apache::{self as apache, child, workspace};
pub use fluvial_s3 as s3;
