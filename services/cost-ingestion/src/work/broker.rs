//! Credentials from the broker, over NATS.

use crate::credentials::{CredentialError, CredentialSource, Credentials, Scope};
use async_trait::async_trait;
use client::{Client, IssueError};
use contracts::ErrorCode;
use contracts::credentials::Purpose;

/// Asks the broker for `cost-read`; believes the pinned key alone.
#[derive(Debug)]
pub struct Broker(pub Client);

#[async_trait]
impl CredentialSource for Broker {
    async fn credentials(&self, scope: Scope) -> Result<Credentials, CredentialError> {
        let (_, opened) = self
            .0
            .issue(scope.tenant, scope.connection, Purpose::CostRead)
            .await
            .map_err(|error| as_credential_error(&error))?;
        Ok(Credentials {
            access_key_id: opened.access_key_id,
            secret_access_key: opened.secret_access_key.expose().into(),
            session_token: opened.session_token.expose().into(),
            expires_at: opened.expires_at.inner(),
        })
    }
}

fn as_credential_error(error: &IssueError) -> CredentialError {
    let reason = error.to_string();
    let refusal = match error {
        IssueError::Request(request) => request.refusal(),
        // Somebody else answered, or answered for another: that does not pass by itself.
        _ => return CredentialError::Refused { reason },
    };
    match refusal.map(|refusal| refusal.code) {
        Some(ErrorCode::Denied | ErrorCode::InvalidRequest | ErrorCode::Conflict) => {
            CredentialError::Refused { reason }
        }
        // The event may be faster than the broker's own news of the connection; or the connection has ended.
        Some(ErrorCode::NotVerified | ErrorCode::NotFound) => CredentialError::NotNow { reason },
        Some(_) | None => CredentialError::Unavailable { reason },
    }
}
