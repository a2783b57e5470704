//! The cluster keys: their authorities, for clients that know an older one, and who has which key, for the person who replaces one.
//!
//! Every answer names the authorities by their fingerprints. A client that has pinned others asks for them, over a connection to a
//! node for which an authority vouches that it has pinned; so a login outlives the key of which it was made.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{Knowledge, Refused};
use crate::group::CLUSTER;
use crate::links::StoreProof;
use crate::status::gather_cluster;
use crate::trust::{Shown, Trust, TrustKind, of_users};

/// The header of answers with the fingerprints of the authorities, separated by commas.
pub const AUTHORITIES: &str = "fluvial-authorities";

/// The keys of a cluster, without anything secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyReport {
    /// The authorities of the keys of the node that was asked, the one in use first. There are none where the user has certificates.
    pub authorities: Vec<AuthorityReport>,
    /// The nodes that are members.
    pub nodes: Vec<NodeKeys>,
}

/// An authority that vouches for nodes.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuthorityReport {
    /// The SHA-256 of its certificate.
    pub fingerprint: String,
    /// Its certificate in PEM format.
    pub certificate: String,
}

/// The keys of a node, by their fingerprints. These are others than the fingerprints of the keys' authorities.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeKeys {
    /// The address of the node.
    pub node: String,
    /// The key that it uses. `None` if it has none, or has not said so yet.
    pub uses: Option<String>,
    /// The keys that it accepts besides.
    pub accepts: Vec<String>,
}

/// Returns the authorities of the cluster keys, and which keys each node has
#[utoipa::path(get, path = "/v1/keys", operation_id = "get_keys",
    responses((status = 200, description = "The keys, without anything secret", body = KeyReport)))]
pub(super) async fn keys(State(knowledge): State<Knowledge>) -> Result<Json<KeyReport>, Refused> {
    let authorities = knowledge.trust.authorities();
    let authorities = authorities.iter().map(|authority| AuthorityReport {
        fingerprint: of_users::fingerprint(authority),
        certificate: of_users::to_pem(std::slice::from_ref(authority)),
    });
    let members = gather_cluster(knowledge.view()?, &knowledge.trust).await.nodes;
    let addresses: BTreeSet<_> = members.into_iter().map(|member| member.node).collect();
    let shown = StoreProof::new(knowledge.shelf.store().clone(), CLUSTER).trust_at(&addresses).await;
    let mut shown = shown.map_err(|error| Refused::unavailable(&error.into()))?;
    let nodes = addresses.into_iter().map(|node| match shown.remove(&node) {
        Some(Shown { trust: TrustKind::ClusterKey(uses), accepts }) => NodeKeys { node, uses: Some(uses), accepts },
        _ => NodeKeys { node, uses: None, accepts: Vec::new() },
    });
    Ok(Json(KeyReport { authorities: authorities.collect(), nodes: nodes.collect() }))
}

/// Names the authorities in the answer to a request that was let through.
pub(super) async fn announce(State(trust): State<Arc<Trust>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let fingerprints: Vec<_> = trust.authorities().iter().map(of_users::fingerprint).collect();
    if let (false, Ok(fingerprints)) = (fingerprints.is_empty(), HeaderValue::try_from(fingerprints.join(","))) {
        response.headers_mut().insert(AUTHORITIES, fingerprints);
    }
    response
}
