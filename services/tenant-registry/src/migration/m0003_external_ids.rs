//! External IDs that change: every ID that was ever made, whose it is and what it counts for; and which of them a connection, a job and an enrollment go by.
//!
//! What must never be is said here: the same external ID twice, for anybody, at any time.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

/// What went by its enrollment's only ID until now goes on so.
const TAKE_OVER: [&str; 2] = [
    "INSERT INTO external_ids (external_id, enrollment_id, standing, created_at, updated_at) \
     SELECT external_id, id, 'current', created_at, updated_at FROM enrollments",
    "UPDATE connections SET external_id = (SELECT e.external_id FROM enrollments e WHERE e.id = connections.enrollment_id)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(external_ids()).await?;
        let index =
            Index::create().name("external_ids_enrollment").table("external_ids").col("enrollment_id").to_owned();
        manager.create_index(index).await?;
        let columns = [
            ("enrollments", text_null("next_external_id")),
            ("enrollments", text_null("rotation")),
            ("connections", text("external_id").default("").to_owned()),
            ("connections", text_null("previous_external_id")),
            ("connections", text_null("rotation")),
            ("jobs", text_null("external_id")),
            ("jobs", text_null("retired_external_id")),
        ];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        for statement in TAKE_OVER {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            ("jobs", "retired_external_id"),
            ("jobs", "external_id"),
            ("connections", "rotation"),
            ("connections", "previous_external_id"),
            ("connections", "external_id"),
            ("enrollments", "rotation"),
            ("enrollments", "next_external_id"),
        ];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).drop_column(column).to_owned()).await?;
        }
        manager.drop_table(Table::drop().table("external_ids").to_owned()).await
    }
}

fn external_ids() -> TableCreateStatement {
    Table::create()
        .table("external_ids")
        .col(text("external_id").primary_key())
        .col(uuid("enrollment_id"))
        .col(text("standing"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(ForeignKey::create().from("external_ids", "enrollment_id").to("enrollments", "id"))
        .to_owned()
}
