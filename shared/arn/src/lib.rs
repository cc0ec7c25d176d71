//! AWS's own identities as types: account, partition, region, role ARN, stack ID, topic ARN; and the list of accounts that principals live in.
//!
//! Parsed once at the edge, believed nowhere: a well-formed ARN says nothing about who owns it. No AWS SDK, no I/O, no contracts here, so
//! that both the wire types and the services can stand on it.
//!
//! Forms follow the [IAM identifiers](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html) and
//! [IAM quotas](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html) pages.

mod account;
mod principal_account;
mod role;
mod stack;
mod text;
mod topic;

pub use account::{AccountId, Partition, Region};
pub use principal_account::{MOST_PRINCIPALS, PrincipalAccount, PrincipalAccounts, PrincipalAccountsError};
pub use role::{IamPath, RoleArn, UserArn};
pub use stack::StackId;
pub use topic::TopicArn;

/// Why a text is not the AWS identity it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} expected, {problem}")]
pub struct ParseIdentityError {
    what: &'static str,
    problem: &'static str,
}

impl ParseIdentityError {
    pub(crate) const fn new(what: &'static str, problem: &'static str) -> Self {
        Self { what, problem }
    }
}

/// The five fields that follow `arn:` (the last one keeps its own colons), or `None` when there are fewer.
pub(crate) fn split_arn(text: &str) -> Option<(&str, &str, &str, &str, &str)> {
    let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
    Some((parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?))
}
