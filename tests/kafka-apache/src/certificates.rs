//! A certificate authority for tests, by the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The key algorithm of every certificate; its keys take milliseconds to make.
const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// Signs certificates and keeps them in one folder.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// A certificate and its private key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, PKCS#8, not encrypted.
    pub key: PathBuf,
}

/// Whether a certificate is valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From now on, for ten years.
    Valid,
    /// It expired a day ago.
    Expired,
}

impl Authority {
    /// Makes an authority whose files lie in `folder`, which is created.
    ///
    /// # Errors
    /// `openssl` is missing or fails, or the folder cannot be written.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self> {
        let this = Self { folder: folder.into() };
        fs::create_dir_all(&this.folder)?;
        let mut make = this.openssl(&["req", "-x509", "-nodes", "-days", "3650", "-subj", "/CN=Authority of tests"]);
        make.args(KEY).args(["-keyout", "authority.key", "-out", "authority.pem"]);
        run(make)?;
        Ok(this)
    }

    /// The authority's own certificate: what a client that trusts it names as `ssl.ca.location`.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// Signs a certificate for the common name `name`. `hosts` are its subject alternative names, as OpenSSL writes
    /// them: `DNS:localhost,IP:127.0.0.1`; empty for a client.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn sign(&self, name: &str, hosts: &str, validity: Validity) -> Result<Identity> {
        let file = |extension: &str| format!("{name}.{extension}");
        let (key, request, certificate) = (file("key"), file("csr"), file("pem"));
        let mut ask = self.openssl(&["req", "-new", "-nodes", "-subj", &format!("/CN={name}")]);
        ask.args(KEY).args(["-keyout", &key, "-out", &request]);
        if !hosts.is_empty() {
            ask.args(["-addext", &format!("subjectAltName={hosts}")]);
        }
        run(ask)?;
        let days = match validity {
            Validity::Valid => "3650",
            Validity::Expired => "-1",
        };
        let mut sign = self.openssl(&["x509", "-req", "-CA", "authority.pem", "-CAkey", "authority.key"]);
        sign.args(["-CAcreateserial", "-copy_extensions", "copy", "-days", days, "-in", &request]);
        sign.args(["-out", &certificate]);
        run(sign)?;
        Ok(Identity { certificate: self.folder.join(certificate), key: self.folder.join(key) })
    }

    fn openssl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(&self.folder);
        command
    }
}

impl Identity {
    /// Key and certificate in one file, which is what Kafka reads as a PEM keystore.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn keystore(&self) -> Result<PathBuf> {
        let path = self.certificate.with_extension("keystore.pem");
        fs::write(&path, fs::read_to_string(&self.key)? + &fs::read_to_string(&self.certificate)?)?;
        Ok(path)
    }

    /// Key and certificate as a PKCS#12 keystore, as Java's tools keep them.
    ///
    /// # Errors
    /// `openssl` fails.
    pub fn pkcs12(&self, password: &str) -> Result<PathBuf> {
        let path = self.certificate.with_extension("p12");
        let mut export = Command::new("openssl");
        export.args(["pkcs12", "-export", "-passout", &format!("pass:{password}")]);
        for (option, file) in [("-inkey", &*self.key), ("-in", &*self.certificate), ("-out", Path::new(&path))] {
            export.arg(option).arg(file);
        }
        run(export)?;
        Ok(path)
    }
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output().context("run openssl, which the script tests/prepare installs")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
