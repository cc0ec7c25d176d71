//! Tenants, enrollments and connections: what tenant-registry answers.

use std::time::{Duration, Instant};

use contracts::{
    PageRequest,
    connection::{
        Connection, GetConnection, ListConnections, ListConnectionsRequest, RevokeConnection, VerifyConnectionNow,
    },
    costs::ExportLocation,
    enrollment::{
        CancelEnrollment, CancelRotation, CreateEnrollment, CreateEnrollmentRequest, Enrollment, EnrollmentKind,
        EnrollmentOffer, GetEnrollment, ListEnrollments, RotateExternalId, RotationOffer, RotationState,
    },
    revocation::RevocationStep,
    tenant::{
        CreateTenant, CreateTenantRequest, DeleteTenant, Empty, GetTenant, ListTenants, ResumeTenant, SuspendTenant,
        Tenant, WithReason,
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
/// A tenant may have many connections. What is begun goes on, whoever has stopped waiting.
const DELETE_TIMEOUT: Duration = Duration::from_secs(60);

impl From<Paging> for PageRequest {
    fn from(paging: Paging) -> Self {
        Self { limit: paging.limit, after: paging.after }
    }
}

fn show_tenant(tenant: &Tenant, output: Output) -> Result<(), CliError> {
    let role = tenant.principal_role.as_ref().map_or_else(|| "not made yet".to_owned(), ToString::to_string);
    let mut lines = vec![
        ("tenant", tenant.tenant.to_string()),
        ("name", tenant.name.clone()),
        ("state", word(&tenant.state)),
        ("principal role", role),
        ("created", tenant.created_at.to_string()),
    ];
    lines.extend(step_lines(&tenant.revocation));
    output.one(tenant, &lines)
}

fn step_lines(steps: &[RevocationStep]) -> impl Iterator<Item = (&'static str, String)> {
    steps.iter().map(|step| {
        let stands = match (step.done_at, &step.waiting_for) {
            (Some(at), _) => format!("done at {at}"),
            (None, Some(waiting_for)) => format!("under way, waiting for {waiting_for}"),
            (None, None) => "under way".to_owned(),
        };
        ("revocation", format!("{}: {stands}", word(&step.action)))
    })
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
        Tenants::Delete { tenant, reason } => {
            bus.request::<DeleteTenant>(DeleteTenant::subject(tenant), &WithReason { reason }, DELETE_TIMEOUT).await?
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
    let mut lines = vec![
        ("enrollment", enrollment.enrollment.to_string()),
        ("tenant", enrollment.tenant.to_string()),
        ("kind", word(&enrollment.kind)),
        ("state", word(&enrollment.state)),
        ("region", enrollment.region.to_string()),
        ("expires", enrollment.expires_at.to_string()),
    ];
    lines.extend(enrollment.rotation.as_ref().map(rotation_line));
    lines
}

fn rotation_line(rotation: &RotationState) -> (&'static str, String) {
    let means = match rotation {
        RotationState::Offered => "the trust policy does not demand the new external ID yet",
        RotationState::Overlapping => "the new external ID is in use, the trust policy may still name the old one",
        RotationState::Finished => "the old external ID was seen to be refused",
    };
    ("external ID change", format!("{}: {means}", word(rotation)))
}

fn show_rotation(offer: &RotationOffer, output: Output) -> Result<(), CliError> {
    let mut lines = enrollment_lines(&offer.enrollment);
    lines.push(("new external ID", offer.external_id.as_str().to_owned()));
    lines.extend(offer.begin.iter().map(|command| ("first", command.clone())));
    lines.push(("then", "wait until the connections are `overlapping` (connections show)".to_owned()));
    lines.extend(offer.finish.iter().map(|command| ("second", command.clone())));
    output.one(offer, &lines)
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
        Enrollments::Rotate { tenant, enrollment, reason } => {
            let subject = RotateExternalId::subject(tenant, enrollment);
            show_rotation(&bus.request::<RotateExternalId>(subject, &WithReason { reason }, TIMEOUT).await?, output)
        }
        Enrollments::RotateCancel { tenant, enrollment, reason } => {
            let subject = CancelRotation::subject(tenant, enrollment);
            show_enrollment(&bus.request::<CancelRotation>(subject, &WithReason { reason }, TIMEOUT).await?, output)
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
    let mut lines = connection::lines(shown);
    lines.extend(shown.rotation.as_ref().map(rotation_line));
    lines.extend(step_lines(&shown.revocation));
    output.one(shown, &lines)
}

/// What AWS lets nobody but the customer do.
fn tell_what_is_left(revoked: &Connection, output: Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(());
    }
    let policy = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": { "DateLessThan": { "aws:TokenIssueTime": revoked.updated_at.to_string() } },
        }],
    });
    let (account, role) = (&revoked.account, revoked.role_arn.name());
    println!(
        "\nNothing new is issued. Sessions that are in the customer's role already end by themselves within the hour; only the customer can end \
         them at once, in account {account}:\n\n  aws iam put-role-policy --role-name {role} --policy-name AWSRevokeOlderSessions \
         --policy-document '{policy}'"
    );
    Ok(())
}

pub(crate) async fn connections(bus: &Bus, command: Connections, output: Output) -> Result<(), CliError> {
    let connection = match command {
        Connections::Show { tenant, connection } => {
            bus.request::<GetConnection>(GetConnection::subject(tenant, connection), &Empty {}, TIMEOUT).await?
        }
        Connections::Revoke { tenant, connection, reason } => {
            let subject = RevokeConnection::subject(tenant, connection);
            let revoked = bus.request::<RevokeConnection>(subject, &WithReason { reason }, TIMEOUT).await?;
            show_connection(&revoked, output)?;
            return tell_what_is_left(&revoked, output);
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
