//! A durable operator's part of a checkpoint.

use std::fmt;

use fluvial_connector::{Generation, Tick};
use fluvial_protocol::manifest::{OperatorKind, StateFile};
use uuid::Uuid;

use crate::state::{EncodedFile, StateError, StateStore, state_object};

/// Rows that were copied out of an operator and can be encoded on any thread.
pub(crate) trait Encode: Send {
    /// Sorts and encodes the rows as a state file of `operator`, stored by the checkpoint of `tick`.
    fn encode(self: Box<Self>, operator: &str, kind: &OperatorKind, tick: Tick) -> Result<EncodedFile, StateError>;
}

/// One operator's part of a checkpoint on one worker: a copy of the rows that have changed since the last checkpoint. It is
/// `Send`, because it is encoded and stored on another thread than the worker's, which must not block.
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

    /// Returns the number of keys that have a row on this worker, changed or not; `None` if rows have no keys.
    #[must_use]
    pub(crate) fn keys(&self) -> Option<u64> {
        self.keys
    }

    /// Returns the name of the operator.
    #[must_use]
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// Returns the kind of the operator, with its types.
    #[must_use]
    pub(crate) fn kind(&self) -> &OperatorKind {
        &self.kind
    }

    /// Returns the tick of the checkpoint.
    #[must_use]
    pub(crate) fn tick(&self) -> Tick {
        self.tick
    }

    /// Encodes the rows and stores them with [`StateStore::put`], under a name that contains `unique`, which must not have been
    /// used before.
    ///
    /// # Errors
    /// As [`Frozen::encode`] and [`StateStore::put`].
    pub(crate) fn store(
        self,
        store: &StateStore,
        generation: Generation,
        unique: Uuid,
    ) -> Result<Option<StateFile>, StateError> {
        let object = state_object(&self.operator, generation, unique);
        self.encode()?.map(|file| store.put(&object, &file)).transpose()
    }

    /// Sorts and encodes the rows; `None` if nothing has changed. The caller writes the file with [`StateStore::put`], which it may
    /// repeat.
    ///
    /// # Errors
    /// [`StateError::Encode`], if a row cannot be encoded.
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
