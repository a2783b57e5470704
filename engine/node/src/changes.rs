//! The way of a user's change to the node that coordinates, and of its answer back.

use std::sync::Arc;
use std::time::Duration;

use fluvial_protocol::group::{Change, NodeId, Refusal};
use tokio::sync::oneshot;

use crate::links::ask_for_change;
use crate::trust::Trust;

/// How long the record with a change may take to be stored.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// Receives what becomes of a change.
pub type Reply = oneshot::Sender<Result<(), Refusal>>;

/// The way of changes to the loop of this node. Cheap to clone.
#[derive(Clone)]
pub struct Changes(Arc<dyn Fn(Change, Reply) + Send + Sync>);

impl Changes {
    /// Changes are handed to `take`, which must not block.
    pub fn new(take: impl Fn(Change, Reply) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// No change is taken: for links in tests.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_, _| {})
    }

    /// Makes a change, if this node coordinates.
    ///
    /// # Errors
    /// The change is refused, or this node does not coordinate.
    pub async fn make(&self, change: Change) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        (self.0)(change, reply);
        // A node that has ended answers nothing, and one whose store does not answer must not be waited for.
        let answered = tokio::time::timeout(ANSWERED_WITHIN, answer).await;
        answered.ok().and_then(Result::ok).unwrap_or(Err(Refusal::NotCoordinator))
    }

    /// Makes a change at the node that coordinates, which is this one or another.
    ///
    /// # Errors
    /// The change is refused, or the coordinator does not answer.
    pub async fn make_anywhere(
        &self,
        change: Change,
        coordinator: Option<&NodeId>,
        me: &NodeId,
        trust: &Trust,
    ) -> Result<(), Refusal> {
        match coordinator {
            Some(node) if node != me => match ask_for_change(node, trust, change).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, coordinator = %node, "could not pass a change on");
                    Err(Refusal::NotCoordinator)
                }
            },
            _ => self.make(change).await,
        }
    }
}
