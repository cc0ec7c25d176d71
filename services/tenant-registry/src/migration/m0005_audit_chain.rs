//! The audit log becomes a chain of hashes: who asked, the hash of each entry, and a row that says where the log ends.
//!
//! What is there already is numbered anew without gaps (a transaction that was rolled back left one) and hashed in its order; no event tells of it. From
//! then on the database refuses a line without a hash, so that an older program that still runs fails instead of breaking the chain.

use contracts::{
    ConnectionId, EnrollmentId, TenantId,
    audit::{AuditEntry, GENESIS, chain},
};
use sea_orm_migration::{
    prelude::*,
    schema::*,
    sea_orm::{DbBackend, QueryResult},
};
use uuid::Uuid;

use crate::entity::At;

/// Rows read at once.
const BATCH: u64 = 500;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [text_null("user"), text("hash").default("").to_owned()] {
            manager.alter_table(Table::alter().table("audit").add_column(column).to_owned()).await?;
        }
        let backend = manager.get_database_backend();
        run(manager, lift_guard(backend)).await?;
        let (sequence, hash) = fill(manager.get_connection()).await?;
        run(manager, set_guard(backend)).await?;
        manager.create_table(head()).await?;
        let insert = Query::insert()
            .into_table("audit_head")
            .columns(["id", "sequence", "hash"])
            .values_panic([1.into(), sequence.into(), hash.into()])
            .to_owned();
        manager.exec_stmt(insert).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("audit_head").to_owned()).await?;
        let backend = manager.get_database_backend();
        if backend == DbBackend::Sqlite {
            run(manager, &["DROP TRIGGER audit_hashed"]).await?;
        }
        for column in ["user", "hash"] {
            manager.alter_table(Table::alter().table("audit").drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

fn head() -> TableCreateStatement {
    Table::create()
        .table("audit_head")
        .col(integer("id").primary_key())
        .col(big_integer("sequence"))
        .col(text("hash"))
        .to_owned()
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

fn lift_guard(backend: DbBackend) -> &'static [&'static str] {
    match backend {
        DbBackend::Sqlite => &["DROP TRIGGER audit_no_update"],
        _ => &["DROP TRIGGER audit_no_change ON audit"],
    }
}

fn set_guard(backend: DbBackend) -> &'static [&'static str] {
    match backend {
        DbBackend::Sqlite => &[
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
            "CREATE TRIGGER audit_hashed BEFORE INSERT ON audit WHEN length(NEW.hash) <> 64 \
             BEGIN SELECT RAISE(ABORT, 'an audit line has a hash'); END",
        ],
        _ => &[
            "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
            "ALTER TABLE audit ALTER COLUMN sequence DROP IDENTITY IF EXISTS, ALTER COLUMN hash DROP DEFAULT, ADD CONSTRAINT audit_hashed CHECK (length(hash) = 64)",
        ],
    }
}

/// Numbers and hashes what is there; returns the end of the chain. A row's new number is never above its old one, so none is in the way of another.
async fn fill(db: &SchemaManagerConnection<'_>) -> Result<(i64, String), DbErr> {
    let (mut seen, mut sequence, mut hash) = (i64::MIN, 0, GENESIS.to_owned());
    loop {
        let batch = Query::select()
            .column(Asterisk)
            .from("audit")
            .and_where(Expr::col("sequence").gt(seen))
            .order_by("sequence", Order::Asc)
            .limit(BATCH)
            .to_owned();
        let rows = db.query_all(&batch).await?;
        if rows.is_empty() {
            return Ok((sequence, hash));
        }
        for row in rows {
            seen = row.try_get("", "sequence")?;
            sequence += 1;
            let entry = entry(&row, sequence)?;
            hash = chain(&hash, &entry);
            let update = Query::update()
                .table("audit")
                .values([("sequence", sequence.into()), ("hash", hash.clone().into())])
                .and_where(Expr::col("sequence").eq(seen))
                .to_owned();
            db.execute(&update).await?;
        }
    }
}

/// What stands in a row of the first version.
fn entry(row: &QueryResult, sequence: i64) -> Result<AuditEntry, DbErr> {
    let id = |column| row.try_get::<Option<Uuid>>("", column);
    Ok(AuditEntry {
        sequence,
        at: row.try_get::<At>("", "at")?.0,
        actor: row.try_get("", "actor")?,
        user: None,
        action: row.try_get("", "action")?,
        tenant: id("tenant_id")?.map(TenantId::from_uuid),
        enrollment: id("enrollment_id")?.map(EnrollmentId::from_uuid),
        connection: id("connection_id")?.map(ConnectionId::from_uuid),
        reason: row.try_get("", "reason")?,
        trace_id: row.try_get("", "trace_id")?,
        hash: String::new(),
    })
}
