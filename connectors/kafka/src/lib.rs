//! Kafka in and out.
mod cut;
mod failure;
mod kafka;
mod native;
mod options;
mod output;
mod partitioner;
mod progress;
mod reading;
mod settings;
mod sink;
mod source;
mod transactor;

pub use cut::{Cut, CutReader, CutRecord};
pub use kafka::Kafka;
pub use options::KafkaOptions;
pub use output::KafkaOutput;
pub use partitioner::partition_of;
pub use progress::progress_topic;
pub use source::KafkaSource;
