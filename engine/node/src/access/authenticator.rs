//! Says who holds a token.
//!
//! What the store says of a token is believed for [`VALID_FOR`], and that it does not know a token for [`UNKNOWN_FOR`]. Both
//! kinds have their own bounded table, so that invented tokens displace none that is valid. A token that this node has not seen
//! valid costs a request to the store, of which there are a bounded number in a second.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fluvial_connector::Error;

use super::{Caller, Token, TokenHash, TokenRecord, Tokens, now_ms};

/// How long a token counts as valid after it was read: within this time a revoked one is refused.
const VALID_FOR: Duration = Duration::from_secs(10);
/// How long a token counts as unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// After a failure of the store, the time until a token that was valid is read again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the store may take.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// The size of each table. There are fewer tokens.
const MOST: usize = 1024;
/// How many tokens that were not seen valid are looked up at once.
const BURST: u32 = 20;
/// The time in which one more may be looked up.
const ONE_MORE: Duration = Duration::from_millis(100);

type Read = Pin<Box<dyn Future<Output = Result<Option<TokenRecord>, Error>> + Send>>;

/// Authenticates requests.
pub struct Authenticator {
    is_root: Box<dyn Fn(&TokenHash) -> bool + Send + Sync>,
    read: Box<dyn Fn(TokenHash) -> Read + Send + Sync>,
    cache: Mutex<Cache>,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It does not exist (any more).
    #[error("the token is unknown or was revoked")]
    Unknown,
    /// It has expired.
    #[error("the token '{0}' has expired")]
    Expired(String),
    /// It is not known whether it exists.
    #[error("it cannot be checked whether the token is valid: {0}")]
    Unavailable(String),
}

impl Authenticator {
    /// Authenticates by the tokens in the store, and by those that follow from the cluster keys, which `is_root` knows.
    #[must_use]
    pub fn new(tokens: Tokens, is_root: impl Fn(&TokenHash) -> bool + Send + Sync + 'static) -> Self {
        Self::reading(is_root, move |hash| {
            let tokens = tokens.clone();
            Box::pin(async move { tokens.get(hash).await })
        })
    }

    fn reading(
        is_root: impl Fn(&TokenHash) -> bool + Send + Sync + 'static,
        read: impl Fn(TokenHash) -> Read + Send + Sync + 'static,
    ) -> Self {
        Self { is_root: Box::new(is_root), read: Box::new(read), cache: Mutex::new(Cache::new(Instant::now())) }
    }

    /// Says who holds a token.
    ///
    /// # Errors
    /// Nobody does, or the store does not answer and this node has not seen the token.
    pub async fn authenticate(&self, token: &Token) -> Result<Caller, Denied> {
        self.at(token, Instant::now(), now_ms()).await
    }

    async fn at(&self, token: &Token, now: Instant, now_ms: u64) -> Result<Caller, Denied> {
        let hash = token.hash();
        if (self.is_root)(&hash) {
            return Ok(Caller::with_cluster_key());
        }
        let known = self.cache().ask(hash, now);
        let record = match known {
            Known::Valid(record) => record,
            Known::Unknown => return Err(Denied::Unknown),
            Known::TooMany => {
                return Err(Denied::Unavailable("too many unknown tokens were shown to this node lately".to_owned()));
            }
            Known::Read => {
                let read = tokio::time::timeout(READ_WITHIN, (self.read)(hash)).await;
                let read = read.map_err(|_| format!("the store does not answer within {} s", READ_WITHIN.as_secs()));
                let read = read.and_then(|read| read.map_err(|error| format!("{:#}", anyhow::Error::new(error))));
                // It counts from when it was asked for: what was revoked since was perhaps not seen.
                self.cache().learn(hash, read, now)?
            }
        };
        match record.expires_ms {
            Some(expires_ms) if expires_ms <= now_ms => Err(Denied::Expired(record.name)),
            expires_ms => Ok(Caller { name: record.name, role: record.role, expires_ms }),
        }
    }

    /// Reads all tokens again, because one was revoked here.
    pub fn forget(&self) {
        self.cache().valid.values_mut().for_each(|entry| entry.again = None);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node knows of tokens.
struct Cache {
    valid: BTreeMap<TokenHash, Entry>,
    /// By token, when it was asked for.
    unknown: BTreeMap<TokenHash, Instant>,
    /// From when on there would be no limit: each token that is looked up moves it on.
    lookups: Instant,
}

struct Entry {
    record: TokenRecord,
    /// When it has to be read again: at once, if there is no time.
    again: Option<Instant>,
}

/// What the cache knows of a token.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Valid(TokenRecord),
    Unknown,
    /// The store has to be asked.
    Read,
    /// The store would have to be asked, and was asked too often.
    TooMany,
}

impl Cache {
    fn new(now: Instant) -> Self {
        Self { valid: BTreeMap::new(), unknown: BTreeMap::new(), lookups: now }
    }

    fn ask(&mut self, hash: TokenHash, now: Instant) -> Known {
        if let Some(entry) = self.valid.get(&hash) {
            let fresh = entry.again.is_some_and(|again| now < again);
            return if fresh { Known::Valid(entry.record.clone()) } else { Known::Read };
        }
        if self.unknown.get(&hash).is_some_and(|&asked| now < asked + UNKNOWN_FOR) {
            return Known::Unknown;
        }
        let lookups = self.lookups.max(now) + ONE_MORE;
        if lookups > now + ONE_MORE * BURST {
            return Known::TooMany;
        }
        self.lookups = lookups;
        Known::Read
    }

    /// Learns what the store has said of a token when it was asked at `asked`.
    fn learn(
        &mut self,
        hash: TokenHash,
        said: Result<Option<TokenRecord>, String>,
        asked: Instant,
    ) -> Result<TokenRecord, Denied> {
        match said {
            Ok(Some(record)) => {
                self.unknown.remove(&hash);
                let again = Some(asked + VALID_FOR);
                self.valid.insert(hash, Entry { record: record.clone(), again });
                if self.valid.len() > MOST {
                    let oldest = self.valid.iter().min_by_key(|(_, entry)| entry.again).map(|(hash, _)| *hash);
                    oldest.map(|oldest| self.valid.remove(&oldest));
                }
                Ok(record)
            }
            Ok(None) => {
                self.valid.remove(&hash);
                self.unknown.insert(hash, asked);
                if self.unknown.len() > MOST {
                    let oldest = self.unknown.iter().min_by_key(|(_, asked)| **asked).map(|(hash, _)| *hash);
                    oldest.map(|oldest| self.unknown.remove(&oldest));
                }
                Err(Denied::Unknown)
            }
            Err(why) => {
                let Some(entry) = self.valid.get_mut(&hash) else { return Err(Denied::Unavailable(why)) };
                entry.again = Some(asked + AGAIN);
                tracing::warn!(token = entry.record.name, why, "cannot read a token again; it stays valid meanwhile");
                Ok(entry.record.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use fluvial_connector::ErrorKind;

    use super::super::Role;
    use super::*;

    fn record(name: &str, role: Role, expires_ms: Option<u64>) -> TokenRecord {
        TokenRecord { name: name.to_owned(), role, created_ms: 0, expires_ms, by: "the test".to_owned() }
    }

    /// A store of tokens that counts how often it is read.
    #[derive(Default)]
    struct Shop {
        tokens: BTreeMap<TokenHash, TokenRecord>,
        fails: bool,
        reads: usize,
    }

    fn authenticator(root: Option<&Token>) -> (Authenticator, Arc<Mutex<Shop>>) {
        let shop = Arc::<Mutex<Shop>>::default();
        let of_reads = Arc::clone(&shop);
        let root = root.map(Token::hash);
        let authenticator = Authenticator::reading(
            move |hash| root == Some(*hash),
            move |hash| {
                let mut shop = of_reads.lock().unwrap();
                shop.reads += 1;
                let fails = shop.fails.then(|| Error::new(ErrorKind::Retry, "no route to the store"));
                let answer = fails.map_or_else(|| Ok(shop.tokens.get(&hash).cloned()), Err);
                Box::pin(std::future::ready(answer))
            },
        );
        (authenticator, shop)
    }

    const S: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_token_is_read_once_in_ten_seconds_and_refused_within_them_after_it_was_revoked() {
        let (authenticator, shop) = authenticator(None);
        let (token, now) = (Token::random(), Instant::now());
        shop.lock().unwrap().tokens.insert(token.hash(), record("anna", Role::Viewer, None));
        for after in [0, 1, 9] {
            let caller = authenticator.at(&token, now + after * S, 0).await.unwrap();
            assert_eq!((caller.name.as_str(), caller.role), ("anna", Role::Viewer));
        }
        assert_eq!(shop.lock().unwrap().reads, 1);
        shop.lock().unwrap().tokens.clear();
        assert!(authenticator.at(&token, now + 9 * S, 0).await.is_ok());
        assert!(matches!(authenticator.at(&token, now + 10 * S, 0).await, Err(Denied::Unknown)));
        assert!(matches!(authenticator.at(&token, now + 11 * S, 0).await, Err(Denied::Unknown)));
        assert_eq!(shop.lock().unwrap().reads, 2);
        // It is created again, and seen after two seconds.
        shop.lock().unwrap().tokens.insert(token.hash(), record("anna", Role::Viewer, None));
        assert!(authenticator.at(&token, now + 12 * S, 0).await.is_ok());
        // Where it is revoked it is refused at once.
        shop.lock().unwrap().tokens.clear();
        authenticator.forget();
        assert!(authenticator.at(&token, now + 12 * S, 0).await.is_err());
    }

    #[tokio::test]
    async fn an_expired_token_is_refused_by_the_clock_alone() {
        let (authenticator, shop) = authenticator(None);
        let (token, now) = (Token::random(), Instant::now());
        shop.lock().unwrap().tokens.insert(token.hash(), record("anna", Role::Operator, Some(1000)));
        assert!(authenticator.at(&token, now, 999).await.is_ok());
        assert!(matches!(authenticator.at(&token, now, 1000).await, Err(Denied::Expired(name)) if name == "anna"));
        assert_eq!(shop.lock().unwrap().reads, 1);
    }

    #[tokio::test]
    async fn while_the_store_fails_what_was_known_last_stays_valid_and_nothing_else_does() {
        let (authenticator, shop) = authenticator(None);
        let (token, now) = (Token::random(), Instant::now());
        shop.lock().unwrap().tokens.insert(token.hash(), record("anna", Role::Viewer, Some(50_000)));
        assert!(authenticator.at(&token, now, 0).await.is_ok());
        shop.lock().unwrap().fails = true;
        for after in [10, 11, 12, 100] {
            assert!(authenticator.at(&token, now + after * S, 0).await.is_ok());
        }
        assert_eq!(shop.lock().unwrap().reads, 4, "it is asked for again every two seconds only");
        assert!(matches!(authenticator.at(&token, now + 200 * S, 50_000).await, Err(Denied::Expired(_))));
        let denied = authenticator.at(&Token::random(), now + 100 * S, 0).await;
        assert!(matches!(denied, Err(Denied::Unavailable(why)) if why.contains("no route to the store")));
    }

    #[tokio::test]
    async fn invented_tokens_cost_bounded_memory_and_requests_and_displace_no_valid_one() {
        let (authenticator, shop) = authenticator(None);
        let (token, start) = (Token::random(), Instant::now());
        shop.lock().unwrap().tokens.insert(token.hash(), record("anna", Role::Viewer, None));
        assert!(authenticator.at(&token, start, 0).await.is_ok());
        for i in 0..30_000 {
            let now = start + Duration::from_millis(10) * i;
            assert!(authenticator.at(&Token::random(), now, 0).await.is_err());
            assert!(authenticator.at(&token, now, 0).await.is_ok(), "{i}");
        }
        // 300 s: 3000 tokens, and the valid one 30 times.
        let reads = shop.lock().unwrap().reads;
        assert!((2900..3100).contains(&reads), "{reads}");
        let cache = authenticator.cache();
        assert_eq!((cache.valid.len(), cache.unknown.len()), (1, MOST));
    }

    #[tokio::test]
    async fn who_has_the_cluster_key_is_an_operator_without_the_store() {
        let root = Token::random();
        let (authenticator, shop) = authenticator(Some(&root));
        shop.lock().unwrap().fails = true;
        assert_eq!(authenticator.authenticate(&root).await.unwrap(), Caller::with_cluster_key());
        assert!(authenticator.authenticate(&Token::random()).await.is_err());
    }
}
