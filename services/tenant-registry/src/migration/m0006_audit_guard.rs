//! The audit log only grows, whichever words are used: what `REPLACE` does in SQLite is no DELETE for a trigger. And its end never moves back, so that a log
//! that was cut off cannot be made to look whole without the owner's rights.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, set_guard(manager.get_database_backend())).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, lift_guard(manager.get_database_backend())).await
    }
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}

fn set_guard(backend: DbBackend) -> &'static [&'static str] {
    match backend {
        DbBackend::Sqlite => &[
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE sequence = NEW.sequence) \
             BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
            "CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head \
             BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
            "CREATE TRIGGER audit_head_no_replace BEFORE INSERT ON audit_head WHEN EXISTS (SELECT 1 FROM audit_head WHERE id = NEW.id) \
             BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
            "CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head WHEN NEW.sequence <= OLD.sequence OR NEW.id <> OLD.id \
             BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
        ],
        _ => &[
            "CREATE TRIGGER audit_head_no_delete BEFORE DELETE OR TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
            "CREATE TRIGGER audit_head_forward BEFORE UPDATE ON audit_head FOR EACH ROW WHEN (NEW.sequence <= OLD.sequence OR NEW.id <> OLD.id) \
             EXECUTE FUNCTION audit_refuse()",
        ],
    }
}

fn lift_guard(backend: DbBackend) -> &'static [&'static str] {
    match backend {
        DbBackend::Sqlite => &[
            "DROP TRIGGER audit_no_replace",
            "DROP TRIGGER audit_head_no_delete",
            "DROP TRIGGER audit_head_no_replace",
            "DROP TRIGGER audit_head_forward",
        ],
        _ => &["DROP TRIGGER audit_head_no_delete ON audit_head", "DROP TRIGGER audit_head_forward ON audit_head"],
    }
}
