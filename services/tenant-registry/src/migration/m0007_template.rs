//! The version of the customer's template, of connections and of what is being proven; and whether a role was seen to admit session tags.
//!
//! Connections of before have no version: their stacks say it with their next request.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            ("connections", big_integer_null("template_version")),
            ("connections", boolean("session_tags").default(false).to_owned()),
            ("jobs", big_integer_null("template_version")),
        ];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns =
            [("jobs", "template_version"), ("connections", "session_tags"), ("connections", "template_version")];
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).drop_column(column).to_owned()).await?;
        }
        Ok(())
    }
}
