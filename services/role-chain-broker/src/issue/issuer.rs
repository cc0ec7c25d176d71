//! From a request to sealed credentials. Every answer is written down before it goes out.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use aws::{Failure, FailureKind, Unclear};
use contracts::{
    ConnectionId, ErrorCode, ErrorReply, TenantId,
    connection::Grant,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials, SecretText},
};
use messaging::{Bus, BusError, Call, EndpointServer, seal::SealSeed};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{
    check::{self, Wish},
    sessions::{Issued, SessionKey, Sessions},
    used::UsedConnections,
};
use crate::{
    chain::{Chain, ChainError, Hop, SecondHop},
    grants::{GrantSource, Withdrawal},
    journal::{Given, Journal, JournalError, Refused},
    metrics::Metrics,
    principal::{PrincipalError, is_stranger},
    purpose,
};

/// Issues credentials.
///
/// Cancel: a dropped request leaves at most a session in the cache. Failure: an `ErrorReply`, always.
pub struct Issuer {
    pub grants: Arc<dyn GrantSource>,
    pub sessions: Sessions,
    pub chain: Arc<Chain>,
    pub seal: SealSeed,
    pub used: UsedConnections,
    pub journal: Journal,
    pub metrics: Metrics,
}

/// Why there is no session to give out.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    #[error(transparent)]
    Chain(ChainError),
    #[error("the session could not be written down")]
    Journal(#[source] JournalError),
}

/// Announces the endpoint.
///
/// # Errors
/// When the server refuses.
pub async fn serve(bus: &Bus, issuer: Arc<Issuer>) -> Result<EndpointServer, BusError> {
    let server =
        EndpointServer::start(bus, "role-chain-broker", "Short-lived credentials for customers' AWS accounts").await?;
    server
        .serve::<IssueCredentials, _, _>(move |call: Call<IssueCredentials>| {
            let issuer = issuer.clone();
            async move {
                let (tenant, connection) = (call.token::<TenantId>(1)?, call.token::<ConnectionId>(2)?);
                let (purpose, user) = (call.token::<String>(0)?, call.user().map(ToOwned::to_owned));
                match check::purpose(&purpose) {
                    Ok(purpose) => issuer.issue(purpose, tenant, connection, user.as_deref(), call.request).await,
                    Err(refusal) => {
                        Err(issuer.refused(None, tenant, connection, user.as_deref(), &call.request, refusal).await)
                    }
                }
            }
        })
        .await
}

impl Issuer {
    /// # Errors
    /// What the requester is told; the chain is logged here.
    pub async fn issue(
        &self,
        purpose: Purpose,
        tenant: TenantId,
        connection: ConnectionId,
        user: Option<&str>,
        request: IssueRequest,
    ) -> Result<IssuedCredentials, ErrorReply> {
        let began = Instant::now();
        let result = match self.try_issue(purpose, tenant, connection, user, &request).await {
            Err(refusal) => Err(self.refused(Some(purpose), tenant, connection, user, &request, refusal).await),
            issued => issued,
        };
        let label = result.as_ref().map_or_else(|refusal| refusal.code.as_str(), |_| "issued");
        self.metrics.issue(began.elapsed(), label);
        if let Err(refusal) = &result {
            tracing::info!(%tenant, %connection, %purpose, code = %refusal.code, "no credentials were issued");
        }
        result
    }

    /// Writes a refusal down; gives what the requester is told, which is another thing when that fails.
    async fn refused(
        &self,
        purpose: Option<Purpose>,
        tenant: TenantId,
        connection: ConnectionId,
        user: Option<&str>,
        request: &IssueRequest,
        refusal: ErrorReply,
    ) -> ErrorReply {
        let requester = check::is_requester(&request.requester).then(|| request.requester.as_str().into());
        let (user, reason, code) = (user.map(Cow::from), refusal.message.as_str().into(), refusal.code);
        let refused = Refused { tenant, connection, purpose, requester, user, code, reason };
        self.journal.denied(refused).await.err().map_or(refusal, ErrorReply::from)
    }

    async fn try_issue(
        &self,
        purpose: Purpose,
        tenant: TenantId,
        connection: ConnectionId,
        user: Option<&str>,
        request: &IssueRequest,
    ) -> Result<IssuedCredentials, ErrorReply> {
        if is_stranger(tenant) {
            // It is no tenant, whatever a grant may say.
            check::may_issue(connection, purpose, None::<Arc<Grant>>)?;
        }
        let wish = check::wish(request, purpose)?;
        let grant = check::may_issue(connection, purpose, self.grant(tenant, connection).await?)?;
        let key = SessionKey::of(&grant, purpose, wish.duration);
        let (issued, cached) = self.good_session(&key, &grant, purpose, &wish, user).await?;
        self.metrics.cache(cached);
        self.still_granted(&grant, &key, purpose, &wish).await?;
        let reply = self.sealed(purpose, &grant, &issued, request)?;
        if cached {
            self.journal.answered_from_cache(given(&grant, purpose, &wish, user, &issued))?;
        }
        self.used.note(tenant, connection);
        let (requester, session) = (&wish.requester, &issued.session_name);
        tracing::info!(%tenant, %connection, %purpose, requester, session, cached, "credentials were issued");
        Ok(reply)
    }

    async fn grant(&self, tenant: TenantId, connection: ConnectionId) -> Result<Option<Arc<Grant>>, ErrorReply> {
        self.grants.get(tenant, connection).await.map_err(|error| {
            tracing::warn!(%tenant, %connection, error = ?error, "the grant could not be read");
            let message = "what may be issued could not be read just now: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(1_000)
        })
    }

    /// A session that no revocation has reached. A revocation and its end may pass while this instance hears nothing of the grants: the bucket tells of it
    /// all the same.
    async fn good_session(
        &self,
        key: &SessionKey,
        grant: &Grant,
        purpose: Purpose,
        wish: &Wish,
        user: Option<&str>,
    ) -> Result<(Arc<Issued>, bool), ErrorReply> {
        let got = self.session(key, grant, purpose, wish, user).await?;
        if !self.is_denied(grant, &got.0).await? {
            return Ok(got);
        }
        self.sessions.withdraw(&Withdrawal::all(grant)).await;
        let again = self.session(key, grant, purpose, wish, user).await?;
        if !self.is_denied(grant, &again.0).await? {
            return Ok(again);
        }
        self.sessions.withdraw(&Withdrawal::all(grant)).await;
        let message = "the tenant's sessions were just revoked: try again";
        Err(ErrorReply::new(ErrorCode::Unavailable, message).retry_after(2_000))
    }

    async fn is_denied(&self, grant: &Grant, issued: &Issued) -> Result<bool, ErrorReply> {
        let denied = self.chain.denied(grant.tenant).await.map_err(|error| refusal(grant.connection, &error))?;
        Ok(denied.is_some_and(|denied| issued.session.issued_at < denied))
    }

    async fn session(
        &self,
        key: &SessionKey,
        grant: &Grant,
        purpose: Purpose,
        wish: &Wish,
        user: Option<&str>,
    ) -> Result<(Arc<Issued>, bool), ErrorReply> {
        let make = async {
            let partition = grant.role_arn.partition();
            let ids = self.grants.external_ids(grant.tenant);
            let first_hop_policy = purpose::first_hop_policy(partition, &ids, &grant.external_id);
            let session_name = check::session_name(purpose);
            let hop = SecondHop {
                role: &grant.role_arn,
                external_id: &grant.external_id,
                session_policy: &purpose::session_policy(purpose, &grant.region),
                duration: wish.duration,
                session_name: &session_name,
                region: &grant.region,
            };
            let made = self.chain.issue(grant.tenant, first_hop_policy.into(), &hop).await;
            // Said once, and not by each of those who wait for it.
            let made =
                made.map(|session| Issued { session, session_name: session_name.clone() }).inspect_err(|error| {
                    let (tenant, connection) = (grant.tenant, grant.connection);
                    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%tenant, %connection, cause, "no session: {error}");
                });
            let issued = made.map_err(NoSession::Chain)?;
            // Here and not where it is given out: nobody has it before it is written down, and whoever finds its name in CloudTrail finds it in the audit.
            self.journal.issued(given(grant, purpose, wish, user, &issued), 1).await.map_err(NoSession::Journal)?;
            Ok(issued)
        };
        let got = self.sessions.get(key.clone(), wish.min_remaining, make).await;
        got.map_err(|error| match &*error {
            NoSession::Chain(error) => refusal(grant.connection, error),
            NoSession::Journal(error) => error.into(),
        })
    }

    /// The grant may have been withdrawn while STS was asked: then what came too late for the eviction is dropped here.
    async fn still_granted(
        &self,
        grant: &Grant,
        key: &SessionKey,
        purpose: Purpose,
        wish: &Wish,
    ) -> Result<(), ErrorReply> {
        let now = check::may_issue(grant.connection, purpose, self.grant(grant.tenant, grant.connection).await?);
        match now {
            Ok(now) if SessionKey::of(&now, purpose, wish.duration) == *key => Ok(()),
            changed => {
                self.sessions.withdraw(&Withdrawal::all(grant)).await;
                changed?;
                let message = format!("the connection {} was just changed: try again", grant.connection);
                Err(ErrorReply::new(ErrorCode::Unavailable, message).retry_after(100))
            }
        }
    }

    fn sealed(
        &self,
        purpose: Purpose,
        grant: &Grant,
        issued: &Issued,
        request: &IssueRequest,
    ) -> Result<IssuedCredentials, ErrorReply> {
        let keys = &issued.session.keys;
        let expires_at = issued.session.expires_at;
        let contents = SealedCredentials {
            tenant: grant.tenant,
            connection: grant.connection,
            purpose,
            access_key_id: keys.access_key_id.expose_secret().to_owned(),
            secret_access_key: SecretText::new(keys.secret_access_key.expose_secret().to_owned()),
            session_token: SecretText::new(
                keys.session_token.as_ref().map(|token| token.expose_secret().to_owned()).unwrap_or_default(),
            ),
            expires_at,
        };
        let internal =
            |_| ErrorReply::new(ErrorCode::Internal, "the credentials could not be written: please report it");
        let plain = serde_json::to_vec(&contents).map(Zeroizing::new).map_err(internal)?;
        let sealed = self.seal.seal(&request.requester_key, &plain).map_err(|_| {
            let message = "requester_key is not a public X25519 key in the nkeys form (X...): its checksum is wrong";
            ErrorReply::new(ErrorCode::InvalidRequest, message)
        })?;
        Ok(IssuedCredentials {
            tenant: grant.tenant,
            connection: grant.connection,
            purpose,
            account: grant.account.clone(),
            role_arn: grant.role_arn.clone(),
            region: grant.region.clone(),
            expires_at,
            broker_key: self.seal.public().clone(),
            sealed,
        })
    }
}

/// What is written down of credentials that were given out.
fn given<'a>(
    grant: &'a Grant,
    purpose: Purpose,
    wish: &'a Wish,
    user: Option<&'a str>,
    issued: &'a Issued,
) -> Given<'a> {
    Given {
        tenant: grant.tenant,
        connection: grant.connection,
        purpose,
        account: Cow::Borrowed(&grant.account),
        requester: wish.requester.as_str().into(),
        user: user.map(Cow::from),
        session_name: issued.session_name.as_str().into(),
        expires_at: issued.session.expires_at,
    }
}

/// What a requester is told when the chain broke.
fn refusal(connection: ConnectionId, error: &ChainError) -> ErrorReply {
    match error {
        ChainError::Principal(PrincipalError::NotReady) => {
            let message = "the tenant's principal is still being made: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(2_000)
        }
        ChainError::Principal(PrincipalError::Store(_)) => {
            let message = "the tenant's principal could not be read just now: try again";
            ErrorReply::new(ErrorCode::Unavailable, message).retry_after(1_000)
        }
        ChainError::Principal(_) => {
            let message = "the tenant's principal cannot be used: an operator must look at role-chain-broker's log";
            ErrorReply::new(ErrorCode::Internal, message)
        }
        ChainError::Busy(busy) => {
            let message = "too much is asked of AWS STS at the moment: try again after retry_after_ms";
            let wait = u64::try_from(busy.again_after.as_millis()).unwrap_or(u64::MAX);
            ErrorReply::new(ErrorCode::Throttled, message).retry_after(wait.max(100))
        }
        ChainError::Sts { hop, failure } => sts_refusal(connection, *hop, failure),
    }
}

fn sts_refusal(connection: ConnectionId, hop: Hop, failure: &Failure) -> ErrorReply {
    let later = |code, message: &str, wait: Duration| {
        ErrorReply::new(code, message).retry_after(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    };
    match (failure.kind, hop) {
        (FailureKind::Indeterminate(Unclear::Throttled), _) => {
            later(ErrorCode::Throttled, "AWS STS is asked too much at the moment: try again", Duration::from_secs(2))
        }
        (FailureKind::Indeterminate(_), _) => {
            later(ErrorCode::Unavailable, "AWS STS gave no clear answer: try again", Duration::from_secs(1))
        }
        (FailureKind::Refused, Hop::Customer) => {
            let message = format!(
                "AWS refused the role of connection {connection}: the customer has removed or changed it; ask for a new verification, or let the customer launch the stack again"
            );
            ErrorReply::new(ErrorCode::Denied, message)
        }
        // A principal that was just made, or whose key was: IAM settles within seconds.
        (_, Hop::Principal) => later(
            ErrorCode::Unavailable,
            "the tenant's principal cannot be used yet: try again; if it lasts, an operator must look at role-chain-broker's log",
            Duration::from_secs(5),
        ),
        (FailureKind::Other, Hop::Customer) if failure.is("ExpiredToken") || failure.is("InvalidClientTokenId") => {
            later(
                ErrorCode::Unavailable,
                "the session that was begun with is over: try again",
                Duration::from_millis(200),
            )
        }
        (FailureKind::Other, Hop::Customer) => {
            let code = failure.code.as_deref().unwrap_or("no code");
            let message = format!(
                "AWS STS does not take the request for connection {connection} ({code}): an operator must look at role-chain-broker's log"
            );
            ErrorReply::new(ErrorCode::Internal, message)
        }
    }
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
