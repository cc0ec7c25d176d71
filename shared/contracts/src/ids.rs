//! Typed UUIDs (version 7, so that they sort by time). As text they are safe NATS subject tokens.

use uuid::Uuid;

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057, which this text is not")]
pub struct ParseIdError {
    what: &'static str,
}

macro_rules! typed_uuid {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one, of the current time (UUID version 7, RFC 9562).
            #[must_use]
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseIdError { what: $what })
            }
        }
    };
}

typed_uuid!(
    /// One customer of the provider.
    TenantId, "tenant ID"
);
typed_uuid!(
    /// One offer to connect.
    EnrollmentId, "enrollment ID"
);
typed_uuid!(
    /// One customer AWS account of one tenant.
    ConnectionId, "connection ID"
);
typed_uuid!(
    /// One piece of work for one worker.
    JobId, "job ID"
);
typed_uuid!(
    /// One published message: the CloudEvents `id`, also sent as `Nats-Msg-Id`.
    EventId, "event ID"
);
