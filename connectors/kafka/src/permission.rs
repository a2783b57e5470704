//! What this client is not permitted to do, said so that a person can grant it.

use std::fmt;

use fluvial_connector::{Error, ErrorKind};

use crate::native::Code;

/// What an access control list protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A topic, or several where the cluster does not say which of them.
    Topics(Vec<String>),
    /// A transactional id of a job, all of whose ids begin with its name.
    TransactionalId {
        /// The id.
        id: String,
        /// The job.
        job: String,
    },
    /// The cluster itself.
    Cluster,
}

impl Resource {
    /// One topic.
    pub(crate) fn topic(name: &str) -> Self {
        Self::Topics(vec![name.to_owned()])
    }

    /// As an option of `kafka-acls.sh`.
    fn option(&self) -> String {
        match self {
            Self::Topics(names) => names.iter().map(|name| format!("--topic {name}")).collect::<Vec<_>>().join(" "),
            Self::TransactionalId { job, .. } => {
                format!("--transactional-id {job}- --resource-pattern-type prefixed")
            }
            Self::Cluster => "--cluster".to_owned(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(names) if names.len() == 1 => write!(f, "topic '{}'", names[0]),
            Self::Topics(names) => write!(f, "one of the topics '{}'", names.join("', '")),
            Self::TransactionalId { id, .. } => write!(f, "transactional id '{id}'"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// Whether a code says that the client lacks a permission.
pub(crate) fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// The error of an operation that the cluster does not permit. `operation` is Kafka's name for it, such as `Write`; the
/// principal is named where it is known.
pub(crate) fn denied(doing: &str, operation: &str, resource: &Resource, principal: Option<&str>) -> Error {
    let (who, grantee) = match principal {
        Some(principal) => (principal.to_owned(), principal),
        None => ("the principal of this client".to_owned(), "PRINCIPAL"),
    };
    let option = resource.option();
    Error::new(
        ErrorKind::Configuration,
        format!(
            "{doing}: {who} is not authorized for the operation {operation} on {resource}: grant it with \
             `kafka-acls.sh --add --allow-principal {grantee} --operation {operation} {option}`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_operation_and_principal_are_named_with_the_command_that_grants_it() {
        let error = denied("write", "Write", &Resource::topic("revenue"), Some("User:alice"));
        assert_eq!(
            error.to_string(),
            "write: User:alice is not authorized for the operation Write on topic 'revenue': grant it with \
             `kafka-acls.sh --add --allow-principal User:alice --operation Write --topic revenue`"
        );
        assert_eq!(error.kind, ErrorKind::Configuration);
        let unknown = denied("x", "Write", &Resource::Topics(vec!["a".to_owned(), "b".to_owned()]), None).to_string();
        assert!(unknown.contains("the principal of this client") && unknown.contains("'a', 'b'"), "{unknown}");
        assert!(unknown.ends_with("--topic a --topic b`"), "{unknown}");
    }
}
