//! Every contract there is, for the generators and for the checks that none is forgotten.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Audience, CloudEvent, Endpoint, EnvelopeError, ErrorReply, Message, Stream, audit, callback, connection, costs,
    credentials, enrollment, principal, revocation, tenant, verification,
};

/// One JSON document that crosses NATS.
#[derive(Clone, Copy)]
pub struct Body {
    pub schema: SchemaOf,
    /// Decodes it as a program of ours would, and writes it out again. Only for tests and tools: what is secret in it comes out in clear.
    pub recode: fn(&[u8]) -> Result<Vec<u8>, EnvelopeError>,
}

/// Writes a schema with a generator.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What is known of a [`Message`] without one at hand.
pub struct MessageContract {
    pub kind: &'static str,
    pub subject: &'static str,
    pub keys: &'static [&'static str],
    pub stream: Stream,
    pub producer: &'static str,
    pub summary: &'static str,
    pub audience: Audience,
    /// The whole envelope.
    pub envelope: Body,
}

/// What is known of an [`Endpoint`].
pub struct EndpointContract {
    pub service: &'static str,
    pub name: &'static str,
    pub subject: &'static str,
    pub keys: &'static [&'static str],
    pub summary: &'static str,
    pub request: Body,
    pub response: Body,
}

fn message<T: Message>() -> MessageContract {
    MessageContract {
        kind: T::TYPE,
        subject: T::SUBJECT,
        keys: T::KEYS,
        stream: T::STREAM,
        producer: T::PRODUCER,
        summary: T::SUMMARY,
        audience: T::audience(),
        envelope: Body {
            schema: |generator| generator.root_schema_for::<CloudEvent<T>>(),
            recode: |bytes| {
                let written = CloudEvent::<T>::decode(bytes)?.encode();
                written.map_err(|source| EnvelopeError::Malformed { expected: T::TYPE, source })
            },
        },
    }
}

/// What is known of `E`.
#[must_use]
pub fn endpoint<E: Endpoint>() -> EndpointContract {
    EndpointContract {
        service: E::SERVICE,
        name: E::NAME,
        subject: E::SUBJECT,
        keys: E::KEYS,
        summary: E::SUMMARY,
        request: body::<E::Request>(),
        response: body::<E::Response>(),
    }
}

fn body<T: Serialize + DeserializeOwned + JsonSchema>() -> Body {
    Body {
        schema: |generator| generator.root_schema_for::<T>(),
        recode: |bytes| {
            let decoded = serde_json::from_slice::<T>(bytes);
            let written = decoded.and_then(|value| serde_json::to_vec(&value));
            written.map_err(|source| EnvelopeError::Malformed { expected: std::any::type_name::<T>(), source })
        },
    }
}

/// The generator that all committed schemas come from: JSON Schema draft 7, which AsyncAPI 3 takes as it is.
#[must_use]
pub fn generator() -> SchemaGenerator {
    SchemaSettings::draft07().into_generator()
}

/// Every document by its name, which is also the name of its schema file and the first part of its golden files' names:
/// a message's type, an endpoint's name with `.request` or `.response`, the error reply, and what is in the box of issued credentials.
#[must_use]
pub fn bodies() -> BTreeMap<String, Body> {
    let messages = messages().into_iter().map(|message| (message.kind.to_owned(), message.envelope));
    let endpoints = endpoints().into_iter().flat_map(|endpoint| {
        [
            (format!("{}.request", endpoint.name), endpoint.request),
            (format!("{}.response", endpoint.name), endpoint.response),
        ]
    });
    let others = [
        (ERROR_REPLY.to_owned(), body::<ErrorReply>()),
        (SEALED_CREDENTIALS.to_owned(), body::<credentials::SealedCredentials>()),
    ];
    messages.chain(endpoints).chain(others).collect()
}

/// The name of the error reply among the [`bodies`].
pub const ERROR_REPLY: &str = "error-reply";
/// The name of what is in the box of issued credentials.
pub const SEALED_CREDENTIALS: &str = "sealed-credentials";

/// Every message.
#[must_use]
pub fn messages() -> Vec<MessageContract> {
    vec![
        message::<tenant::TenantCreated>(),
        message::<tenant::TenantSuspended>(),
        message::<tenant::TenantResumed>(),
        message::<tenant::TenantDeleted>(),
        message::<tenant::PrincipalReady>(),
        message::<tenant::PrincipalDrift>(),
        message::<tenant::PrincipalRemoved>(),
        message::<principal::PrincipalReconciled>(),
        message::<enrollment::EnrollmentCreated>(),
        message::<enrollment::EnrollmentCancelled>(),
        message::<connection::ConnectionRegistered>(),
        message::<connection::ConnectionVerified>(),
        message::<connection::ConnectionRejected>(),
        message::<connection::ConnectionDegraded>(),
        message::<connection::ConnectionInsecure>(),
        message::<connection::ConnectionDisconnected>(),
        message::<connection::ConnectionRevoked>(),
        message::<connection::ConnectionExternalIdChanged>(),
        message::<connection::Grant>(),
        message::<callback::CallbackReceived>(),
        message::<callback::CallbackOutcome>(),
        message::<verification::VerifyConnection>(),
        message::<verification::ConfirmDeletion>(),
        message::<verification::VerificationReported>(),
        message::<verification::DeletionReported>(),
        message::<verification::ConnectionsUsed>(),
        message::<revocation::DenySessions>(),
        message::<revocation::RemovePrincipal>(),
        message::<revocation::RevocationReported>(),
        message::<credentials::CredentialsRotated>(),
        message::<credentials::CredentialsRevoked>(),
        message::<credentials::CredentialsIssued>(),
        message::<credentials::CredentialsDenied>(),
        message::<audit::AuditRecorded>(),
        message::<costs::DiscoverExports>(),
        message::<costs::IngestPeriod>(),
        message::<costs::CostsIngested>(),
        message::<costs::CostsFailed>(),
        message::<costs::CostsRestated>(),
        message::<costs::CostsProgress>(),
    ]
}

/// Every endpoint.
#[must_use]
pub fn endpoints() -> Vec<EndpointContract> {
    vec![
        endpoint::<tenant::CreateTenant>(),
        endpoint::<tenant::GetTenant>(),
        endpoint::<tenant::ListTenants>(),
        endpoint::<tenant::SuspendTenant>(),
        endpoint::<tenant::ResumeTenant>(),
        endpoint::<tenant::DeleteTenant>(),
        endpoint::<enrollment::CreateEnrollment>(),
        endpoint::<enrollment::GetEnrollment>(),
        endpoint::<enrollment::ListEnrollments>(),
        endpoint::<enrollment::CancelEnrollment>(),
        endpoint::<enrollment::RotateExternalId>(),
        endpoint::<enrollment::CancelRotation>(),
        endpoint::<connection::GetConnection>(),
        endpoint::<connection::ListConnections>(),
        endpoint::<connection::RevokeConnection>(),
        endpoint::<connection::VerifyConnectionNow>(),
        endpoint::<audit::ListAudit>(),
        endpoint::<audit::ExportAudit>(),
        endpoint::<principal::ReconcilePrincipal>(),
        endpoint::<credentials::IssueCredentials>(),
        endpoint::<costs::QueryCosts>(),
        endpoint::<costs::ListCostExports>(),
    ]
}
