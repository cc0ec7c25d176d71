//! The two shapes of a contract: a message that is published, an endpoint that replies.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::Subject;

/// A JetStream stream of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    Callbacks,
    Jobs,
    Reports,
    Grants,
    TenantEvents,
    PrincipalEvents,
    EnrollmentEvents,
    ConnectionEvents,
    CredentialsEvents,
    AuditEvents,
    CostsEvents,
    DeadLetters,
}

impl Stream {
    /// Every stream there is.
    pub const ALL: [Self; 12] = [
        Self::Callbacks,
        Self::Jobs,
        Self::Reports,
        Self::Grants,
        Self::TenantEvents,
        Self::PrincipalEvents,
        Self::EnrollmentEvents,
        Self::ConnectionEvents,
        Self::CredentialsEvents,
        Self::AuditEvents,
        Self::CostsEvents,
        Self::DeadLetters,
    ];

    /// The name on the server.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Callbacks => "ROLEBRIDGE_CALLBACKS",
            Self::Jobs => "ROLEBRIDGE_JOBS",
            Self::Reports => "ROLEBRIDGE_REPORTS",
            Self::Grants => "ROLEBRIDGE_GRANTS",
            Self::TenantEvents => "ROLEBRIDGE_EVENTS_TENANT",
            Self::PrincipalEvents => "ROLEBRIDGE_EVENTS_PRINCIPAL",
            Self::EnrollmentEvents => "ROLEBRIDGE_EVENTS_ENROLLMENT",
            Self::ConnectionEvents => "ROLEBRIDGE_EVENTS_CONNECTION",
            Self::CredentialsEvents => "ROLEBRIDGE_EVENTS_CREDENTIALS",
            Self::AuditEvents => "ROLEBRIDGE_EVENTS_AUDIT",
            Self::CostsEvents => "ROLEBRIDGE_EVENTS_COSTS",
            Self::DeadLetters => "ROLEBRIDGE_DEAD_LETTERS",
        }
    }

    /// What the stream stores.
    #[must_use]
    pub const fn subjects(self) -> &'static str {
        match self {
            Self::Callbacks => "rolebridge.internal.v1.callbacks.>",
            Self::Jobs => "rolebridge.internal.v1.jobs.>",
            Self::Reports => "rolebridge.internal.v1.reports.>",
            Self::Grants => "rolebridge.internal.v1.grants.>",
            Self::TenantEvents => "rolebridge.events.v1.tenant.>",
            Self::PrincipalEvents => "rolebridge.events.v1.principal.>",
            Self::EnrollmentEvents => "rolebridge.events.v1.enrollment.>",
            Self::ConnectionEvents => "rolebridge.events.v1.connection.>",
            Self::CredentialsEvents => "rolebridge.events.v1.credentials.>",
            Self::AuditEvents => "rolebridge.events.v1.audit.>",
            Self::CostsEvents => "rolebridge.events.v1.costs.>",
            Self::DeadLetters => "rolebridge.internal.v1.dead-letters.>",
        }
    }
}

/// Who may see a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Any consumer that the operator's permissions allow.
    Public,
    /// Our own services alone.
    Internal,
}

/// A message that one service publishes to a stream, in a CloudEvents envelope.
pub trait Message: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The CloudEvents `type`, with its version: `rolebridge.connection.verified.v1`.
    const TYPE: &'static str;
    /// The subject, with `*` where tenant, connection and the like stand.
    const SUBJECT: &'static str;
    /// What stands for each `*`, in order: `tenant`, `connection`, ...
    const KEYS: &'static [&'static str];
    /// The stream that stores it.
    const STREAM: Stream;
    /// The service that publishes it.
    const PRODUCER: &'static str;
    /// One sentence for readers of the AsyncAPI document.
    const SUMMARY: &'static str;

    /// The subject of this very message.
    fn subject(&self) -> Subject;

    #[must_use]
    fn audience() -> Audience {
        if Self::SUBJECT.starts_with("rolebridge.internal.") { Audience::Internal } else { Audience::Public }
    }
}

/// One operation of a NATS micro service (ADR-32).
pub trait Endpoint: Send + Sync + 'static {
    /// The micro service, which is the name of the program that serves it.
    const SERVICE: &'static str;
    /// The endpoint's name in discovery: `tenants-create`.
    const NAME: &'static str;
    /// The subject, with `*` where what is authorised stands (tenant, connection, purpose).
    const SUBJECT: &'static str;
    /// What stands for each `*`, in order.
    const KEYS: &'static [&'static str];
    /// One sentence for readers of the AsyncAPI document.
    const SUMMARY: &'static str;
    type Request: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
    type Response: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;
}

/// Implements [`Message`] for a type; the subject's stars are filled from the named fields.
macro_rules! message {
    ($name:ident { type: $type:literal, subject: $subject:literal, stream: $stream:ident, producer: $producer:literal, keys: [$($key:ident),*], summary: $summary:literal }) => {
        impl $crate::Message for $name {
            const TYPE: &'static str = $type;
            const SUBJECT: &'static str = $subject;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
            const STREAM: $crate::Stream = $crate::Stream::$stream;
            const PRODUCER: &'static str = $producer;
            const SUMMARY: &'static str = $summary;

            fn subject(&self) -> $crate::Subject {
                $crate::Subject::fill(Self::SUBJECT, &[$(self.$key.into()),*])
            }
        }
    };
}

/// Declares an [`Endpoint`] as a type without values, with a function that fills its subject.
macro_rules! endpoint {
    ($(#[$doc:meta])* $name:ident { service: $service:literal, name: $endpoint:literal, subject: $subject:literal, keys: ($($key:ident: $kind:ty),*), request: $request:ty, response: $response:ty, summary: $summary:literal }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl $crate::Endpoint for $name {
            const SERVICE: &'static str = $service;
            const NAME: &'static str = $endpoint;
            const SUBJECT: &'static str = $subject;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];
            const SUMMARY: &'static str = $summary;
            type Request = $request;
            type Response = $response;
        }

        impl $name {
            /// The subject to send the request to.
            #[must_use]
            pub fn subject($($key: $kind),*) -> $crate::Subject {
                $crate::Subject::fill(<Self as $crate::Endpoint>::SUBJECT, &[$($key.into()),*])
            }
        }
    };
}

pub(crate) use {endpoint, message};
