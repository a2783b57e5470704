//! What a durable operator hands over at a checkpoint.

use std::fmt;

use fluvial_connector::{Generation, Tick};
use fluvial_protocol::manifest::{OperatorKind, StateFile};
use uuid::Uuid;

use crate::state::{EncodedFile, StateError, StateStore, state_object};

/// Rows that were copied out of an operator and wait to be encoded, on whatever thread.
pub(crate) trait Encode: Send {
    /// Sorts and encodes the rows as a state file of `operator`, stored by the checkpoint of `tick`.
    fn encode(self: Box<Self>, operator: &str, kind: &OperatorKind, tick: Tick) -> Result<EncodedFile, StateError>;
}

/// One operator's part of a checkpoint on one worker: what has changed since the last one. It is `Send`; encoding and
/// storing it takes time and blocks, so that is done off the worker's thread.
pub(crate) struct Frozen {
    operator: String,
    kind: OperatorKind,
    tick: Tick,
    rows: Option<Box<dyn Encode>>,
    keys: Option<u64>,
}

impl Frozen {
    pub(crate) fn new(
        operator: String,
        kind: OperatorKind,
        tick: Tick,
        rows: Option<Box<dyn Encode>>,
        keys: Option<u64>,
    ) -> Self {
        Self { operator, kind, tick, rows, keys }
    }

    /// How many keys have a row on this worker, changed or not; `None` where rows have no keys.
    #[must_use]
    pub(crate) fn keys(&self) -> Option<u64> {
        self.keys
    }

    /// The operator's name.
    #[must_use]
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// What the operator keeps.
    #[must_use]
    pub(crate) fn kind(&self) -> &OperatorKind {
        &self.kind
    }

    /// The tick that the checkpoint is taken of.
    #[must_use]
    pub(crate) fn tick(&self) -> Tick {
        self.tick
    }

    /// [`Frozen::encode`], then [`StateStore::put`] under a name of the file's own: `unique` has not been used before.
    ///
    /// # Errors
    /// As those two.
    pub(crate) fn store(
        self,
        store: &StateStore,
        generation: Generation,
        unique: Uuid,
    ) -> Result<Option<StateFile>, StateError> {
        let object = state_object(&self.operator, generation, unique);
        self.encode()?.map(|file| store.put(&object, &file)).transpose()
    }

    /// Sorts and encodes the rows; `None` where nothing has changed. The file is then written with [`StateStore::put`],
    /// as often as it takes.
    ///
    /// # Errors
    /// [`StateError::Encode`]: a row cannot be expressed.
    pub(crate) fn encode(self) -> Result<Option<EncodedFile>, StateError> {
        self.rows.map(|rows| rows.encode(&self.operator, &self.kind, self.tick)).transpose()
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen")
            .field("operator", &self.operator)
            .field("tick", &self.tick)
            .field("changed", &self.rows.is_some())
            .finish_non_exhaustive()
    }
}
