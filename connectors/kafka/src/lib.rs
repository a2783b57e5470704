//! Kafka in and out of a job, exactly once.
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
//! # In
//!
//! A topic's partitions are the splits of a [`KafkaSource`], named by their numbers. All readers of a process share one
//! client, with a queue of its own for each. Partitions are assigned by hand and read
//! from the offsets that the engine names; only committed records are delivered, and an offset that is gone is an error
//! that names topic, partition, and what was wanted and is left. Lost connections and moved leaders are healed inside,
//! and logged. A split's identity is the topic's id, so that a topic that was deleted and recreated is noticed, also
//! under a reader; brokers before Kafka 2.8 know no ids, and there it is empty. Committed offsets are reported under a
//! consumer group ([`KafkaOptions::group`]), for tools that watch lag; they are never read. A partition without a leader is
//! unavailable ([`fluvial_connector::Availability`]), and the others are read meanwhile.
//!
//! # Out
//!
//! All outputs on the same brokers share one transaction per process and turn, of the transactional id
//! `{job}-{incarnation}-{process}-{turn}`. A key goes to the partition that Java's default partitioner chooses
//! ([`partition_of`]). Topics that do not exist are created with the partitions, replicas and settings that the options
//! say, those of [`Kafka::upsert`] with `cleanup.policy=compact` and those of [`Kafka::append`] with `delete`. Topics
//! that exist are used as they are, with a warning where their settings lose what is kept in them: retention of an
//! upsert output or of the progress topic, compaction of an append output. The identity of an output, and of the
//! progress topic, is the topic's id.
//!
//! What an output record carries:
//!
//! | part | content |
//! | --- | --- |
//! | key, value | what the job's format makes of them; no value deletes the key of an upsert output |
//! | partition | by the key's bytes, as Java's default partitioner; an output's number of partitions never changes |
//! | offset | ascending within a partition, with gaps: the markers of transactions take offsets too |
//! | timestamp | when the record was sent, so records of one tick differ, and a record that is written again after a failure has another; with [`KafkaOptions::tick_header`] its tick, which stays the same |
//! | headers | none; with [`KafkaOptions::tick_header`] `fluvial-tick`, the tick in decimal digits |
//!
//! The tick is not everywhere by default because librdkafka takes neither timestamps nor headers in batches, and one call a
//! record costs about three times the CPU of handing over batches (0.95 against 0.33 seconds per million records). Records of
//! aborted transactions are in the topic until it is compacted or they expire: consumers need
//! `isolation.level=read_committed`, which is not the default.
//!
//! A transaction holds records and, after their delivery reports, progress. Any request of it that ends without an
//! answer makes its outcome unknown, also where librdkafka sent it again and was answered then: the first may still be
//! on its way, and would hit the next transaction of the same epoch.
//!
//! # The progress topic
//!
//! `{job}.fluvial-progress` ([`progress_topic`]), four partitions, compacted, made if it is missing. A record's key is
//! the output partition, and its value what that is committed through, both as JSON:
//!
//! ```text
//! key    {"output":"revenue","partition":3}
//! value  {"version":1,"begin":1201,"incarnation":"…","generation":4,"tick":1790000000123,
//!         "position":"complete","digest":"…","end":1260,"ticks":[{"tick":1790000000123,"end":1260}]}
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `version` | of this layout: 1. A reader refuses a newer one |
//! | `begin` | `end` of the progress before: records from here to `end` have their ticks in `ticks` |
//! | `incarnation`, `generation` | the job, and the run of it that wrote |
//! | `tick` | the partition is committed through this tick |
//! | `position` | `"complete"`, or `{"records":n}`: only the first n records of the partition's output at `tick` are |
//! | `digest` | the running digest of the partition's output |
//! | `end` | the offset after the last record |
//! | `ticks` | where the records of each tick end (`end` is the offset after the last), ascending |
//!
//! All progress of a process goes to one partition of the topic, `slot % partitions`; after a change of processes a key
//! is in several, and the greatest `(tick, position, generation)` is the newest. A record whose key is not of this form is
//! none (a transaction touches its partition with `{"slot":n}` and no value before the first record, so that the broker
//! knows of it in time). [`CutReader`] puts outputs and progress together; who reads outputs alone can have each
//! record's tick with it ([`KafkaOptions::tick_header`]).
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
