//! Fills the book from the stream of grants.

use std::sync::Arc;

use contracts::{
    CloudEvent, ConnectionId, EnvelopeError, Message as _, Stream, Subject, TenantId, connection::Grant,
    subject::captures,
};
use messaging::{
    Bus,
    async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream as Kept},
};
use runtime::Part;
use tokio_util::sync::CancellationToken;

use super::{Book, Change, Withdrawal};
use crate::follow::{Current, Followed};

/// What is done at once with a withdrawal.
pub(super) type OnWithdrawal = Arc<dyn Fn(&Withdrawal) + Send + Sync>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The stream of grants cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error(
    "the stream of grants could not be opened: check that JetStream is on and that this user may read it (deploy/nats)"
)]
pub struct WatchError(#[source] Source);

/// The stream was asked and did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the last grant of the connection could not be read")]
pub struct GrantError(#[source] Source);

/// The book and the stream behind it. Cheap to clone.
#[derive(Clone)]
pub struct Grants {
    book: Arc<Book>,
    stream: Kept,
    /// Whether the book is what the stream says.
    current: Current,
    withdrawn: OnWithdrawal,
}

impl Grants {
    /// Opens the stream. `withdrawn` is called for every grant under which nothing may be handed out again, before whoever found that out goes on: the
    /// request that learns of a missed withdrawal must not be answered out of what was cached before.
    ///
    /// # Errors
    /// When the stream is not there or may not be read.
    pub async fn open(bus: &Bus, withdrawn: OnWithdrawal) -> Result<Self, WatchError> {
        let stream =
            bus.jetstream().get_stream(Stream::Grants.name()).await.map_err(|error| WatchError(error.into()))?;
        Ok(Self { book: Arc::default(), stream, current: Current::default(), withdrawn })
    }

    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The last word on a connection. Where the book does not have it, or may not be current, the stream itself is asked.
    ///
    /// # Errors
    /// When the stream had to be asked and did not answer.
    pub async fn last(&self, tenant: TenantId, connection: ConnectionId) -> Result<Option<Arc<Grant>>, GrantError> {
        let known = self.book.get(tenant, connection);
        if known.is_some() && self.current.holds() {
            return Ok(known);
        }
        let subject = Subject::fill(Grant::SUBJECT, &[tenant.into(), connection.into()]);
        match self.stream.get_last_raw_message_by_subject(subject.as_str()).await {
            Ok(message) => {
                self.accept(&message.subject, &message.payload).map_err(|error| GrantError(error.into()))?;
                Ok(self.book.get(tenant, connection))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(GrantError(error.into())),
        }
    }

    /// Follows the stream until shutdown. When what was read may not be current, [`Grants::last`] asks for each grant.
    ///
    /// # Errors
    /// Never: it waits for as long as it takes.
    pub async fn follow(self, part: Part, shutdown: CancellationToken) -> Result<(), WatchError> {
        let followed = Followed {
            what: "grants",
            stream: self.stream.clone(),
            filter: Stream::Grants.subjects().to_owned(),
            current: self.current.clone(),
        };
        // Said where it was found; the other connections go on.
        followed.follow(|message| drop(self.accept(&message.subject, &message.payload)), &part, &shutdown).await;
        Ok(())
    }

    /// # Errors
    /// When the grant cannot be read; nothing is issued for its connection then.
    fn accept(&self, subject: &str, payload: &[u8]) -> Result<(), EnvelopeError> {
        match CloudEvent::<Grant>::decode(payload) {
            Ok(event) => {
                let grant = event.data;
                let (tenant, connection, revision) = (grant.tenant, grant.connection, grant.revision);
                if let Change::Withdrawn(withdrawal) = self.book.accept(grant) {
                    tracing::info!(%tenant, %connection, revision, purposes = ?withdrawal.purposes, "cached credentials of the connection are withdrawn");
                    self.withdraw(&withdrawal);
                }
                Ok(())
            }
            // A newer registry may have taken the grant back in words that this broker does not know.
            Err(error) => {
                tracing::error!(subject, %error, "a grant cannot be read: nothing is issued for its connection until another comes");
                if let Some(withdrawal) =
                    whose(subject).and_then(|(tenant, connection)| self.book.forget(tenant, connection))
                {
                    self.withdraw(&withdrawal);
                }
                Err(error)
            }
        }
    }

    fn withdraw(&self, withdrawal: &Withdrawal) {
        (self.withdrawn)(withdrawal);
    }
}

/// Which connection's grants come on this subject.
fn whose(subject: &str) -> Option<(TenantId, ConnectionId)> {
    let tokens = captures(Grant::SUBJECT, subject)?;
    let [tenant, connection] = tokens.as_slice() else { return None };
    Some((tenant.parse().ok()?, connection.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grants_subject_says_whose_it_is() {
        let grant = crate::grants::tests::grant(1);
        assert_eq!(whose(grant.subject().as_str()), Some((grant.tenant, grant.connection)));
        assert_eq!(whose("rolebridge.internal.v1.grants.x.y"), None);
    }
}
