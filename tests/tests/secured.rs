//! A Kafka that asks for TLS, SASL or both, and lets a job do only what it was allowed: every way in works, and what keeps a
//! job out is said within seconds, with what to change.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use fluvial_kafka::KafkaOptions;
use fluvial_tests::apache::certificates::{Authority, Identity, Validity};
use fluvial_tests::apache::secured::{Listener, PASSWORD, USER};
use fluvial_tests::apache::{ApacheKafka, Options, SURVIVES_A_KILL};
use fluvial_tests::campaign::{Blow, Ground, Plan, Siege};
use fluvial_tests::child::Folder;
use fluvial_tests::client::Endpoint;
use fluvial_tests::http::{free_address, get};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

/// How soon a job must say what keeps it out.
const SOON: Duration = Duration::from_secs(10);

fn kafka() -> &'static ApacheKafka {
    static SHARED: OnceLock<ApacheKafka> = OnceLock::new();
    SHARED.get_or_init(|| {
        // Sessions end with the tokens that began them.
        let sessions = ("listener.name.sasltls.oauthbearer.connections.max.reauth.ms", "3600000");
        let properties = vec![(sessions.0.to_owned(), sessions.1.to_owned())];
        let kafka = ApacheKafka::start(&Options { secured: true, properties, ..Options::default() }).unwrap();
        kafka.allow("orders").unwrap();
        kafka
    })
}

/// A stage whose jobs come by a listener with a file of these lines; the test itself comes by the plain listener.
struct Guest {
    stage: Stage,
    // Dropped last: it holds what the job reads.
    folder: Folder,
}

impl Guest {
    fn new(address: &str, lines: &[&str]) -> Self {
        let folder = Folder::new("fluvial-secured-").unwrap();
        let this = |stage| Self { stage, folder };
        let stage = Stage::on(&Endpoint::new(kafka().bootstrap()), address, Subject::Orders, 2).unwrap();
        let this = this(stage);
        let file = this.write("kafka.properties", &lines.join("\n"));
        Self { stage: this.stage.with_options(["--kafka-config".into(), file.into_os_string()]), folder: this.folder }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn goes_through(&self) {
        self.stage.feed(0..50).unwrap();
        self.stage.complete("--stop-at-end").unwrap();
        assert_eq!(self.stage.table().unwrap(), self.stage.table_of_input().unwrap());
    }

    /// Checks that a run ends soon, with exit code 2 and one line that says these.
    #[track_caller]
    fn is_turned_away(&self, parts: &[&str]) {
        self.ends_soon(2, parts);
    }

    /// As [`Guest::is_turned_away`], with this exit code: 6 where an outage of the source would look the same.
    #[track_caller]
    fn ends_soon(&self, code: i32, parts: &[&str]) {
        let finished = self.stage.start("").unwrap().finish(MOST).unwrap();
        finished.failed_with(code, parts).unwrap();
        assert!(finished.took < SOON, "{:?}: {}", finished.took, finished.said);
        for secret in [PASSWORD, "hunter2"] {
            assert!(!finished.said.contains(secret), "{}", finished.said);
        }
    }
}

fn trusting(authority: &Path) -> String {
    format!("ssl.ca.location={}", authority.display())
}

fn trusted() -> String {
    trusting(&kafka().secured().authority.certificate())
}

fn login(module: &str, password: &str) -> String {
    format!(
        "sasl.jaas.config=org.apache.kafka.common.security.{module} required username=\"{USER}\" password=\"{password}\";"
    )
}

const PLAIN: &str = "plain.PlainLoginModule";
const SCRAM: &str = "scram.ScramLoginModule";
const OAUTH: &str = "sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required";

/// A token that nobody signed, for so many seconds from now on.
fn token(user: &str, seconds: i64) -> String {
    let encode = |json: String| {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let digits = json.as_bytes().chunks(3).flat_map(|chunk| {
            let group = chunk.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..=chunk.len()).map(move |digit| DIGITS[(group >> (18 - 6 * digit) & 63) as usize] as char)
        });
        digits.collect::<String>()
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let claims = format!(r#"{{"sub":"{user}","iat":{},"exp":{}}}"#, now - 100, now + seconds);
    format!("{}.{}.", encode(r#"{"alg":"none"}"#.to_owned()), encode(claims))
}

#[test]
fn passwords_and_tokens_let_a_job_in() {
    let (trusted, at) = (trusted(), kafka().at(Listener::SaslTls));
    let by = |mechanism: &str, login: &str| {
        let mechanism = format!("sasl.mechanism={mechanism}");
        Guest::new(at, &["security.protocol=SASL_SSL", &trusted, &mechanism, login]).goes_through();
    };
    by("PLAIN", &login(PLAIN, PASSWORD));
    by("SCRAM-SHA-256", &login(SCRAM, PASSWORD));
    by("OAUTHBEARER", &format!("{OAUTH} unsecuredLoginStringClaim_sub=\"{USER}\";"));
    // A password of librdkafka's own name, from a file of its own.
    let folder = Folder::new("fluvial-secret-").unwrap();
    fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
    let password = format!("sasl.username={USER}\nsasl.password=${{dir:{}:password}}", folder.path().display());
    by("SCRAM-SHA-512", &password);
    fs::write(folder.path().join("token"), token(USER, 3600)).unwrap();
    by("OAUTHBEARER", &format!("sasl.oauthbearer.token.endpoint.url=file://{}/token", folder.path().display()));
}

#[test]
fn certificates_let_a_job_in_and_a_renewed_one_is_used_by_the_next_generation() {
    let (kafka, client) = (kafka(), &kafka().secured().client);
    let (trusted, at) = (trusted(), kafka.at(Listener::Tls));
    let keystore = client.pkcs12("changeit").unwrap();
    let keystore = format!("ssl.keystore.location={}", keystore.display());
    Guest::new(at, &["security.protocol=SSL", &trusted, &keystore, "ssl.keystore.password=changeit"]).goes_through();

    let both = |identity: &Identity| {
        fs::read_to_string(&identity.key).unwrap() + &fs::read_to_string(&identity.certificate).unwrap()
    };
    let guest = Guest::new(at, &[]);
    let pem = guest.write("client.pem", &both(client));
    let lines = ["security.protocol=SSL", &trusted, &format!("ssl.keystore.location={}", pem.display())];
    guest.write("kafka.properties", &lines.join("\n"));
    let job = guest.stage.start("").unwrap();
    guest.stage.feed(0..50).unwrap();
    guest.stage.wait_until_caught_up(&job).unwrap();
    // The new certificate has another name, and the old one may do nothing any more.
    let new = kafka.secured().authority.sign("renewed", "", Validity::Valid).unwrap();
    let user = |change: &str, user: &str| {
        let topics = format!("--resource-pattern-type prefixed --topic {}", guest.stage.name());
        kafka.acl(&format!("{change} --allow-principal User:{user} {topics} --operation All")).unwrap();
    };
    user("--add", "renewed");
    kafka.acl("--add --allow-principal User:renewed --transactional-id * --operation All").unwrap();
    guest.write("client.pem", &both(&new));
    job.signal_peer(0, rustix::process::Signal::KILL).unwrap();
    let topics = format!("--resource-pattern-type prefixed --topic {}", guest.stage.name());
    kafka.acl(&format!("--add --deny-principal User:{USER} {topics} --operation Read --operation Write")).unwrap();
    guest.stage.feed(50..100).unwrap();
    guest.stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
}

#[test]
fn a_token_is_read_again_before_it_expires() {
    let (trusted, at) = (trusted(), kafka().at(Listener::SaslTls));
    let guest = Guest::new(at, &[]);
    let file = guest.write("token", &token(USER, 12));
    let url = format!("sasl.oauthbearer.token.endpoint.url=file://{}", file.display());
    let lines = ["security.protocol=SASL_SSL", "sasl.mechanism=OAUTHBEARER", &trusted, &url];
    guest.write("kafka.properties", &lines.join("\n"));
    let job = guest.stage.start("").unwrap();
    guest.stage.feed(0..50).unwrap();
    guest.stage.wait_until_caught_up(&job).unwrap();
    // Kafka ends a session whose token has expired; the job authenticates again before, with the new one.
    guest.write("token", &token(USER, 3600));
    std::thread::sleep(Duration::from_secs(13));
    guest.stage.feed(50..100).unwrap();
    guest.stage.wait_until_caught_up(&job).unwrap();
    let finished = job.terminate(MOST).unwrap();
    assert_eq!(finished.code, Some(0));
    assert!(!finished.said.contains("starting the next"), "{}", finished.said);
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_by_what_is_wrong_with_it() {
    let kafka = kafka();
    let folder = Folder::new("fluvial-authority-").unwrap();
    let other = Authority::new(folder.path().join("other")).unwrap();
    let (other, trusted) = (trusting(&other.certificate()), trusted());
    let check = |listener, trusting: &str, parts: &[&str]| {
        let lines = ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", &login(PLAIN, PASSWORD), trusting];
        Guest::new(kafka.at(listener), &lines).is_turned_away(parts);
    };
    check(Listener::SaslTls, &other, &["an authority that this client does not trust", "ssl.ca.location"]);
    check(Listener::OtherHost, &trusted, &["is for another host", "ssl.endpoint.identification.algorithm"]);
    check(Listener::Expired, &trusted, &["has expired"]);
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (kafka, trusted) = (kafka(), trusted());
    let check = |listener, lines: &[&str], parts: &[&str]| {
        Guest::new(kafka.at(listener), &[lines, &[&trusted]].concat()).is_turned_away(parts);
    };
    let (tls, plain) = ("security.protocol=SASL_SSL", "security.protocol=SASL_PLAINTEXT");
    let wrong = "Authentication failed";
    check(Listener::SaslTls, &[tls, "sasl.mechanism=PLAIN", &login(PLAIN, "hunter2")], &[wrong]);
    check(Listener::SaslTls, &[tls, "sasl.mechanism=SCRAM-SHA-256", &login(SCRAM, "hunter2")], &["uthentication"]);
    check(
        Listener::Sasl,
        &[plain, "sasl.mechanism=SCRAM-SHA-256", &login(SCRAM, PASSWORD)],
        &["SCRAM-SHA-256", "PLAIN"],
    );
    let foreign = [tls, "sasl.mechanism=GSSAPI-2", "sasl.username=a", "sasl.password=hunter2"];
    check(Listener::SaslTls, &foreign, &["GSSAPI-2", "known are PLAIN"]);
    let expired = Guest::new(kafka.at(Listener::SaslTls), &[]);
    let file = expired.write("token", &token(USER, -5));
    let url = format!("sasl.oauthbearer.token.endpoint.url=file://{}", file.display());
    expired.write("kafka.properties", &[tls, "sasl.mechanism=OAUTHBEARER", &trusted, &url].join("\n"));
    expired.is_turned_away(&["has expired", file.to_str().unwrap()]);
    let nobody = Guest::new(kafka.at(Listener::Tls), &["security.protocol=SSL", &trusted]);
    nobody.ends_soon(6, &["requires a client certificate"]);
}

#[test]
fn a_check_and_a_copy_that_is_not_ready_say_that_a_password_is_wrong_and_change_nothing() {
    let wrong = ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", &trusted(), &login(PLAIN, "hunter2")];
    let guest = Guest::new(kafka().at(Listener::SaslTls), &wrong);
    let says = |said: &str| {
        assert!(said.contains("Authentication failed") && !said.contains("hunter2"), "{said}");
    };
    let unchanged = || {
        assert!(!guest.stage.store().join(guest.stage.name()).join("journal").exists(), "there is a journal");
        for output in guest.stage.outputs() {
            assert_eq!(guest.stage.endpoint().partitions(&output).unwrap(), 0, "there is an output");
        }
    };
    guest.stage.feed(0..50).unwrap();
    let mut args = vec!["check".into()];
    args.extend(guest.stage.common_args());
    let checked = guest.stage.start_with(args).unwrap().finish(MOST).unwrap();
    assert_eq!(checked.code, Some(2), "{}", checked.said);
    for part in ["source 'orders': ", "sink: "] {
        says(checked.said.lines().find(|line| line.starts_with(part)).expect(&checked.said));
    }
    assert!(!checked.said.lines().any(|line| line == "ready"), "{}", checked.said);
    assert!(!guest.stage.store().exists(), "a check has made a store");
    unchanged();

    let http = free_address().unwrap();
    let copy = guest.stage.start(&format!("--join --listen 127.0.0.1:0 --http {http}")).unwrap();
    let begun = Instant::now();
    let (status, said) = loop {
        match get(http, "/readyz") {
            Ok((status, said)) if said.contains("source") => break (status, said),
            said => assert!(begun.elapsed() < MOST, "{said:?}\n{}", copy.process().log_end()),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status, 503);
    says(&said);
    assert_eq!(get(http, "/healthz").unwrap().0, 200, "a platform would kill it");
    assert!(!copy.process().log_holds("starting processes"), "it got processes");
    unchanged();
    let ended = copy.terminate(MOST).unwrap();
    assert_eq!(ended.code, Some(8), "{}", ended.said);
}

#[test]
fn a_port_that_speaks_another_protocol_is_told() {
    let (kafka, trusted) = (kafka(), trusted());
    let check = |at: &str, lines: &[&str], parts: &[&str]| {
        Guest::new(at, &[lines, &[&trusted]].concat()).ends_soon(6, parts);
    };
    let user = login(PLAIN, PASSWORD);
    let sasl = |protocol: &'static str| [protocol, "sasl.mechanism=PLAIN", &user];
    let says = |what| [what, "security.protocol"];
    check(kafka.at(Listener::Tls), &["security.protocol=PLAINTEXT"], &says("a port that expects TLS does"));
    check(
        kafka.at(Listener::SaslTls),
        &sasl("security.protocol=SASL_PLAINTEXT"),
        &says("a port that expects TLS does"),
    );
    check(kafka.bootstrap(), &["security.protocol=SSL"], &says("a port without TLS does"));
    check(kafka.at(Listener::Sasl), &sasl("security.protocol=SASL_SSL"), &says("a port without TLS does"));
    check(kafka.at(Listener::Sasl), &["security.protocol=PLAINTEXT"], &says("a port that expects SASL does"));
    check(kafka.at(Listener::SaslTls), &["security.protocol=SSL"], &says("a port that expects SASL does"));
    let plain = [&sasl("security.protocol=SASL_PLAINTEXT")[..], &[&trusted]].concat();
    Guest::new(kafka.bootstrap(), &plain).is_turned_away(&["security.protocol"]);
}

#[test]
fn consistent_cuts_are_read_by_the_same_file() {
    let guest = Guest::new(kafka().at(Listener::SaslTls), &[]);
    let file = kafka().client_properties(USER).unwrap();
    fs::copy(&file, guest.folder.path().join("kafka.properties")).unwrap();
    guest.goes_through();
    let options = KafkaOptions { brokers: None, kafka_config: Some(file), ..KafkaOptions::new("") };
    let outputs = guest.stage.outputs();
    let topics = outputs.iter().map(String::as_str);
    let mut cuts = options.connect().unwrap().cuts(guest.stage.name(), topics, MOST).unwrap();
    let mut table = BTreeMap::new();
    let expected = guest.stage.table().unwrap();
    while table != expected {
        let cut = cuts.next_cut(MOST).unwrap().expect("the cuts go to the end of the outputs");
        for record in cut.records {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let key = (record.topic.to_string(), text(record.key.unwrap_or_default()));
            match record.value {
                Some(value) => table.insert(key, text(value)),
                None => table.remove(&key),
            };
        }
    }
}

#[test]
fn kills_and_rolling_restarts_lose_nothing_by_tls() {
    let siege = |ground: &Ground, subject, plan: Plan| {
        let seed = plan.seed;
        let report = Siege::new(ground, subject, ground.fit(plan)).and_then(|siege| siege.run()).unwrap();
        println!("{report}");
        assert!(report.is_clean(), "seed {seed}: {report}");
    };
    let ground = Ground::secured(3, SURVIVES_A_KILL).unwrap();
    siege(&ground, Subject::Orders, Plan::new(11, 1));
    siege(&ground, Subject::Bank, Plan::rolling(12, Blow::RestartBroker, 3));
}
