//! What may be issued for: the registry's last word on each connection, kept in memory by every instance.
//!
//! `book` is the rule (a lower revision never replaces a higher one; what changed), pure. `watch` fills it from the stream and, when the book
//! may be behind, asks the stream itself. What must not live here: credentials, AWS.

mod book;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use contracts::{ConnectionId, ExternalId, TenantId, connection::Grant};

#[cfg(test)]
pub use book::tests;
pub use book::{Book, Change, Withdrawal};
pub use watch::{GrantError, Grants, WatchError};

/// Who knows the last word.
#[async_trait]
pub trait GrantSource: Send + Sync {
    async fn get(&self, tenant: TenantId, connection: ConnectionId) -> Result<Option<Arc<Grant>>, GrantError>;

    /// External IDs of the tenant's connections that may be issued for.
    fn external_ids(&self, tenant: TenantId) -> Vec<ExternalId>;
}

#[async_trait]
impl GrantSource for Grants {
    async fn get(&self, tenant: TenantId, connection: ConnectionId) -> Result<Option<Arc<Grant>>, GrantError> {
        self.last(tenant, connection).await
    }

    fn external_ids(&self, tenant: TenantId) -> Vec<ExternalId> {
        self.book().external_ids(tenant)
    }
}

/// The book alone: for tests.
#[cfg(test)]
#[async_trait]
impl GrantSource for Book {
    async fn get(&self, tenant: TenantId, connection: ConnectionId) -> Result<Option<Arc<Grant>>, GrantError> {
        Ok(Book::get(self, tenant, connection))
    }

    fn external_ids(&self, tenant: TenantId) -> Vec<ExternalId> {
        Book::external_ids(self, tenant)
    }
}
