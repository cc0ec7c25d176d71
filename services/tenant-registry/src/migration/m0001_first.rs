//! Tenants, enrollments, connections, callbacks, jobs, audit, outbox.
//!
//! What must never be, whatever the program does, is said here: one live connection for a stack, one tenant for a role ARN, one row for a callback, and an
//! audit log that can only grow.

use sea_orm_migration::{prelude::*, schema::*, sea_orm::DbBackend};

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [tenants(), enrollments(), connections(), callbacks(), jobs(), audit(), outbox()] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        for statement in audit_guard(manager.get_database_backend()) {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["outbox", "audit", "jobs", "callbacks", "connections", "enrollments", "tenants"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

/// A table whose rows are known by a UUID of ours.
fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).col(uuid("id").primary_key()).to_owned()
}

fn reference(from: &'static str, column: &'static str, to: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().from(from, column).to(to, "id").to_owned()
}

fn tenants() -> TableCreateStatement {
    table("tenants")
        .col(text("name"))
        .col(text_null("idempotency_key"))
        .col(text("state"))
        .col(text_null("principal_role"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .to_owned()
}

fn enrollments() -> TableCreateStatement {
    table("enrollments")
        .col(uuid("tenant_id"))
        .col(text("kind"))
        .col(text("state"))
        .col(text("region"))
        .col(text_null("account"))
        .col(text("external_id"))
        .col(text("token_hash"))
        .col(text_null("cost_export"))
        .col(text_null("bound_stack"))
        .col(big_integer("created_at"))
        .col(big_integer("expires_at"))
        .col(big_integer("updated_at"))
        .foreign_key(&mut reference("enrollments", "tenant_id", "tenants"))
        .to_owned()
}

fn connections() -> TableCreateStatement {
    table("connections")
        .col(uuid("tenant_id"))
        .col(uuid("enrollment_id"))
        .col(text("stack_id"))
        .col(text("account"))
        .col(text("partition"))
        .col(text("region"))
        .col(text("role_arn"))
        .col(text_null("cost_export"))
        .col(text("state"))
        .col(text_null("reason"))
        .col(text("evidence"))
        .col(big_integer("revision"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .col(big_integer_null("verified_at"))
        .foreign_key(&mut reference("connections", "tenant_id", "tenants"))
        .foreign_key(&mut reference("connections", "enrollment_id", "enrollments"))
        .to_owned()
}

fn callbacks() -> TableCreateStatement {
    table("callbacks")
        .col(text("stack_id"))
        .col(text("request_id"))
        .col(text("request_type"))
        .col(uuid("tenant_id"))
        .col(uuid("enrollment_id"))
        .col(uuid_null("connection_id"))
        .col(text("return_address"))
        .col(text("physical_resource_id"))
        .col(text_null("answer"))
        .col(big_integer("received_at"))
        .col(big_integer("created_at"))
        .col(big_integer_null("answered_at"))
        .foreign_key(&mut reference("callbacks", "tenant_id", "tenants"))
        .foreign_key(&mut reference("callbacks", "enrollment_id", "enrollments"))
        .to_owned()
}

fn jobs() -> TableCreateStatement {
    table("jobs")
        .col(uuid("tenant_id"))
        .col(uuid("connection_id"))
        .col(text("kind"))
        .col(text("role_arn"))
        .col(text_null("cost_export"))
        .col(uuid_null("callback_id"))
        .col(big_integer("deadline"))
        .col(big_integer("created_at"))
        .foreign_key(&mut reference("jobs", "connection_id", "connections"))
        .to_owned()
}

fn audit() -> TableCreateStatement {
    Table::create()
        .table("audit")
        .col(big_pk_auto("sequence"))
        .col(big_integer("at"))
        .col(text("actor"))
        .col(text("action"))
        .col(uuid_null("tenant_id"))
        .col(uuid_null("enrollment_id"))
        .col(uuid_null("connection_id"))
        .col(text("reason"))
        .col(text_null("trace_id"))
        .to_owned()
}

fn outbox() -> TableCreateStatement {
    Table::create()
        .table("outbox")
        .col(big_pk_auto("id"))
        .col(text("ordering_key"))
        .col(text("subject"))
        .col(uuid("event_id"))
        .col(text_null("traceparent"))
        .col(text("payload"))
        .col(big_integer("created_at"))
        .col(uuid_null("claimed_by"))
        .col(big_integer_null("claimed_until"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let live = || Expr::col("state").is_not_in(["rejected", "revoked"]);
    let owning = || Expr::col("state").is_in(["verified", "degraded", "insecure", "disconnected"]);
    let mut indexes = vec![
        unique("tenants_key", "tenants", &["idempotency_key"]),
        unique("enrollments_external_id", "enrollments", &["external_id"]),
        unique("callbacks_request", "callbacks", &["stack_id", "request_id"]),
        unique("connections_live_stack", "connections", &["stack_id"]).and_where(live()).to_owned(),
        unique("connections_live_account", "connections", &["enrollment_id", "account"]).and_where(live()).to_owned(),
        unique("connections_role", "connections", &["role_arn"]).and_where(owning()).to_owned(),
    ];
    let plain: [(&'static str, &'static str, &'static [&'static str]); 7] = [
        ("enrollments_tenant", "enrollments", &["tenant_id", "id"]),
        ("connections_tenant", "connections", &["tenant_id", "id"]),
        ("callbacks_enrollment", "callbacks", &["enrollment_id"]),
        ("jobs_connection", "jobs", &["connection_id"]),
        ("jobs_deadline", "jobs", &["deadline"]),
        ("audit_tenant", "audit", &["tenant_id", "sequence"]),
        ("outbox_order", "outbox", &["ordering_key", "id"]),
    ];
    indexes.extend(plain.into_iter().map(|(name, table, columns)| index(name, table, columns)));
    indexes
}

fn index(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(table).to_owned();
    for column in columns {
        index.col(*column);
    }
    index
}

fn unique(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    index(name, table, columns).unique().to_owned()
}

/// Triggers that refuse to change or remove what was written down.
fn audit_guard(backend: DbBackend) -> &'static [&'static str] {
    match backend {
        DbBackend::Sqlite => &[
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
        ],
        _ => &[
            "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'the audit log is only ever added to'; END $$",
            "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
        ],
    }
}
