//! Who may do what at the API of a cluster, and what was done.
//!
//! ```text
//!   request ── token ──► Authenticator ──► Caller: name and role
//!                          │ cache, a few seconds old at most
//!                          ▼
//!   store: .cluster/tokens/{hash}.json    .cluster/audit/{time}-{random}.json ◄── Audit ◄── request that changes something
//! ```
//!
//! **Guarantees** that no token is stored, only its hash; that a token which was revoked is refused by every node within ten seconds
//! while the store answers; and that requests with invented tokens cause a bounded number of requests to the store. **Does not**
//! end the access of a token that was revoked while the store is unreachable: a node then believes what it has read last, because
//! an operator must be able to act while the store is unavailable. An expiry needs no store and holds in any case.
//!
//! An *operator* submits programs, and thus can run code as the user of the nodes. That is what the role is for.

mod audit;
mod authenticator;
mod token;
mod tokens;

pub use audit::{Audit, AuditEntry};
pub use authenticator::{Authenticator, Denied};
pub(crate) use token::without_tokens;
pub use token::{NotAToken, Token, TokenHash};
pub(crate) use tokens::check_token_name;
pub use tokens::{NotDone, TokenRecord, Tokens};

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What the holder of a token may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read jobs, nodes and logs.
    Viewer,
    /// Everything, which includes running programs on the nodes.
    Operator,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        })
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token. Those that contain a space are not names of tokens.
    pub name: String,
    /// What the caller may do.
    pub role: Role,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

impl Caller {
    /// Whoever holds the cluster key.
    #[must_use]
    pub fn with_cluster_key() -> Self {
        Self { name: "the cluster key".to_owned(), role: Role::Operator, expires_ms: None }
    }

    /// Whoever reaches the API of a node without trust, which is on the loopback interface.
    #[must_use]
    pub fn of_this_host() -> Self {
        Self { name: "this host".to_owned(), role: Role::Operator, expires_ms: None }
    }
}

/// The time, in milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
