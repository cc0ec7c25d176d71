//! The steps of suspensions, revocations and deletions, so that each can be shown, and goes on after a crash.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(revocations()).await?;
        let by_tenant = Index::create().name("revocations_tenant").table("revocations").col("tenant_id").to_owned();
        manager.create_index(by_tenant).await?;
        let open = Index::create()
            .name("revocations_open")
            .table("revocations")
            .col("created_at")
            .and_where(Expr::col("done_at").is_null())
            .to_owned();
        manager.create_index(open).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("revocations").to_owned()).await
    }
}

fn revocations() -> TableCreateStatement {
    Table::create()
        .table("revocations")
        // The job's ID, where the step is a job of the broker.
        .col(uuid("id").primary_key())
        .col(uuid("tenant_id"))
        .col(uuid_null("connection_id"))
        .col(text("action"))
        .col(big_integer("before"))
        .col(text_null("reason"))
        .col(big_integer_null("sent_at"))
        .col(big_integer_null("done_at"))
        .col(text_null("waiting_for"))
        .col(big_integer("created_at"))
        .foreign_key(ForeignKey::create().from("revocations", "tenant_id").to("tenants", "id"))
        .to_owned()
}
