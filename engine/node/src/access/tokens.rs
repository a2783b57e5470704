//! The tokens of a cluster in its store: an object for each, whose name is the hash of the token.

use std::time::Duration;

use fluvial_connector::Error;
use fluvial_store::Store;
use fluvial_store::frame::Format;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{Role, Token, TokenHash, now_ms};

/// The format of a token's object.
const TOKEN: Format = Format { kind: "token", version: 1 };
/// How many tokens there may be: listing them reads each.
const MOST: usize = 1000;
/// How many objects are read at a time.
const AT_ONCE: usize = 32;

/// What is stored of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenRecord {
    /// The name by which users know it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, if it does.
    pub expires_ms: Option<u64>,
    /// Who has created it.
    pub by: String,
}

/// Why a token was not created or revoked.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// The name cannot be that of a token.
    #[error("a token's name consists of 1 to 100 letters, digits, '-', '_', '.' or '@', and does not begin with '.'")]
    Name,
    /// There is one of that name.
    #[error("there is a token '{0}': revoke it first, or choose another name")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no token '{0}': `fluvial tokens list` shows them")]
    Unknown(String),
    /// There are too many.
    #[error("there are {MOST} tokens: revoke some first")]
    TooMany,
    /// The store has failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Checks the name of a token.
///
/// # Errors
/// One line that says what a name consists of.
pub(crate) fn check_token_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    let is_one = (1..=100).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.');
    if is_one { Ok(()) } else { Err(NotDone::Name.to_string()) }
}

/// The tokens in the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    folder: Path,
}

impl Tokens {
    /// Those of the cluster whose objects are in `folder`.
    #[must_use]
    pub fn new(store: Store, folder: &str) -> Self {
        let folder = store.path(&format!("{folder}/tokens"));
        Self { store, folder }
    }

    fn path(&self, hash: impl std::fmt::Display) -> Path {
        Path::from(format!("{}/{hash}.json", self.folder))
    }

    /// Creates a token, whose text is nowhere but in the answer. Two tokens of one name can come into being only when two are
    /// created at the same time; they are then revoked together.
    ///
    /// # Errors
    /// The name cannot be that of a token or is taken, there are too many, or the store fails.
    pub async fn create(
        &self,
        name: &str,
        role: Role,
        expires_in: Option<Duration>,
        by: &str,
    ) -> Result<(Token, TokenRecord), NotDone> {
        check_token_name(name).map_err(|_| NotDone::Name)?;
        let all = self.all().await?;
        if all.iter().any(|(_, record)| record.name == name) {
            return Err(NotDone::Exists(name.to_owned()));
        }
        if all.len() >= MOST {
            return Err(NotDone::TooMany);
        }
        let token = Token::random();
        let created_ms = now_ms();
        let expires = |time: Duration| created_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let record = TokenRecord {
            name: name.to_owned(),
            role,
            created_ms,
            expires_ms: expires_in.map(expires),
            by: by.to_owned(),
        };
        self.store.create_framed(TOKEN, &self.path(token.hash()), &record).await?;
        Ok((token, record))
    }

    /// The tokens, by name.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self) -> Result<Vec<TokenRecord>, Error> {
        let mut records: Vec<_> = self.all().await?.into_iter().map(|(_, record)| record).collect();
        records.sort_by(|a, b| (&a.name, a.created_ms).cmp(&(&b.name, b.created_ms)));
        Ok(records)
    }

    /// Revokes the token of a name.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub async fn revoke(&self, name: &str) -> Result<(), NotDone> {
        let mut all = self.all().await?;
        all.retain(|(_, record)| record.name == name);
        if all.is_empty() {
            return Err(NotDone::Unknown(name.to_owned()));
        }
        for (path, _) in all {
            self.store.delete(&path).await?;
        }
        Ok(())
    }

    /// What is stored of the token with this hash, if it exists.
    ///
    /// # Errors
    /// The store fails.
    pub async fn get(&self, hash: TokenHash) -> Result<Option<TokenRecord>, Error> {
        self.store.get_framed(TOKEN, &self.path(hash)).await
    }

    async fn all(&self) -> Result<Vec<(Path, TokenRecord)>, Error> {
        let paths = self.store.list(&self.folder, None).await?;
        let read = |path: Path| async move {
            let record: Option<TokenRecord> = self.store.get_framed(TOKEN, &path).await?;
            Ok::<_, Error>(record.map(|record| (path, record)))
        };
        // One may be revoked while this reads.
        let found: Vec<_> = futures::stream::iter(paths).map(read).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_token_is_created_listed_found_by_its_hash_and_revoked() {
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        let tokens = Tokens::new(store.clone(), ".cluster");
        let (token, record) =
            tokens.create("anna", Role::Viewer, Some(Duration::from_secs(60)), "the test").await.unwrap();
        assert_eq!(record.expires_ms, Some(record.created_ms + 60_000));
        assert_eq!(tokens.get(token.hash()).await.unwrap(), Some(record.clone()));
        assert_eq!(tokens.get(Token::random().hash()).await.unwrap(), None);
        assert!(matches!(tokens.create("anna", Role::Operator, None, "").await, Err(NotDone::Exists(_))));
        let (other, _) = tokens.create("bob@example", Role::Operator, None, "").await.unwrap();
        assert_eq!(tokens.list().await.unwrap().len(), 2);
        assert_eq!(tokens.list().await.unwrap()[0], record);
        tokens.revoke("anna").await.unwrap();
        assert_eq!(tokens.get(token.hash()).await.unwrap(), None);
        assert!(tokens.get(other.hash()).await.unwrap().is_some());
        assert!(matches!(tokens.revoke("anna").await, Err(NotDone::Unknown(_))));
        for name in ["", ".hidden", "a/b", "../x", "a b", "ä", &"a".repeat(101)] {
            assert!(matches!(tokens.create(name, Role::Viewer, None, "").await, Err(NotDone::Name)), "{name}");
        }
    }

    #[tokio::test]
    async fn nothing_in_the_store_holds_a_token() {
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        let (token, _) = Tokens::new(store.clone(), ".cluster").create("a", Role::Viewer, None, "").await.unwrap();
        let paths = store.list(&store.path(".cluster"), None).await.unwrap();
        assert_eq!(paths.len(), 1);
        assert_eq!(paths[0].as_ref(), format!(".cluster/tokens/{}.json", token.hash()));
        let content = object_store::ObjectStoreExt::get(&**store.objects(), &paths[0]).await.unwrap().bytes().await;
        let content = String::from_utf8(content.unwrap().to_vec()).unwrap();
        assert!(!content.contains(&token.to_text()[8..24]), "{content}");
    }
}
