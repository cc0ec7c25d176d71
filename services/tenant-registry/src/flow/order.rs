//! Orders to the broker to probe a connection's role: noted as a job, so that its report counts, and promised to the bus.

use contracts::{
    ExternalId, JobId, RoleArn, Timestamp,
    costs::ExportLocation,
    verification::{VerifyCause, VerifyConnection},
};
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use uuid::Uuid;

use super::template;
use crate::{
    entity::{At, Id, Json, Text, connection, job},
    store::{During, StoreError, Tx},
};

/// What is to be probed, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) cause: VerifyCause,
    pub(super) role_arn: RoleArn,
    /// With this one the role must let us in.
    pub(super) external_id: ExternalId,
    /// With this one it must not: the one that was replaced.
    pub(super) retired_external_id: Option<ExternalId>,
    pub(super) cost_export: Option<ExportLocation>,
    pub(super) template_version: Option<u32>,
    /// The callback that waits for the answer.
    pub(super) callback: Option<Uuid>,
    pub(super) deadline: Timestamp,
}

impl Order {
    /// The connection as it stands. The external ID that it has replaced is probed for, too, except between the two updates of a rotation, when
    /// the trust policy may name both.
    pub(super) fn of(row: &connection::Model, cause: VerifyCause, deadline: Timestamp) -> Self {
        Self {
            cause,
            role_arn: row.role_arn.0.clone(),
            external_id: row.external_id.0.clone(),
            retired_external_id: row.retired_external_id(),
            cost_export: row.cost_export.clone().map(|export| export.0),
            template_version: template::told(row.template_version),
            callback: None,
            deadline,
        }
    }
}

/// Hands the broker the job. The caller holds the connection's lock.
pub(super) async fn verification(tx: &Tx, row: &connection::Model, order: Order) -> Result<JobId, StoreError> {
    let id = JobId::new();
    let open = job::ActiveModel {
        id: Set(Id(id)),
        tenant_id: Set(row.tenant_id),
        connection_id: Set(row.id),
        kind: Set(Text(job::JobKind::Verify)),
        role_arn: Set(Text(order.role_arn.clone())),
        cost_export: Set(order.cost_export.clone().map(Json)),
        callback_id: Set(order.callback),
        deadline: Set(At(order.deadline)),
        created_at: Set(At::now()),
        external_id: Set(Some(Text(order.external_id.clone()))),
        retired_external_id: Set(order.retired_external_id.clone().map(Text)),
        template_version: Set(template::kept(order.template_version)),
    };
    open.insert(&**tx).await.during("noting the job")?;
    let job = VerifyConnection {
        job: id,
        tenant: row.tenant_id.0,
        connection: row.id.0,
        cause: order.cause,
        role_arn: order.role_arn,
        external_id: order.external_id,
        account: row.account.0.clone(),
        region: row.region.0.clone(),
        retired_external_id: order.retired_external_id,
        cost_export: order.cost_export,
        session_tags: template::is_to_be_looked_for(order.template_version),
        deadline: order.deadline,
    };
    tx.send(row.id.0, job).await?;
    Ok(id)
}
