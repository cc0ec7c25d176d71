//! Every contract there is, for the generators and for the checks that none is forgotten.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};

use crate::{
    Audience, CloudEvent, Endpoint, Message, Stream, audit, callback, connection, costs, credentials, enrollment, tenant, verification,
};

/// What is known of a [`Message`] without one at hand.
pub struct MessageContract {
    pub kind: &'static str,
    pub subject: &'static str,
    pub stream: Stream,
    pub producer: &'static str,
    pub summary: &'static str,
    pub audience: Audience,
    /// The schema of the whole envelope.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Whether these bytes decode as this message.
    pub decodes: fn(&[u8]) -> Result<(), crate::EnvelopeError>,
}

/// What is known of an [`Endpoint`].
pub struct EndpointContract {
    pub service: &'static str,
    pub name: &'static str,
    pub subject: &'static str,
    pub summary: &'static str,
    pub request: fn(&mut SchemaGenerator) -> Schema,
    pub response: fn(&mut SchemaGenerator) -> Schema,
}

fn message<T: Message>() -> MessageContract {
    MessageContract {
        kind: T::TYPE,
        subject: T::SUBJECT,
        stream: T::STREAM,
        producer: T::PRODUCER,
        summary: T::SUMMARY,
        audience: T::audience(),
        schema: |generator| generator.root_schema_for::<CloudEvent<T>>(),
        decodes: |bytes| CloudEvent::<T>::decode(bytes).map(|_| ()),
    }
}

fn endpoint<E: Endpoint>() -> EndpointContract {
    EndpointContract {
        service: E::SERVICE,
        name: E::NAME,
        subject: E::SUBJECT,
        summary: E::SUMMARY,
        request: |generator| generator.root_schema_for::<E::Request>(),
        response: |generator| generator.root_schema_for::<E::Response>(),
    }
}

/// The generator that all committed schemas come from: JSON Schema draft 7, which AsyncAPI 3 takes as it is.
#[must_use]
pub fn generator() -> SchemaGenerator {
    SchemaSettings::draft07().into_generator()
}

/// Every message.
#[must_use]
pub fn messages() -> Vec<MessageContract> {
    vec![
        message::<tenant::TenantCreated>(),
        message::<tenant::TenantSuspended>(),
        message::<tenant::TenantResumed>(),
        message::<tenant::PrincipalReady>(),
        message::<enrollment::EnrollmentCreated>(),
        message::<enrollment::EnrollmentCancelled>(),
        message::<connection::ConnectionRegistered>(),
        message::<connection::ConnectionVerified>(),
        message::<connection::ConnectionRejected>(),
        message::<connection::ConnectionInsecure>(),
        message::<connection::ConnectionDisconnected>(),
        message::<connection::ConnectionRevoked>(),
        message::<connection::Grant>(),
        message::<callback::CallbackReceived>(),
        message::<callback::CallbackOutcome>(),
        message::<verification::VerifyConnection>(),
        message::<verification::ConfirmDeletion>(),
        message::<verification::VerificationReported>(),
        message::<verification::DeletionReported>(),
        message::<costs::IngestCosts>(),
        message::<costs::CostsIngested>(),
        message::<costs::CostsFailed>(),
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
        endpoint::<enrollment::CreateEnrollment>(),
        endpoint::<enrollment::GetEnrollment>(),
        endpoint::<enrollment::ListEnrollments>(),
        endpoint::<enrollment::CancelEnrollment>(),
        endpoint::<connection::GetConnection>(),
        endpoint::<connection::ListConnections>(),
        endpoint::<connection::RevokeConnection>(),
        endpoint::<audit::ListAudit>(),
        endpoint::<credentials::IssueCredentials>(),
        endpoint::<costs::QueryCosts>(),
    ]
}
