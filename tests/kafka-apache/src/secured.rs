//! A secured Kafka: listeners that ask for TLS, SASL or both, and access control lists.
//!
//! The plain listener stays, for the servers themselves and for what a test does beside its subject: who comes by it is
//! `User:ANONYMOUS`, who may do anything, as may [`ADMIN`]. Everybody else may do what [`ApacheKafka::acl`] allowed.
//! Each listener with SASL over TLS takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER (with tokens that nobody
//! signed, as Kafka's unsecured validator wants them).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::ApacheKafka;
use crate::certificates::{Authority, Identity, Validity};

/// A user who may do anything.
pub const ADMIN: &str = "admin";
/// A user who may do what was allowed. It is also the common name of [`Secured::client`].
pub const USER: &str = "job";
/// The password of both.
pub const PASSWORD: &str = "correct-horse";

/// The listeners that a secured Kafka has besides the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// SASL without TLS, PLAIN alone.
    Sasl,
    /// TLS; the client shows a certificate, whose common name is the user.
    Tls,
    /// SASL over TLS.
    SaslTls,
    /// SASL over TLS, with a certificate that has expired.
    Expired,
    /// SASL over TLS, with the certificate of another host.
    OtherHost,
}

impl Listener {
    /// All of them, in the order of their ports.
    pub(crate) const ALL: [Self; 5] = [Self::Sasl, Self::Tls, Self::SaslTls, Self::Expired, Self::OtherHost];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sasl => "SASL",
            Self::Tls => "TLS",
            Self::SaslTls => "SASLTLS",
            Self::Expired => "EXPIRED",
            Self::OtherHost => "OTHERHOST",
        }
    }

    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Sasl => "SASL_PLAINTEXT",
            Self::Tls => "SSL",
            Self::SaslTls | Self::Expired | Self::OtherHost => "SASL_SSL",
        }
    }
}

/// What the servers and their clients show each other.
#[derive(Clone, Debug)]
pub struct Secured {
    /// Who signed all certificates.
    pub authority: Authority,
    /// A client's certificate, for [`Listener::Tls`].
    pub client: Identity,
    server: Identity,
    expired: Identity,
    other_host: Identity,
}

impl Secured {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        const HERE: &str = "DNS:localhost,IP:127.0.0.1";
        let authority = Authority::new(folder.join("certificates"))?;
        Ok(Self {
            client: authority.sign(USER, "", Validity::Valid)?,
            server: authority.sign("server", HERE, Validity::Valid)?,
            expired: authority.sign("expired", HERE, Validity::Expired)?,
            other_host: authority.sign("other-host", "DNS:kafka.example.org", Validity::Valid)?,
            authority,
        })
    }

    /// Lines of `server.properties`.
    pub(crate) fn properties(&self) -> Result<Vec<String>> {
        let mut lines = vec![
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            format!("super.users=User:ANONYMOUS;User:{ADMIN}"),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", self.authority.certificate().display()),
            "ssl.keystore.type=PEM".to_owned(),
            "ssl.principal.mapping.rules=RULE:^CN=([^,]*).*$/$1/".to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
        ];
        for listener in Listener::ALL {
            let prefix = format!("listener.name.{}", listener.name().to_lowercase());
            let identity = match listener {
                Listener::Sasl => None,
                Listener::Tls | Listener::SaslTls => Some(&self.server),
                Listener::Expired => Some(&self.expired),
                Listener::OtherHost => Some(&self.other_host),
            };
            if let Some(identity) = identity {
                lines.push(format!("{prefix}.ssl.keystore.location={}", identity.keystore()?.display()));
            }
            if listener == Listener::Sasl {
                lines.push(format!("{prefix}.sasl.enabled.mechanisms=PLAIN"));
            }
            if listener == Listener::Tls {
                lines.push(format!("{prefix}.ssl.client.auth=required"));
            } else {
                lines.extend(sasl(&prefix));
            }
        }
        Ok(lines)
    }

    /// What `kafka-storage.sh format` is told, so that SCRAM knows the users.
    pub(crate) fn scram() -> impl Iterator<Item = String> {
        let mechanisms = ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter();
        mechanisms.flat_map(|mechanism| {
            [ADMIN, USER].map(|user| format!("--add-scram={mechanism}=[name={user},password={PASSWORD}]"))
        })
    }
}

fn sasl(listener: &str) -> impl Iterator<Item = String> {
    let modules = [
        ("plain", format!("plain.PlainLoginModule required user_{ADMIN}=\"{PASSWORD}\" user_{USER}=\"{PASSWORD}\"")),
        ("scram-sha-256", "scram.ScramLoginModule required".to_owned()),
        ("scram-sha-512", "scram.ScramLoginModule required".to_owned()),
        ("oauthbearer", "oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"x\"".to_owned()),
    ];
    modules.into_iter().map(move |(mechanism, module)| {
        format!("{listener}.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.{module};")
    })
}

impl ApacheKafka {
    /// What to connect to at a listener of a secured Kafka: `host:port`, separated by commas.
    ///
    /// # Panics
    /// It was not started with [`Options::secured`](crate::Options::secured).
    #[must_use]
    pub fn at(&self, listener: Listener) -> &str {
        let index = Listener::ALL.iter().position(|known| *known == listener);
        let found = index.and_then(|index| self.secured_bootstrap.get(index));
        found.expect("this Kafka was started with `secured`")
    }

    /// Certificates of servers and clients.
    ///
    /// # Panics
    /// As [`ApacheKafka::at`].
    #[must_use]
    pub fn secured(&self) -> &Secured {
        self.secured.as_ref().expect("this Kafka was started with `secured`")
    }

    /// Writes the properties file of a client, as Kafka's own tools take it, and gives its path: the user `user` by
    /// SCRAM-SHA-512 at [`Listener::SaslTls`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn client_properties(&self, user: &str) -> Result<PathBuf> {
        let path = self.folder().join(format!("{user}.properties"));
        let authority = self.secured().authority.certificate();
        let lines = [
            "security.protocol=SASL_SSL".to_owned(),
            "sasl.mechanism=SCRAM-SHA-512".to_owned(),
            format!(
                "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{user}\" \
                 password=\"{PASSWORD}\";"
            ),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", authority.display()),
            format!("bootstrap.servers={}", self.at(Listener::SaslTls)),
        ];
        std::fs::write(&path, lines.join("\n"))?;
        Ok(path)
    }

    /// Runs `kafka-acls.sh` with these arguments, as a user who may: for instance `--add --allow-principal User:job
    /// --operation Write --topic words`. With `--remove` goes `--force`. A change is known to every broker a moment
    /// later.
    ///
    /// # Errors
    /// The tool cannot be started, or fails.
    pub fn acl(&self, arguments: &str) -> Result<()> {
        let broker = ["--bootstrap-server", &self.bootstrap].into_iter();
        let arguments = broker.chain(arguments.split_whitespace()).map(Into::into);
        self.java.run_tool("org.apache.kafka.tools.AclCommand", arguments)
    }

    /// Lets [`USER`] do what a job has to whose name and whose topics' names begin with `prefix`, and no more.
    ///
    /// # Errors
    /// As [`ApacheKafka::acl`].
    pub fn allow(&self, prefix: &str) -> Result<()> {
        let user = format!("--add --allow-principal User:{USER}");
        self.acl(&format!(
            "{user} --resource-pattern-type prefixed --topic {prefix} --operation Read --operation Write --operation Create \
             --operation Describe --operation DescribeConfigs"
        ))?;
        self.acl(&format!("{user} --transactional-id * --operation Write --operation Describe"))
    }
}
