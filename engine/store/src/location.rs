//! What a user writes after `--store`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;

/// A place for a store: a local folder, or a bucket and a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A local folder, by a path or a `file://` URL.
    Folder {
        /// As the user wrote it, for messages.
        written: String,
        /// The folder.
        path: PathBuf,
    },
    /// A bucket on the network.
    Bucket {
        /// The kind of store.
        cloud: Cloud,
        /// The bucket's name; Azure calls it a container.
        bucket: String,
        /// What the names of all objects begin with.
        prefix: Path,
    },
}

/// A kind of store on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, or another store that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// What its URLs begin with.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// The reason for which a text is no location of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// There is no text.
    #[error("the path is empty")]
    Empty,
    /// A `file://` URL with a host.
    #[error("a file URL has three slashes: file:///path")]
    FileHost,
    /// Another scheme.
    #[error("a store is a folder, or a URL that begins with file://, s3://, gs:// or az://")]
    Scheme,
    /// A URL with more than a bucket and a prefix. It may hold a secret, so a message must not repeat it.
    #[error(
        "its URL holds more than a bucket and a prefix, as in s3://bucket/prefix: credentials, regions and endpoints \
         are set by environment variables"
    )]
    MoreThanABucket,
    /// The prefix has empty parts, or characters that object stores do not accept.
    #[error("its prefix has empty parts, or characters that object stores do not accept")]
    Prefix,
}

impl LocationError {
    /// Whether a message may repeat the text.
    #[must_use]
    pub fn may_repeat(self) -> bool {
        self != Self::MoreThanABucket
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let folder = |path: &str| Self::Folder { written: text.to_owned(), path: path.into() };
        let (scheme, rest) = match text.split_once("://") {
            None if text.is_empty() => return Err(LocationError::Empty),
            None => return Ok(folder(text)),
            Some(("file", path)) if path.starts_with('/') => return Ok(folder(path)),
            Some(("file", _)) => return Err(LocationError::FileHost),
            Some(parts) => parts,
        };
        let cloud = Cloud::ALL.into_iter().find(|cloud| cloud.scheme() == scheme).ok_or(LocationError::Scheme)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if bucket.is_empty() || !bucket.chars().all(fits) || prefix.contains(['?', '#']) {
            return Err(LocationError::MoreThanABucket);
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| LocationError::Prefix)?;
        Ok(Self::Bucket { cloud, bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { written, .. } => f.write_str(written.trim_end_matches('/')),
            Self::Bucket { cloud, bucket, prefix } if prefix.as_ref().is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            Self::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_folder_or_a_bucket_and_a_prefix() {
        for (text, expected) in [
            ("store", Ok("store")),
            ("/var/lib/fluvial/", Ok("/var/lib/fluvial")),
            ("file:///var/lib", Ok("file:///var/lib")),
            ("s3://bucket", Ok("s3://bucket")),
            ("s3://bucket/", Ok("s3://bucket")),
            ("s3://bucket/a/b/", Ok("s3://bucket/a/b")),
            ("gs://my.bucket_1/a", Ok("gs://my.bucket_1/a")),
            ("az://container/a", Ok("az://container/a")),
            ("", Err(LocationError::Empty)),
            ("file://host/path", Err(LocationError::FileHost)),
            ("gopher://x", Err(LocationError::Scheme)),
            ("s3:///prefix", Err(LocationError::MoreThanABucket)),
            ("s3://KEY:SECRET@bucket/prefix", Err(LocationError::MoreThanABucket)),
            ("az://container/a?sv=2024&sig=SECRET", Err(LocationError::MoreThanABucket)),
            ("s3://bucket/a//b", Err(LocationError::Prefix)),
        ] {
            let found = text.parse::<Location>().map(|location| location.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        }
    }
}
