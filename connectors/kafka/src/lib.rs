//! The Kafka connector: topics as sources and outputs of a job, with exactly-once semantics.
//!
//! ```no_run
//! use fluvial_connector::{Output, Source};
//! use fluvial_kafka::KafkaOptions;
//!
//! let kafka = KafkaOptions::new("localhost:9092").connect()?;
//! let orders = kafka.source("orders");
//! let revenue = kafka.upsert("revenue");
//! # Ok::<(), fluvial_connector::Error>(())
//! ```
//!
//! # Sources
//!
//! The partitions of a topic are the splits of a [`KafkaSource`], named by their numbers. All readers of a process share one
//! client, in which each reader has its own queue. Partitions are assigned manually and read from the offsets that the engine
//! gives. Only committed records are delivered. An offset that no longer exists is an error that names topic, partition, the
//! requested offset and those that are left. The connector recovers from lost connections and moved leaders, and logs them. A
//! split's identity is the topic's id, so that a topic that was deleted and recreated is detected, even while it is read; it is
//! empty for brokers before Kafka 2.8, which have no topic ids. Committed offsets are reported under a consumer group
//! ([`KafkaOptions::group`]) for tools that monitor lag, and are never read. A partition without a leader is unavailable
//! ([`fluvial_connector::Availability`]); the others are read meanwhile.
//!
//! # Outputs
//!
//! Each process has two producers, which take turns, with the transactional ids `{job}-{incarnation}-{process}-{turn}`. All
//! outputs on the same brokers share their transactions. A key is written to the partition that Java's default partitioner
//! chooses ([`partition_of`]). Topics that do not exist are created with the partitions, replicas and settings that the options
//! give: those of [`Kafka::upsert`] with `cleanup.policy=compact`, those of [`Kafka::append`] with `delete`. Existing topics are
//! used as they are. A warning is logged if their settings would lose data: retention of an upsert output or of the progress
//! topic, compaction of an append output. The identity of an output, and of the progress topic, is the topic's id.
//!
//! An output record consists of:
//!
//! | part | content |
//! | --- | --- |
//! | key, value | as the job's format encodes them; a record without value deletes the key of an upsert output |
//! | partition | chosen by the key's bytes, like Java's default partitioner; an output's number of partitions never changes |
//! | offset | ascending within a partition, with gaps, because the control markers of transactions take offsets too |
//! | timestamp | the time of sending. Records of one tick therefore have different timestamps, and a record that is written again after a failure has another one. With [`KafkaOptions::tick_header`] it is the tick, which never changes |
//! | headers | none; with [`KafkaOptions::tick_header`] `fluvial-tick`, the tick in decimal digits |
//!
//! Records do not have their tick by default, because librdkafka accepts neither timestamps nor headers in batches, and one call
//! for each record costs about three times the CPU of batches (0.95 instead of 0.33 seconds per million records). Records of
//! aborted transactions stay in the topic until it is compacted or they expire, so consumers must set
//! `isolation.level=read_committed`, which is not the default.
//!
//! A transaction contains records and, after their delivery reports, progress. If any request of it gets no answer, its outcome
//! is unknown, even if librdkafka repeats the request and that is answered: the first request may still be in flight, and would
//! then apply to the next transaction of the same epoch.
//!
//! # The progress topic
//!
//! The progress topic of a job is `{job}.fluvial-progress` ([`progress_topic`]). It is compacted and has four partitions; the job
//! creates it if it does not exist. The key of a record is an output partition, and its value says through which tick that
//! partition is committed, both as JSON:
//!
//! ```text
//! key    {"output":"revenue","partition":3}
//! value  {"version":1,"incarnation":"…","generation":4,"tick":1790000000123,"position":"complete",
//!         "digest":"…","begin":1201,"end":1260,"ticks":[{"tick":1790000000123,"end":1260}]}
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `version` | the version of this format, 1. A reader refuses newer versions |
//! | `begin` | the `end` of the previous progress; `ticks` has the ticks of the records from here to `end` |
//! | `incarnation`, `generation` | the incarnation of the job, and the generation that wrote the record |
//! | `tick` | the partition is committed through this tick |
//! | `position` | `"complete"`, or `{"records":n}` if only the first n records of the partition's output at `tick` are committed |
//! | `digest` | the running digest of the partition's output |
//! | `end` | the offset after the last record |
//! | `ticks` | where the records of each tick end (`end` is the offset after the last), ascending |
//!
//! A process writes all its progress to one partition of the topic, `slot % partitions`, where the slot is the number of the
//! process. After a change of the number of processes, a key may be in several partitions; the record with the greatest
//! `(tick, position, generation)` is the newest. Records with keys of another form are no progress: a transaction first writes a
//! record with the key `{"slot":n}` and no value, so that the broker adds the partition to the transaction in time.
//! [`CutReader`] combines outputs with their progress. For readers of single outputs, [`KafkaOptions::tick_header`] adds its tick
//! to each record.
//!
//! # Connecting to a secured or managed Kafka
//!
//! The feature `tls` of this crate adds TLS and, of SASL, the mechanisms SCRAM and OAUTHBEARER; it needs OpenSSL's headers
//! when building (Debian: `libssl-dev` and `pkg-config`) and its library when running. `tls-vendored` builds OpenSSL from
//! source and links it in, which needs perl and takes minutes. Without either there are plain connections and SASL/PLAIN.
//!
//! Settings come from the properties file of `--kafka-config` ([`KafkaOptions::kafka_config`]) and from `-X`, which wins;
//! both hold for every client that a job opens. A managed Kafka with API keys, such as Confluent Cloud, whose file for
//! Java can be used as it was downloaded:
//!
//! ```properties
//! bootstrap.servers=pkc-12345.eu-central-1.aws.confluent.cloud:9092
//! security.protocol=SASL_SSL
//! sasl.mechanism=PLAIN
//! sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
//!     username="${env:KAFKA_KEY}" password="${env:KAFKA_SECRET}";
//! ```
//!
//! SCRAM, such as Amazon MSK with users from its Secrets Manager. Where the brokers' certificates are signed by an
//! authority that the system knows, `ssl.ca.location` can be left out:
//!
//! ```properties
//! bootstrap.servers=b-1.example.kafka.eu-central-1.amazonaws.com:9096
//! security.protocol=SASL_SSL
//! sasl.mechanism=SCRAM-SHA-512
//! sasl.username=orders
//! sasl.password=${file:/etc/fluvial/secrets.properties:kafka.password}
//! ```
//!
//! Client certificates (mTLS), as PEM files:
//!
//! ```properties
//! bootstrap.servers=kafka.example.org:9093
//! security.protocol=SSL
//! ssl.ca.location=/etc/kafka/ca.pem
//! ssl.certificate.location=/etc/kafka/client.pem
//! ssl.key.location=/etc/kafka/client.key
//! ```
//!
//! OAUTHBEARER, with a token that another program keeps in a file: a projected volume of Kubernetes, or a sidecar that asks
//! an identity provider. The URL is that of Kafka's own clients; tokens are not fetched over HTTP:
//!
//! ```properties
//! security.protocol=SASL_SSL
//! sasl.mechanism=OAUTHBEARER
//! sasl.oauthbearer.token.endpoint.url=file:///var/run/secrets/kafka/token
//! ```
//!
//! The file is read again after 80 % of the token's life, and each minute where the token is no JSON Web Token. For tests,
//! `enable.sasl.oauthbearer.unsecure.jwt=true` with `sasl.oauthbearer.config=principal=NAME` makes unsigned tokens.
//!
//! **Java's names.** `sasl.jaas.config` of the plain and the SCRAM login module becomes user name and password. A
//! `ssl.truststore.location` that is PEM becomes `ssl.ca.location`; a `ssl.keystore.location` may be PKCS#12 or PEM with
//! key and certificates; `ssl.truststore.certificates`, `ssl.keystore.key` and `ssl.keystore.certificate.chain` become
//! librdkafka's `….pem`. JKS is refused with the command that converts it. Another setting that begins with `ssl.`,
//! `sasl.` or `security.` and that librdkafka does not have is an error; any other is named in the log and not used, as is
//! one that the engine decides itself, such as `group.id`.
//!
//! **Secrets** need not stand in the file or on the command line, which other users of the host can read: values may hold
//! `${env:NAME}`, `${file:PATH:KEY}` (a value of another properties file) and `${dir:PATH:FILE}` (the text of a file),
//! which are Kafka's config providers. No value of a setting is part of an error or a log line.
//!
//! **Renewal.** librdkafka reads certificates and keys when a client is made, and Fluvial reads the file and what it refers
//! to when a process starts. So what is renewed on disk is used by every client that is made later, and by all from the
//! next generation on; connections that stand go on with what they have. Tokens are renewed under running clients.
//!
//! **Permissions** that a job needs where the cluster has access control lists: *Read* and *Describe* on its inputs;
//! *Read*, *Write*, *Describe* and *DescribeConfigs* on its outputs and on its progress topic, with *Create* where it is
//! to make them; *Write* and *Describe* on its transactional ids; and with [`KafkaOptions::group`], *Read* on that group.
//!
//! # Connections
//!
//! A NAT, a firewall or a load balancer may forget a connection without telling either end. So the connections of every
//! client are probed when they have been idle for a second, and given up when the other host has acknowledged nothing for
//! three. `-X socket.keepalive.enable=false` leaves that to the operating system. A request waits 30 s for its answer
//! (`socket.timeout.ms`) and a new connection 10 s (`socket.connection.setup.timeout.ms`).
//!
//! # What brokers call it
//!
//! Client ids are `{job}-{process}-{role}`, with the roles `reader`, `writer-0`, `writer-1`, `questions`,
//! `progress` and `read-back`: brokers' logs, metrics and quotas tell clients apart by them. `-X client.id=…` gives all
//! clients that one id instead. Access control lists need the job's name as a prefix of transactional ids (`--transactional-id
//! {job}- --resource-pattern-type prefixed`).
//!
//! # Guarantees asked of the cluster
//!
//! Kafka 3.6 or newer (older ones can leave hanging transactions), `acks=all`, and `min.insync.replicas` above one
//! where records must outlive a broker.

mod access;
mod clocks;
mod config;
mod cut;
mod failure;
mod flight;
mod identity;
mod kafka;
mod limits;
mod native;
mod options;
mod output;
mod partitioner;
mod permission;
mod progress;
mod reading;
mod refusal;
mod settings;
mod sink;
mod source;
mod transactor;
mod upkeep;
mod writers;

pub use config::Setting;
pub use cut::{Cut, CutReader, CutRecord};
pub use kafka::Kafka;
pub use options::KafkaOptions;
pub use output::KafkaOutput;
pub use partitioner::partition_of;
pub use progress::progress_topic;
pub use source::KafkaSource;
