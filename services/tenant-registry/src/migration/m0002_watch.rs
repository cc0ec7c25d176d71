//! What watching keeps: on connections what the last look found, when the next one is due, when it was used, and the answers that have not yet led to a
//! change of state; and the one budget that all instances spend probes from.

use sea_orm_migration::{
    prelude::*,
    schema::*,
    sea_orm::{DbBackend, Statement},
};

use crate::entity::At;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

/// Verified connections that are there already come due over this span.
const SPREAD_MS: i64 = 3_600_000;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in columns() {
            manager.alter_table(Table::alter().table("connections").add_column(column).to_owned()).await?;
        }
        manager
            .create_index(
                Index::create().name("connections_due").table("connections").col("next_probe_at").col("id").to_owned(),
            )
            .await?;
        manager.create_table(budgets()).await?;
        let backend = manager.get_database_backend();
        manager.get_connection().execute_raw(first_looks(backend)).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("budgets").to_owned()).await?;
        manager.drop_index(Index::drop().name("connections_due").table("connections").to_owned()).await?;
        for column in NAMES {
            manager.alter_table(Table::alter().table("connections").drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

const NAMES: [&str; 7] = ["purposes", "missing", "max_session_s", "probed_at", "next_probe_at", "used_at", "streak"];

/// One at a time: SQLite adds no more in one statement.
fn columns() -> [ColumnDef; 7] {
    [
        text("purposes").default("[]").take(),
        // What the last grant leaves out.
        text("missing").default("[]").take(),
        big_integer_null("max_session_s").take(),
        big_integer_null("probed_at").take(),
        big_integer_null("next_probe_at").take(),
        big_integer_null("used_at").take(),
        text_null("streak").take(),
    ]
}

fn budgets() -> TableCreateStatement {
    Table::create()
        .table("budgets")
        .col(text("name").primary_key())
        .col(big_integer("reserved"))
        .col(big_integer("shared"))
        .col(big_integer("refilled_at"))
        .col(big_integer("version"))
        .to_owned()
}

/// The factor has no divisor in common with the span, so that even neighbouring milliseconds fall far apart.
fn first_looks(backend: DbBackend) -> Statement {
    let now = crate::entity::columns::milliseconds(At::now().0);
    let text = format!(
        "UPDATE connections SET next_probe_at = {now} + (created_at * 7919) % {SPREAD_MS} \
         WHERE state IN ('verified', 'degraded', 'insecure', 'disconnected')"
    );
    Statement::from_string(backend, text)
}
