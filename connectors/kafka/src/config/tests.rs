#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;

/// A folder of files for a test.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            std::fs::write(this.path(name), bytes).unwrap();
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What the file `kafka.properties` gives, when `DIR` in it stands for the folder.
    fn read(&self, text: &str, options: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let file = self.path("kafka.properties");
        std::fs::write(&file, text.replace("DIR", self.0.path().to_str().unwrap())).unwrap();
        let options: Vec<_> = options.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
        let given = read(Some(&file), &options).map_err(|error| error.to_string())?;
        Ok(given.into_iter().map(|(name, (value, _))| (name, value)).collect())
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What a managed Kafka offers its users for download.
const MANAGED: &str = "\
# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-1.example.org:9092
security.protocol=SASL_SSL
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='KEY' password='S3;C\\\\'RET';
sasl.mechanism=PLAIN
client.dns.lookup=use_all_dns_ips
session.timeout.ms=45000
acks=all
key.deserializer=org.apache.kafka.common.serialization.StringDeserializer
schema.registry.url=https://example.org
basic.auth.user.info=a:b
";

#[test]
fn a_file_of_javas_clients_is_translated() {
    let expected = pairs(&[
        ("bootstrap.servers", "pkc-1.example.org:9092"),
        ("client.dns.lookup", "use_all_dns_ips"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.password", "S3;C'RET"),
        ("sasl.username", "KEY"),
        ("security.protocol", "SASL_SSL"),
        ("session.timeout.ms", "45000"),
    ]);
    assert_eq!(Files::new(&[]).read(MANAGED, &[]).unwrap(), expected);
}

#[test]
fn what_stands_on_the_command_line_wins_also_under_the_other_name() {
    let text = "sasl.mechanism=PLAIN\nlinger.ms=1\n";
    let given = Files::new(&[]).read(text, &[("sasl.mechanisms", "SCRAM-SHA-256"), ("linger.ms", "2")]).unwrap();
    assert_eq!(given, pairs(&[("sasl.mechanisms", "SCRAM-SHA-256"), ("linger.ms", "2")]));
}

#[test]
fn secrets_come_from_files_and_the_environment() {
    let files = Files::new(&[("token", b"one\n"), ("secrets", b"user = me\npassword=a\\=b\n")]);
    let text = "config.providers=vault\nconfig.providers.vault.class=org.apache.kafka.common.config.provider.FileConfigProvider\n\
                sasl.username=${vault:DIR/secrets:user}\nsasl.password=x${file:DIR/secrets:password}y${dir:DIR:token}${no:thing}";
    let given = files.read(text, &[("client.id", "${env:PATH}")]).unwrap();
    let path = std::env::var("PATH").unwrap();
    let expected = [("client.id", &*path), ("sasl.username", "me"), ("sasl.password", "xa=byone${no:thing}")];
    assert_eq!(given, pairs(&expected));
}

#[test]
fn stores_are_told_by_what_they_hold() {
    let pem = b"-----BEGIN CERTIFICATE-----\n";
    let files = Files::new(&[("a.pem", pem), ("a.p12", &[0x30, 0x82]), ("a.jks", &[0xfe, 0xed, 0xfe, 0xed, 0, 0])]);
    let read = |text: &str| {
        let given = files.read(text, &[]);
        given.map(|given| {
            given.into_iter().map(|(name, value)| (name, value.rsplit('/').next().unwrap().to_owned())).collect()
        })
    };
    let text = "ssl.truststore.type=PEM\nssl.truststore.location=DIR/a.pem\nssl.keystore.location=DIR/a.pem";
    let expected = [("ssl.ca.location", "a.pem"), ("ssl.certificate.location", "a.pem"), ("ssl.key.location", "a.pem")];
    assert_eq!(read(text), Ok(pairs(&expected)));
    let text = "ssl.keystore.type=PKCS12\nssl.keystore.location=DIR/a.p12\nssl.endpoint.identification.algorithm=\n";
    let expected = [("ssl.endpoint.identification.algorithm", "none"), ("ssl.keystore.location", "a.p12")];
    assert_eq!(read(text), Ok(pairs(&expected)));
    let error = read("ssl.keystore.location=DIR/a.jks").unwrap_err();
    assert!(error.contains("keytool -importkeystore") && error.contains("PKCS12"), "{error}");
    for store in ["a.jks", "a.p12"] {
        let error = read(&format!("ssl.truststore.location=DIR/{store}")).unwrap_err();
        assert!(error.contains("keytool -list -rfc") && error.contains("ssl.ca.location"), "{error}");
    }
}

#[test]
fn an_error_names_the_setting_and_the_file_and_never_the_value() {
    let check = |text: &str, parts: &[&str]| {
        let error = Files::new(&[]).read(text, &[]).unwrap_err();
        for part in parts.iter().chain(&["kafka.properties"]) {
            assert!(error.contains(part), "{error} does not say {part}");
        }
        assert!(!error.contains("hunter2"), "{error}");
    };
    check("sasl.pasword=hunter2", &["'sasl.pasword'", "no such setting"]);
    check("sasl.password=${env:NO_SUCH_VARIABLE}hunter2", &["'sasl.password'", "'NO_SUCH_VARIABLE'"]);
    check("sasl.password=hunter2${file:/nothing}", &["'sasl.password'", "${dir:PATH:FILE}"]);
    check("sasl.password=${dir:/nothing:here}hunter2", &["/nothing/here cannot be read"]);
    check(
        "sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required a=\"hunter2\";",
        &["Krb5LoginModule"],
    );
    check("sasl.jaas.config=x.PlainLoginModule required password=\"hunter2", &["has no end"]);
    check("sasl.jaas.config=x.OAuthBearerLoginModule required clientId=a clientSecret=hunter2;", &["file:///"]);
    check("ssl.truststore.location=/nothing", &["/nothing cannot be read"]);
    let error = read(None, &["sasl.password:hunter2".parse().unwrap()]).unwrap_err().to_string();
    assert!(error.contains("-X takes key=value") && !error.contains("hunter2"), "{error}");
    let error = read(Some(Path::new("/no/such/file")), &[]).unwrap_err().to_string();
    assert!(error.contains("--kafka-config /no/such/file"), "{error}");
}

#[test]
fn secrets_are_hidden_where_settings_are_shown() {
    for name in
        ["sasl.password", "ssl.key.pem", "sasl.jaas.config", "sasl.oauthbearer.client.secret", "ssl.key.password"]
    {
        assert_eq!(format!("{:?}", Setting::new(name, "hunter2")), format!("{name}=[hidden]"));
    }
    assert_eq!(format!("{:?}", Setting::new("linger.ms", "5")), "linger.ms=5");
}

#[test]
fn a_secret_of_the_command_line_may_be_a_reference_that_a_node_resolves() {
    let files = Files::new(&[("password", b"hunter2\n")]);
    let reference = format!("file:{}", files.path("password").display());
    let given = |name: &str| files.read("bootstrap.servers=a:1", &[(name, &reference)]).unwrap().remove(name).unwrap();
    assert_eq!(given("sasl.password"), "hunter2");
    assert_eq!(given("ssl.key.pem"), "hunter2");
    // This is the URL of a file.
    assert_eq!(given("sasl.oauthbearer.token.endpoint.url"), reference);
    let gone = files.read("bootstrap.servers=a:1", &[("sasl.password", "file:/does/not/exist")]).unwrap_err();
    assert!(gone.contains("-X sasl.password: '/does/not/exist' cannot be read"), "{gone}");
}
