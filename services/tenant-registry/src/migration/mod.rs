//! The schema, step by step. A step that was released is never changed: the next one mends it.

mod m0001_first;
mod m0002_watch;
mod m0003_external_ids;
mod m0004_revocations;
mod m0005_audit_chain;
mod m0006_audit_guard;
mod m0007_template;

use sea_orm_migration::prelude::*;

/// All steps in order.
#[derive(Debug)]
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_first::Migration),
            Box::new(m0002_watch::Migration),
            Box::new(m0003_external_ids::Migration),
            Box::new(m0004_revocations::Migration),
            Box::new(m0005_audit_chain::Migration),
            Box::new(m0006_audit_guard::Migration),
            Box::new(m0007_template::Migration),
        ]
    }
}
