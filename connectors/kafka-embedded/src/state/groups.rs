//! All consumer groups.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::ResponseError;

use super::group::Group;

/// The consumer groups by id. A group comes into being with its first member or offset, and stays until it is deleted.
#[derive(Debug, Default)]
pub(crate) struct Groups(BTreeMap<String, Group>);

impl Groups {
    /// A group.
    pub(crate) fn get(&self, id: &str) -> Option<&Group> {
        self.0.get(id)
    }

    /// A group, to change it.
    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Group> {
        self.0.get_mut(id)
    }

    /// A group, made if it is new.
    pub(crate) fn or_new(&mut self, id: &str) -> &mut Group {
        self.0.entry(id.to_owned()).or_insert_with(|| Group::new(id))
    }

    /// All groups.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.0.values()
    }

    /// Deletes a group.
    ///
    /// # Errors
    ///
    /// `GROUP_ID_NOT_FOUND`, or `NON_EMPTY_GROUP` while it has members.
    pub(crate) fn delete(&mut self, id: &str) -> Result<(), ResponseError> {
        let group = self.0.get(id).ok_or(ResponseError::GroupIdNotFound)?;
        if !group.is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        self.0.remove(id);
        Ok(())
    }

    /// Forgets the offsets of a deleted topic.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.0.values_mut().for_each(|group| group.offsets.forget_topic(topic));
    }

    /// Ends the sessions that are over; gives the next deadline.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.0.values_mut().filter_map(|group| group.expire(now)).min()
    }
}
