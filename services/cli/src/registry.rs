//! Tenants, enrollments and connections: what tenant-registry answers.

use std::time::{Duration, Instant};

use contracts::{
    PageRequest,
    connection::{
        Connection, GetConnection, ListConnections, ListConnectionsRequest, RevokeConnection, VerifyConnectionNow,
    },
    costs::ExportLocation,
    enrollment::{
        CancelEnrollment, CreateEnrollment, CreateEnrollmentRequest, Enrollment, EnrollmentKind, EnrollmentOffer,
        GetEnrollment, ListEnrollments,
    },
    tenant::{
        CreateTenant, CreateTenantRequest, Empty, GetTenant, ListTenants, ResumeTenant, SuspendTenant, Tenant,
        WithReason,
    },
};
use messaging::Bus;

use crate::{
    args::{Connections, Enrollments, Paging, Tenants},
    connection,
    error::CliError,
    show::{Output, word},
};

/// How long the registry may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether there is a verdict.
const POLL: Duration = Duration::from_millis(500);

impl From<Paging> for PageRequest {
    fn from(paging: Paging) -> Self {
        Self { limit: paging.limit, after: paging.after }
    }
}

fn show_tenant(tenant: &Tenant, output: Output) -> Result<(), CliError> {
    let role = tenant.principal_role.as_ref().map_or_else(|| "not made yet".to_owned(), ToString::to_string);
    let lines = [
        ("tenant", tenant.tenant.to_string()),
        ("name", tenant.name.clone()),
        ("state", word(&tenant.state)),
        ("principal role", role),
        ("created", tenant.created_at.to_string()),
    ];
    output.one(tenant, &lines)
}

pub(crate) async fn tenants(bus: &Bus, command: Tenants, output: Output) -> Result<(), CliError> {
    let tenant = match command {
        Tenants::Create { name, idempotency_key } => {
            bus.request::<CreateTenant>(
                CreateTenant::subject(),
                &CreateTenantRequest { name, idempotency_key },
                TIMEOUT,
            )
            .await?
        }
        Tenants::Show { tenant } => bus.request::<GetTenant>(GetTenant::subject(tenant), &Empty {}, TIMEOUT).await?,
        Tenants::Suspend { tenant, reason } => {
            bus.request::<SuspendTenant>(SuspendTenant::subject(tenant), &WithReason { reason }, TIMEOUT).await?
        }
        Tenants::Resume { tenant, reason } => {
            bus.request::<ResumeTenant>(ResumeTenant::subject(tenant), &WithReason { reason }, TIMEOUT).await?
        }
        Tenants::List(paging) => {
            let page = bus.request::<ListTenants>(ListTenants::subject(), &paging.into(), TIMEOUT).await?;
            let row = |t: &Tenant| vec![t.tenant.to_string(), word(&t.state), t.created_at.to_string(), t.name.clone()];
            return output.page(&page, &["TENANT", "STATE", "CREATED", "NAME"], row);
        }
    };
    show_tenant(&tenant, output)
}

fn show_enrollment(enrollment: &Enrollment, output: Output) -> Result<(), CliError> {
    output.one(enrollment, &enrollment_lines(enrollment))
}

fn enrollment_lines(enrollment: &Enrollment) -> Vec<(&'static str, String)> {
    vec![
        ("enrollment", enrollment.enrollment.to_string()),
        ("tenant", enrollment.tenant.to_string()),
        ("kind", word(&enrollment.kind)),
        ("state", word(&enrollment.state)),
        ("region", enrollment.region.to_string()),
        ("expires", enrollment.expires_at.to_string()),
    ]
}

fn show_offer(offer: &EnrollmentOffer, output: Output) -> Result<(), CliError> {
    let mut lines = enrollment_lines(&offer.enrollment);
    lines.push(("external ID", offer.external_id.as_str().to_owned()));
    lines.push(("callback token", format!("{} (shown this once)", offer.callback_token.expose())));
    lines.push(("quick-create", offer.quick_create_url.clone()));
    for command in &offer.commands {
        lines.push(("command", command.clone()));
    }
    output.one(offer, &lines)
}

pub(crate) async fn enrollments(bus: &Bus, command: Enrollments, output: Output) -> Result<(), CliError> {
    match command {
        Enrollments::Create(args) => {
            let request = CreateEnrollmentRequest {
                kind: if args.organization { EnrollmentKind::Organization } else { EnrollmentKind::Account },
                region: args.region,
                account: args.account,
                cost_export: args.cost_bucket.map(|bucket| ExportLocation { bucket, prefix: args.cost_prefix }),
                expires_in_s: args.expires_in,
            };
            let offer =
                bus.request::<CreateEnrollment>(CreateEnrollment::subject(args.tenant), &request, TIMEOUT).await?;
            show_offer(&offer, output)
        }
        Enrollments::Show { tenant, enrollment } => show_enrollment(
            &bus.request::<GetEnrollment>(GetEnrollment::subject(tenant, enrollment), &Empty {}, TIMEOUT).await?,
            output,
        ),
        Enrollments::Cancel { tenant, enrollment, reason } => {
            let subject = CancelEnrollment::subject(tenant, enrollment);
            show_enrollment(&bus.request::<CancelEnrollment>(subject, &WithReason { reason }, TIMEOUT).await?, output)
        }
        Enrollments::List { tenant, paging } => {
            let page =
                bus.request::<ListEnrollments>(ListEnrollments::subject(tenant), &paging.into(), TIMEOUT).await?;
            let row = |e: &Enrollment| {
                vec![
                    e.enrollment.to_string(),
                    word(&e.kind),
                    word(&e.state),
                    e.region.to_string(),
                    e.expires_at.to_string(),
                ]
            };
            output.page(&page, &["ENROLLMENT", "KIND", "STATE", "REGION", "EXPIRES"], row)
        }
    }
}

fn show_connection(shown: &Connection, output: Output) -> Result<(), CliError> {
    let lines = connection::lines(shown);
    output.one(shown, &lines)
}

pub(crate) async fn connections(bus: &Bus, command: Connections, output: Output) -> Result<(), CliError> {
    let connection = match command {
        Connections::Show { tenant, connection } => {
            bus.request::<GetConnection>(GetConnection::subject(tenant, connection), &Empty {}, TIMEOUT).await?
        }
        Connections::Revoke { tenant, connection, reason } => {
            let subject = RevokeConnection::subject(tenant, connection);
            bus.request::<RevokeConnection>(subject, &WithReason { reason }, TIMEOUT).await?
        }
        Connections::Verify { tenant, connection, wait, within } => {
            let subject = VerifyConnectionNow::subject(tenant, connection);
            let asked = bus.request::<VerifyConnectionNow>(subject, &Empty {}, TIMEOUT).await?;
            if wait { verdict(bus, &asked, Duration::from_secs(within)).await? } else { asked }
        }
        Connections::List { tenant, state, paging } => {
            let request = ListConnectionsRequest { state, page: paging.into() };
            let page = bus.request::<ListConnections>(ListConnections::subject(tenant), &request, TIMEOUT).await?;
            return output.page(&page, &connection::HEAD, connection::row);
        }
    };
    show_connection(&connection, output)
}

/// The connection once probes have come to a verdict after `asked`.
async fn verdict(bus: &Bus, asked: &Connection, within: Duration) -> Result<Connection, CliError> {
    let subject = || GetConnection::subject(asked.tenant, asked.connection);
    let until = Instant::now() + within;
    while Instant::now() < until {
        let now = bus.request::<GetConnection>(subject(), &Empty {}, TIMEOUT).await?;
        if now.probed_at != asked.probed_at {
            return Ok(now);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(CliError::NoVerdict { connection: asked.connection, seconds: within.as_secs() })
}
