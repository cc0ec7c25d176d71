//! What operators and programs may ask: tenants, enrollments, connections, the audit log. Who may ask is NATS's to say (`deploy/nats`).

use contracts::{
    ErrorCode, ErrorReply,
    audit::{ExportAudit, ListAudit},
    connection::{GetConnection, ListConnections, RevokeConnection, VerifyConnectionNow},
    enrollment::{
        CancelEnrollment, CancelRotation, CreateEnrollment, GetEnrollment, ListEnrollments, RotateExternalId,
    },
    tenant::{CreateTenant, DeleteTenant, GetTenant, ListTenants, ResumeTenant, SuspendTenant},
};
use messaging::{Bus, BusError, EndpointServer};

use crate::{SERVICE, flow::Registry, store::StoreError};

/// A database that is away is away for a moment, usually.
const RETRY_AFTER_MS: u64 = 1_000;

/// What a requester is told; the rest is in our log.
fn reply(error: StoreError) -> ErrorReply {
    match error {
        StoreError::Refused(reply) => reply,
        StoreError::Database { operation, .. } => {
            tracing::error!(error = %crate::chain(&error), "a request failed in the database");
            let message = format!("the registry's database failed at {operation}: try again");
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER_MS)
        }
        StoreError::Raced(_) => {
            ErrorReply::new(ErrorCode::Conflict, "somebody else was changing the same thing: try again")
        }
        StoreError::Encode { .. } | StoreError::Inconsistent(_) => {
            tracing::error!(error = %crate::chain(&error), "a request failed");
            ErrorReply::new(ErrorCode::Internal, "the registry failed by a fault of its own; its log says more")
        }
    }
}

/// Adds endpoints to a server: for each its contract, the IDs that its subject carries, and the function of [`Registry`] that answers.
macro_rules! serve {
    ($server:expr, $registry:expr, $($endpoint:ident($($id:ident),*) => |$handler:ident, $request:ident| $answer:expr;)*) => {{
        let server = $server;
        $(
            let registry = $registry.clone();
            let server = server
                .serve::<$endpoint, _, _>(move |call| {
                    let $handler = registry.asked_by(call.user());
                    async move {
                        let mut _position = 0usize..;
                        $(let $id = call.token(_position.next().unwrap_or_default())?;)*
                        let $request = &call.request;
                        $answer.await.map_err(reply)
                    }
                })
                .await?;
        )*
        server
    }};
}

/// Announces the service and all its endpoints.
pub(crate) async fn serve(bus: &Bus, registry: &Registry) -> Result<EndpointServer, BusError> {
    let server = EndpointServer::start(bus, SERVICE, "Tenants, enrollments, connections, audit").await?;
    Ok(serve!(server, registry,
        CreateTenant() => |registry, request| registry.create_tenant(request);
        GetTenant(tenant) => |registry, _request| registry.get_tenant(tenant);
        ListTenants() => |registry, request| registry.list_tenants(request);
        SuspendTenant(tenant) => |registry, request| registry.suspend_tenant(tenant, &request.reason);
        ResumeTenant(tenant) => |registry, request| registry.resume_tenant(tenant, &request.reason);
        DeleteTenant(tenant) => |registry, request| registry.delete_tenant(tenant, &request.reason);
        CreateEnrollment(tenant) => |registry, request| registry.create_enrollment(tenant, request);
        GetEnrollment(tenant, enrollment) => |registry, _request| registry.get_enrollment(tenant, enrollment);
        ListEnrollments(tenant) => |registry, request| registry.list_enrollments(tenant, request);
        CancelEnrollment(tenant, enrollment) => |registry, request| registry.cancel_enrollment(tenant, enrollment, &request.reason);
        RotateExternalId(tenant, enrollment) => |registry, request| registry.rotate_external_id(tenant, enrollment, &request.reason);
        CancelRotation(tenant, enrollment) => |registry, request| registry.cancel_rotation(tenant, enrollment, &request.reason);
        GetConnection(tenant, connection) => |registry, _request| registry.get_connection(tenant, connection);
        ListConnections(tenant) => |registry, request| registry.list_connections(tenant, request);
        RevokeConnection(tenant, connection) => |registry, request| registry.revoke_connection(tenant, connection, &request.reason);
        VerifyConnectionNow(tenant, connection) => |registry, _request| registry.verify_connection(tenant, connection);
        ListAudit(tenant) => |registry, request| registry.list_audit(tenant, request);
        ExportAudit() => |registry, request| registry.export_audit(request);
    ))
}
