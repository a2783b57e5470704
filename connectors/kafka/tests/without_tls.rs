//! A build without TLS, which the README begins with. The other build is the one that `tests/tests/secured.rs` is run with.
#![cfg(not(feature = "tls"))]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fluvial_connector::{ErrorKind, Source as _};
use fluvial_kafka::{KafkaOptions, Setting};

#[test]
fn what_is_not_built_in_is_told_with_what_to_switch_on() {
    for (name, value) in [
        ("security.protocol", "ssl"),
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", "/etc/ssl/ca.pem"),
        ("sasl.oauthbearer.config", "principal=me"),
    ] {
        let options = KafkaOptions { settings: vec![Setting::new(name, value)], ..KafkaOptions::new("localhost:1") };
        let error = options.connect().err().unwrap();
        assert_eq!(error.kind, ErrorKind::Configuration);
        let error = error.to_string();
        for part in [&format!("-X {name}"), "built without TLS", "feature `tls` of fluvial-kafka", "libssl-dev"] {
            assert!(error.contains(part), "{name}: {error}");
        }
    }
    let scram = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "a")];
    let mut settings = scram.map(|(name, value)| Setting::new(name, value)).to_vec();
    settings.push(Setting::new("sasl.password", "b"));
    let kafka = KafkaOptions { settings, ..KafkaOptions::new("localhost:1") }.connect().unwrap();
    let error = kafka.source("orders").splits(Duration::from_secs(60)).err().unwrap().to_string();
    assert!(error.contains("SCRAM-SHA-256") && error.contains("feature `tls`"), "{error}");
}
