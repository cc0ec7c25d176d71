//! From a request to sealed credentials. Every answer is written down before it goes out.

use std::{borrow::Cow, sync::Arc, time::Instant};

use contracts::{
    ConnectionId, ErrorCode, ErrorReply, TenantId,
    connection::Grant,
    credentials::{IssueCredentials, IssueRequest, IssuedCredentials, Purpose, SealedCredentials, SecretText},
};
use messaging::{Bus, BusError, Call, EndpointServer, seal::SealError, seal::SealSeed};
use secrecy::{ExposeSecret as _, SecretSlice};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::{
    check::{self, Wish},
    refusals::{causes, no_session, refusal},
    sessions::{Cause, Issued, NoSession, SessionKey, Sessions},
    used::UsedConnections,
};
use crate::{
    chain::{Chain, SecondHop},
    grants::{GrantSource, Withdrawal},
    journal::{Given, Journal, Refused},
    metrics::Metrics,
    principal::is_stranger,
    purpose,
    sts::{Session, SessionDuration},
    tags::SessionTags,
};

/// Bytes that a box's contents have room in: what grows would leave copies behind that nobody wipes.
const MOST_CONTENTS: usize = 16_384;

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

/// A refusal, and whether it is one of before that was remembered.
struct Told {
    reply: ErrorReply,
    again: bool,
}

impl From<ErrorReply> for Told {
    fn from(reply: ErrorReply) -> Self {
        Self { reply, again: false }
    }
}

/// Announces the endpoint.
///
/// # Errors
/// When the server refuses.
pub async fn serve(bus: &Bus, issuer: Arc<Issuer>) -> Result<EndpointServer, BusError> {
    let server =
        EndpointServer::start(bus, "role-chain-broker", "Short-lived credentials for customers' AWS accounts").await?;
    server
        .serve_often::<IssueCredentials, _, _>(move |call: Call<IssueCredentials>| {
            let issuer = issuer.clone();
            async move {
                let (tenant, connection) = (call.token::<TenantId>(1)?, call.token::<ConnectionId>(2)?);
                let (purpose, user) = (call.token::<String>(0)?, call.user().map(ToOwned::to_owned));
                match check::purpose(&purpose) {
                    Ok(purpose) => issuer.issue(purpose, tenant, connection, user.as_deref(), call.request).await,
                    Err(refusal) => {
                        let told = refusal.into();
                        Err(issuer.refused(None, tenant, connection, user.as_deref(), &call.request, told).await)
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
            Err(told) => Err(self.refused(Some(purpose), tenant, connection, user, &request, told).await),
            Ok(issued) => Ok(issued),
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
        told: Told,
    ) -> ErrorReply {
        let refusal = told.reply;
        let requester = check::is_requester(&request.requester).then(|| request.requester.as_str().into());
        let (user, reason, code) = (user.map(Cow::from), refusal.message.as_str().into(), refusal.code);
        let refused = Refused { tenant, connection, purpose, requester, user, code, reason };
        let written =
            if told.again { self.journal.denied_from_cache(refused) } else { self.journal.denied(refused).await };
        written.err().map_or(refusal, ErrorReply::from)
    }

    async fn try_issue(
        &self,
        purpose: Purpose,
        tenant: TenantId,
        connection: ConnectionId,
        user: Option<&str>,
        request: &IssueRequest,
    ) -> Result<IssuedCredentials, Told> {
        if is_stranger(tenant) {
            // It is no tenant, whatever a grant may say.
            check::may_issue(connection, purpose, None::<Arc<Grant>>)?;
        }
        let wish = check::wish(request, purpose)?;
        // Before anything costs.
        self.seal.check(&request.requester_key).map_err(no_key)?;
        let grant = check::may_issue(connection, purpose, self.grant(tenant, connection).await?)?;
        let key = SessionKey::of(&grant, purpose, wish.duration);
        let got = self.good_session(&key, &grant, purpose, &wish, user).await;
        // First: a session that was withdrawn while it was made is refused for what the grant says now.
        self.still_granted(&grant, &key, purpose, &wish).await?;
        let (issued, cached) = got?;
        self.metrics.cache(cached);
        let reply = self.sealed(purpose, &grant, &issued, request)?;
        if cached {
            let given = given(&grant, purpose, &wish.requester, user, &issued);
            self.journal.answered_from_cache(given).map_err(ErrorReply::from)?;
        }
        self.used.note(tenant, connection);
        let (requester, session) = (&wish.requester, &issued.session_name);
        if cached {
            // Thousands a second.
            tracing::debug!(%tenant, %connection, %purpose, requester, session, cached, "credentials were issued");
        } else {
            tracing::info!(%tenant, %connection, %purpose, requester, session, cached, "credentials were issued");
        }
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
        grant: &Arc<Grant>,
        purpose: Purpose,
        wish: &Wish,
        user: Option<&str>,
    ) -> Result<(Arc<Issued>, bool), Told> {
        for _ in 0..2 {
            match self.session(key, grant, purpose, wish, user).await {
                Ok((issued, cached)) if !cached || !self.is_denied(grant, &issued).await? => {
                    return Ok((issued, cached));
                }
                Ok(_) | Err(NoSession::Denied) => self.sessions.withdraw(&Withdrawal::all(grant)),
                Err(error) => {
                    let again = matches!(error, NoSession::Chain { remembered: Some(_), .. });
                    return Err(Told { reply: no_session(grant.connection, &error), again });
                }
            }
        }
        let message = "the tenant's sessions were just revoked: try again";
        Err(ErrorReply::new(ErrorCode::Unavailable, message).retry_after(2_000).into())
    }

    /// Of what was in the cache. For a session that was just begun this was asked before it was given out ([`Wanted::begin`]).
    async fn is_denied(&self, grant: &Grant, issued: &Issued) -> Result<bool, ErrorReply> {
        let denied = self.chain.denied_as_known(grant.tenant).await;
        Ok(issued.is_denied(denied.map_err(|error| refusal(grant.connection, &error))?))
    }

    async fn session(
        &self,
        key: &SessionKey,
        grant: &Arc<Grant>,
        purpose: Purpose,
        wish: &Wish,
        user: Option<&str>,
    ) -> Result<(Arc<Issued>, bool), NoSession> {
        let make = |cause: Cause| {
            let wanted = Wanted {
                chain: self.chain.clone(),
                grants: self.grants.clone(),
                journal: self.journal.clone(),
                grant: grant.clone(),
                purpose,
                duration: wish.duration,
                requester: wish.requester.clone(),
                user: user.map(ToOwned::to_owned),
            };
            // Whoever asked may have no trace; what is asked of AWS is always part of one.
            let span = tracing::info_span!("begin a session", tenant = %grant.tenant, connection = %grant.connection, %purpose);
            wanted.begin(cause).instrument(span)
        };
        self.sessions.get(key.clone(), grant.revision, wish.min_remaining, make).await
    }

    /// The grant may have been withdrawn while STS was asked: then what came too late for the eviction is dropped here.
    async fn still_granted(
        &self,
        grant: &Arc<Grant>,
        key: &SessionKey,
        purpose: Purpose,
        wish: &Wish,
    ) -> Result<(), ErrorReply> {
        let now = self.grant(grant.tenant, grant.connection).await?;
        if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, grant)) {
            return Ok(());
        }
        match check::may_issue(grant.connection, purpose, now) {
            Ok(now) if SessionKey::of(&now, purpose, wish.duration) == *key => Ok(()),
            changed => {
                self.sessions.withdraw(&Withdrawal::all(grant));
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
        let sealed = self.seal.seal(&request.requester_key, issued.contents.expose_secret()).map_err(no_key)?;
        Ok(IssuedCredentials {
            tenant: grant.tenant,
            connection: grant.connection,
            purpose,
            account: grant.account.clone(),
            role_arn: grant.role_arn.clone(),
            region: grant.region.clone(),
            expires_at: issued.session.expires_at,
            broker_key: self.seal.public().clone(),
            sealed,
        })
    }
}

fn no_key(_: SealError) -> ErrorReply {
    let message = "requester_key is not a public X25519 key in the nkeys form (X...): its checksum is wrong";
    ErrorReply::new(ErrorCode::InvalidRequest, message)
}

/// What is written down of credentials that were given out.
fn given<'a>(
    grant: &'a Grant,
    purpose: Purpose,
    requester: &'a str,
    user: Option<&'a str>,
    issued: &'a Issued,
) -> Given<'a> {
    Given {
        tenant: grant.tenant,
        connection: grant.connection,
        purpose,
        account: Cow::Borrowed(&grant.account),
        requester: requester.into(),
        user: user.map(Cow::from),
        session_name: issued.session_name.as_str().into(),
        expires_at: issued.session.expires_at,
    }
}

/// What is in every box with this session.
fn contents(purpose: Purpose, grant: &Grant, session: &Session) -> Result<SecretSlice<u8>, serde_json::Error> {
    let keys = &session.keys;
    let contents = SealedCredentials {
        tenant: grant.tenant,
        connection: grant.connection,
        purpose,
        access_key_id: keys.access_key_id.expose_secret().to_owned(),
        secret_access_key: SecretText::new(keys.secret_access_key.expose_secret().to_owned()),
        session_token: SecretText::new(
            keys.session_token.as_ref().map(|token| token.expose_secret().to_owned()).unwrap_or_default(),
        ),
        expires_at: session.expires_at,
        account: Some(grant.account.clone()),
        role_arn: Some(grant.role_arn.clone()),
        region: Some(grant.region.clone()),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(MOST_CONTENTS));
    serde_json::to_writer(&mut *plain, &contents)?;
    Ok(SecretSlice::from(plain.to_vec()))
}

/// A session to begin, by a task of its own: whoever asked may go away.
struct Wanted {
    chain: Arc<Chain>,
    grants: Arc<dyn GrantSource>,
    journal: Journal,
    grant: Arc<Grant>,
    purpose: Purpose,
    duration: SessionDuration,
    requester: String,
    user: Option<String>,
}

impl Wanted {
    async fn begin(self, cause: Cause) -> Result<Issued, NoSession> {
        let (grant, purpose) = (&*self.grant, self.purpose);
        let ids = self.grants.external_ids(grant.tenant);
        let first_hop_policy = purpose::first_hop_policy(grant.role_arn.partition(), &ids, &grant.external_id);
        let session_name = check::session_name(purpose);
        let hop = SecondHop {
            role: &grant.role_arn,
            external_id: &grant.external_id,
            session_policy: &purpose::session_policy(purpose, &grant.region),
            duration: self.duration,
            session_name: &session_name,
            region: &grant.region,
            tags: grant.session_tags.then(|| SessionTags::of(grant.connection, purpose)),
        };
        let made = self.chain.issue(grant.tenant, first_hop_policy.into(), &hop).await;
        // Said once, and not by each of those who wait for it.
        let made = made.inspect_err(|error| {
            let (tenant, connection) = (grant.tenant, grant.connection);
            let cause = causes(error);
            tracing::warn!(%tenant, %connection, cause, "no session: {error}");
        });
        let made = made?;
        let contents = contents(purpose, grant, &made).map_err(|_| NoSession::Unwritable)?;
        let issued = Issued::new(made, session_name, contents);
        // Here and not where it is given out: nobody has it before it is written down, and whoever finds its name in CloudTrail finds it in the audit.
        let given = given(grant, purpose, &self.requester, self.user.as_deref(), &issued);
        let answers = match cause {
            Cause::Request => 1,
            Cause::Age => 0,
        };
        // A revocation that came while AWS was asked is in the bucket by now, or later than the session.
        let (written, denied) = tokio::join!(self.journal.issued(given, answers), self.chain.denied(grant.tenant));
        written.map_err(|error| NoSession::Journal(Arc::new(error)))?;
        if issued.is_denied(denied?) {
            return Err(NoSession::Denied);
        }
        Ok(issued)
    }
}

#[cfg(test)]
#[path = "issuer_tests.rs"]
mod tests;
