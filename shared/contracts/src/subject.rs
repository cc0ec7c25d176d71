//! NATS subjects, built from typed parts alone: nothing that a caller sends can add a token or a wildcard.

use std::fmt;

use crate::{ConnectionId, EnrollmentId, TenantId, credentials::Purpose};

/// The first token of every subject.
pub const PREFIX: &str = "rolebridge";

/// A subject that may be published to: no wildcard, no empty token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Fills the `*` of `pattern` with `tokens`, in order. A pattern with more stars than tokens keeps the stars, which no server accepts
    /// for publishing; the catalogue's tests fill every pattern.
    #[must_use]
    pub fn fill(pattern: &'static str, tokens: &[Token]) -> Self {
        let mut tokens = tokens.iter();
        let parts = pattern.split('.').map(|part| match part {
            "*" => tokens.next().map_or_else(|| part.to_owned(), |token| token.0.clone()),
            other => other.to_owned(),
        });
        Self(parts.collect::<Vec<_>>().join("."))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One token of a subject. Made only from types whose text holds neither dot, star, angle nor space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(String);

macro_rules! token_from {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Token {
            fn from(value: $kind) -> Self {
                Self(value.to_string())
            }
        })*
    };
}

token_from!(TenantId, ConnectionId, EnrollmentId, Purpose);

/// The tokens of `subject` that stand where `pattern` has a `*`; `None` when the subject is not of the pattern.
#[must_use]
pub fn captures<'s>(pattern: &str, subject: &'s str) -> Option<Vec<&'s str>> {
    let mut captured = Vec::new();
    let (mut expected, mut found) = (pattern.split('.'), subject.split('.'));
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return Some(captured),
            (Some("*"), Some(token)) if !token.is_empty() => captured.push(token),
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_and_read_back() {
        let (tenant, connection) = (TenantId::new(), ConnectionId::new());
        let pattern = "rolebridge.rpc.v1.connections.get.*.*";
        let subject = Subject::fill(pattern, &[tenant.into(), connection.into()]);
        assert_eq!(
            captures(pattern, subject.as_str()),
            Some(vec![tenant.to_string().as_str(), connection.to_string().as_str()])
        );
        assert_eq!(captures(pattern, "rolebridge.rpc.v1.connections.get.a"), None);
        assert_eq!(captures(pattern, "rolebridge.rpc.v1.connections.get.a.b.c"), None);
        assert_eq!(captures(pattern, "rolebridge.rpc.v1.connections.get..b"), None);
    }
}
