//! Looking at a customer's role from inside: its longest session, and which purposes' permissions are there. Evidence, and no verdict.
//!
//! Where the role lets itself be asked (`iam:SimulatePrincipalPolicy` and `iam:GetRole` on itself, which the customer template allows), IAM
//! itself says which actions are denied. Where it does not, a harmless read with the purpose's own session policy shows what that read needs,
//! and no more. A simulation knows the role's policies and not those of resources: a bucket policy that denies us, or an organization's, is
//! seen when the export is read. What must not live here: what a purpose needs (`purpose`), and what follows (the registry).

#[cfg(test)]
pub mod fake;
mod own_role;
mod read;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws::{Failure, FailureKind};
use contracts::{
    Region, RoleArn, Timestamp,
    costs::ExportLocation,
    credentials::Purpose,
    verification::{PermissionCheck, PurposeEvidence, PurposeOutcome},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    chain::{Chain, ChainError},
    metrics::Metrics,
    principal::PrincipalError,
    probe::Suspect,
    purpose::{self, Declared, Need, Read, Scope},
    sts::{Answer, Keys, Session},
    wrap::WrapError,
};

pub use own_role::RealOwnRole;
pub use read::{RealReads, UnusableHttp};

/// Between two tries of a call that was not answered clearly.
const PAUSE: Duration = Duration::from_millis(400);
/// Tries of one call.
const TRIES: usize = 3;

/// IAM in the customer's account, asked by a role about itself.
///
/// Cancel: nothing is changed by any of these. Failure: see [`aws::FailureKind`]; `Refused` means that the role may not ask.
#[async_trait]
pub trait OwnRole: Send + Sync {
    /// The longest session that the role gives, in seconds.
    async fn longest_session(&self, keys: &Keys, role: &RoleArn, region: &Region) -> Result<Answer<u32>, Failure>;

    /// Those of the needed actions that the role's policies do not allow.
    async fn denied(
        &self,
        keys: &Keys,
        role: &RoleArn,
        region: &Region,
        need: &Need,
    ) -> Result<Answer<Vec<String>>, Failure>;
}

/// A harmless read in the customer's account.
///
/// Cancel: nothing is changed. Failure: `Refused` is the answer that the permission is missing.
#[async_trait]
pub trait Reads: Send + Sync {
    async fn read(&self, keys: &Keys, region: &Region, read: &Read) -> Result<Answer<()>, Failure>;
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    pub longest_session_s: Option<u32>,
    /// One for each purpose.
    pub purposes: Vec<PurposeEvidence>,
}

/// Looks at roles whose probes held.
#[derive(Clone)]
pub struct Looker {
    pub chain: Arc<Chain>,
    pub own_role: Arc<dyn OwnRole>,
    pub reads: Arc<dyn Reads>,
    pub metrics: Metrics,
}

/// One look, with its end.
struct Look<'a> {
    looker: &'a Looker,
    suspect: &'a Suspect,
    by: Instant,
}

impl Looker {
    /// Looks until it has seen all, or until `by`; what was not seen by then is indeterminate.
    ///
    /// Cancel: may be dropped at any time. Failure: is evidence.
    pub async fn look(&self, suspect: &Suspect, export: Option<&ExportLocation>, by: Instant) -> Sight {
        let look = Look { looker: self, suspect, by };
        let scope = Scope { partition: suspect.role.partition(), export: export.filter(|it| it.is_well_formed()) };
        let inside = look.session(&purpose::look_at_itself(&suspect.role)).await;
        let session = match &inside {
            Ok(session) => session,
            Err(failure) => {
                let unknown = |purpose| evidence(purpose, PermissionCheck::Simulation, Err(failure));
                return self.counted(Sight { longest_session_s: None, purposes: Purpose::ALL.map(unknown).into() });
            }
        };
        let purposes = Purpose::ALL.map(|purpose| look.purpose(session, purpose, &scope));
        let (longest_session_s, purposes) =
            tokio::join!(look.longest_session(session), futures::future::join_all(purposes));
        self.counted(Sight { longest_session_s, purposes })
    }

    fn counted(&self, sight: Sight) -> Sight {
        for seen in &sight.purposes {
            self.metrics.purpose_check(seen);
        }
        sight
    }
}

impl Look<'_> {
    async fn session(&self, policy: &str) -> Result<Session, Failure> {
        let Suspect { tenant, role, external_id, region, .. } = self.suspect;
        self.asked(|| async {
            let made = self.looker.chain.look(*tenant, role, external_id, policy, region).await;
            made.map_err(|error| match error {
                // Not whether a permission is there, but whether there is a session.
                ChainError::Sts { mut failure, .. } => {
                    failure.kind = unclear(failure.kind);
                    failure
                }
                ChainError::Principal(PrincipalError::Unwrap(WrapError::Kms { mut failure, .. })) => {
                    failure.kind = unclear(failure.kind);
                    failure
                }
                ChainError::Principal(_) => Failure::new(FailureKind::Other, None),
                ChainError::Busy(_) => Failure::new(FailureKind::Indeterminate(aws::Unclear::Throttled), None),
            })
        })
        .await
    }

    async fn longest_session(&self, session: &Session) -> Option<u32> {
        let Suspect { role, region, .. } = self.suspect;
        let asked = self.asked(|| self.looker.own_role.longest_session(&session.keys, role, region)).await;
        asked.ok().map(|answer| answer.value)
    }

    async fn purpose(&self, session: &Session, purpose: Purpose, scope: &Scope<'_>) -> PurposeEvidence {
        let declared = purpose::declared(purpose);
        match self.simulated(session, &(declared.needs)(scope)).await {
            Err(failure) if failure.kind == FailureKind::Refused => self.by_reading(purpose, declared, scope).await,
            simulated => evidence(purpose, PermissionCheck::Simulation, simulated.as_ref()),
        }
    }

    /// All denied actions, in the order of the needs.
    async fn simulated(&self, session: &Session, needs: &[Need]) -> Result<Answer<Vec<String>>, Failure> {
        let Suspect { role, region, .. } = self.suspect;
        let mut all = Answer { value: Vec::new(), request_id: None };
        for need in needs {
            let answer = self.asked(|| self.looker.own_role.denied(&session.keys, role, region, need)).await?;
            all.request_id = answer.request_id;
            all.value.extend(answer.value);
        }
        Ok(all)
    }

    async fn by_reading(&self, purpose: Purpose, declared: &Declared, scope: &Scope<'_>) -> PurposeEvidence {
        let read = (declared.read)(scope);
        let seen = match self.session(&(declared.session_policy)(scope.partition)).await {
            Ok(session) => self.asked(|| self.looker.reads.read(&session.keys, &self.suspect.region, &read)).await,
            Err(failure) => Err(failure),
        };
        let denied = match seen {
            Ok(answer) => Ok(Answer { value: Vec::new(), request_id: answer.request_id }),
            Err(failure) if failure.kind == FailureKind::Refused => {
                let mut evidence = evidence(purpose, PermissionCheck::Read, Err(&failure));
                evidence.outcome = PurposeOutcome::Missing;
                evidence.missing = vec![read.action().to_owned()];
                return evidence;
            }
            Err(failure) => Err(failure),
        };
        evidence(purpose, PermissionCheck::Read, denied.as_ref())
    }

    /// Tries a few times while there is no clear answer and there is time.
    async fn asked<T, F: Future<Output = Result<T, Failure>>>(&self, ask: impl Fn() -> F) -> Result<T, Failure> {
        let late = || Failure::new(FailureKind::Indeterminate(aws::Unclear::TimedOut), None);
        for tried in 1.. {
            match timeout_at(self.by, ask()).await {
                Err(_) => return Err(late()),
                Ok(Err(failure)) if matches!(failure.kind, FailureKind::Indeterminate(_)) && tried < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(answer) => return answer,
            }
        }
        Err(late())
    }
}

/// A refusal that is none of the permission that is looked for.
const fn unclear(kind: FailureKind) -> FailureKind {
    match kind {
        FailureKind::Refused => FailureKind::Other,
        kind => kind,
    }
}

fn evidence(
    purpose: Purpose,
    check: PermissionCheck,
    denied: Result<&Answer<Vec<String>>, &Failure>,
) -> PurposeEvidence {
    let (outcome, missing, aws_request_id, error_code) = match denied {
        Ok(Answer { value, request_id }) if value.is_empty() => {
            (PurposeOutcome::Complete, Vec::new(), request_id.clone(), None)
        }
        Ok(Answer { value, request_id }) => (PurposeOutcome::Missing, value.clone(), request_id.clone(), None),
        Err(failure) => (PurposeOutcome::Indeterminate, Vec::new(), failure.request_id.clone(), failure.code.clone()),
    };
    PurposeEvidence { purpose, outcome, check, missing, at: Timestamp::now(), aws_request_id, error_code }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
