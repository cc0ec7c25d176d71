//! Why a principal is not as it should be.

use aws::Failure;
use contracts::{AccountId, ParseIdentityError, TenantId};
use messaging::PublishError;

use super::{record::RecordError, store::StoreError};
use crate::wrap::WrapError;

/// Why a principal is not as it should be. All but [`MakeError::Foreign`], [`MakeError::Removed`] and
/// [`MakeError::NoTenants`] pass with time or with a changed configuration: try again.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("IAM did not {step} of the tenant's principal")]
    Iam {
        step: &'static str,
        #[source]
        failure: Failure,
    },
    /// IAM does not know the new user yet and refuses it in a trust policy.
    #[error("IAM does not know the tenant's new user yet")]
    NotSettled,
    /// Somebody else's user or role has the name.
    #[error(
        "there is a {kind} with the name of the tenant's principal at another path, {found}: move or rename it, or change ROLEBRIDGE_PRINCIPAL_PATH"
    )]
    Foreign { kind: &'static str, found: String },
    #[error(
        "no provider account has room for the tenant's principal ({accounts}): add one to ROLEBRIDGE_PRINCIPAL_ACCOUNTS, or raise IAM's quotas and ROLEBRIDGE_PRINCIPALS_PER_ACCOUNT; it is made when there is room"
    )]
    Full { accounts: String },
    /// IAM's own limit of users or roles.
    #[error("IAM takes no more users or roles in account {account}: have its quotas raised")]
    AtLimit { account: AccountId },
    #[error(
        "the tenant's principal lives in account {account}, which this instance does not keep: put it back on ROLEBRIDGE_PRINCIPAL_ACCOUNTS, with `:0` after it if it shall get no new ones"
    )]
    NotListed { account: AccountId },
    #[error("the principal could not be stored")]
    Store(#[source] StoreError),
    #[error("the access key could not be wrapped")]
    Wrap(#[source] WrapError),
    #[error("the principal could not be written down")]
    Record(#[source] RecordError),
    /// Its tenant has ended: it is being removed, or is gone, and is never made again.
    #[error("the tenant has ended, and its principal with it")]
    Removed,
    /// A removal that nobody can have meant.
    #[error("{tenant} is the broker's own principal and no tenant's: it is not removed")]
    NoTenants { tenant: TenantId },
    /// A removal that contradicts the grants.
    #[error(
        "credentials may still be issued for {connections} of the tenant's connections: its principal is removed when their grants are withdrawn"
    )]
    StillGranted { connections: usize },
    /// Another instance works on it.
    #[error("another instance is at work on the tenant's principal")]
    Busy,
    #[error("what happened to the principal could not be told")]
    Tell(#[source] PublishError),
    #[error("path and tenant make no name that IAM takes: check ROLEBRIDGE_PRINCIPAL_PATH")]
    Name(#[source] ParseIdentityError),
}

pub(super) fn iam(step: &'static str) -> impl FnOnce(Failure) -> MakeError {
    move |failure| match failure.is("MalformedPolicyDocument") {
        // "Invalid principal in policy": the documents are our own and well-formed.
        true => MakeError::NotSettled,
        false => MakeError::Iam { step, failure },
    }
}
