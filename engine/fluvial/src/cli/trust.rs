//! The options that say by what copies know each other.

use std::path::PathBuf;

use fluvial_node::trust::{Trust, TrustOptions};

/// By what copies know each other.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TrustArgs {
    /// A file with the key that all copies share, by which they know each other; `cluster-key new` prints one. Only the user
    /// of this process may have access to it, unless it belongs to another user
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_cert", "tls_key", "tls_ca", "insecure"])]
    cluster_key_file: Option<PathBuf>,

    /// This copy's certificate in PEM format, with intermediate ones, instead of a cluster key. It has to be valid for the
    /// host that --advertise names, and for clients too if it restricts its use. Files that change are read again
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"], conflicts_with = "insecure")]
    tls_cert: Option<PathBuf>,

    /// The key of that certificate in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The certificates of the authorities that vouch for copies, in PEM format. Whoever has a certificate of theirs can be a
    /// copy, so use authorities that issue certificates for nothing else
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// Talk to other copies in clear, and believe whoever connects. Whoever can reach the port can then run the job's
    /// processes and read its data
    #[arg(long)]
    insecure: bool,
}

impl TrustArgs {
    /// Reads what the options name.
    ///
    /// # Errors
    /// One line that says which file cannot be used, and why.
    pub(super) fn open(&self) -> Result<Trust, String> {
        let Self { cluster_key_file, tls_cert, tls_key, tls_ca, insecure } = self.clone();
        let options = TrustOptions { cluster_key_file, tls_cert, tls_key, tls_ca, insecure };
        options.open().map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }
}
