//! The AWS SDK asks here.

use std::time::SystemTime;

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};

use crate::{CachedCredentials, Session};

/// As it stands in the SDK's logs.
const PROVIDER: &str = "rolebridge";

impl ProvideCredentials for CachedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let session = self.get().await.map_err(CredentialsError::provider_error)?;
            provider::Result::Ok(self.as_sdk_credentials(&session))
        })
    }
}

impl CachedCredentials {
    /// The SDK keeps what it is given until ten seconds before its expiry. It is told when it must ask again, which is `min_remaining` before the end: what is in use
    /// then lasts as long as was asked for, and the renewal is this cache's.
    fn as_sdk_credentials(&self, session: &Session) -> Credentials {
        let given = &session.credentials;
        let ask_again = SystemTime::from(given.expires_at.inner())
            .checked_sub(self.renewal().min_remaining)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        Credentials::new(
            given.access_key_id.clone(),
            given.secret_access_key.expose(),
            Some(given.session_token.expose().to_owned()),
            Some(ask_again),
            PROVIDER,
        )
    }
}
