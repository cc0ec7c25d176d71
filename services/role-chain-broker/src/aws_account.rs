//! Makes sure that AWS credentials are of the account that they are taken for: with others the broker would make principals that nobody can use.
//! Asked of the broker's own, and of the role that keeps principals in each further account.

use std::time::Duration;

use aws::{Failure, SdkConfig, classify};
use contracts::{AccountId, RoleArn};
use runtime::Part;
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_secs(5);

/// Credentials, and the account that they must be of.
pub struct Claim {
    pub sdk: SdkConfig,
    pub account: AccountId,
    /// The role that was assumed; none of the broker's own.
    pub keeper: Option<RoleArn>,
}

#[derive(Debug, thiserror::Error)]
pub enum OtherAccount {
    #[error(
        "the AWS credentials in use are of account {found}, and the provider's account is {expected}: use its credentials, or correct ROLEBRIDGE_PROVIDER_ACCOUNT"
    )]
    Own { expected: AccountId, found: String },
    #[error(
        "sessions of the role {role} are of account {found}: correct its entry in ROLEBRIDGE_PRINCIPAL_ACCOUNTS, or where AWS_ENDPOINT_URL points"
    )]
    Keeper { role: RoleArn, found: String },
}

/// Asks until AWS has answered for each, then only waits for shutdown.
///
/// Cancel: ends at once. Failure: AWS out of reach, or a role that cannot be assumed, means not ready and is tried again.
///
/// # Errors
/// When credentials are another account's.
pub async fn check(claims: Vec<Claim>, part: Part, shutdown: CancellationToken) -> Result<(), OtherAccount> {
    let mut open = claims;
    loop {
        let mut unanswered = Vec::new();
        let mut troubles = Vec::new();
        for claim in open {
            let answer = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                answer = holds(&claim) => answer?,
            };
            if let Err(failure) = answer {
                let account = &claim.account;
                tracing::warn!(%account, %failure, told = failure.message(), "AWS credentials could not be checked, trying again");
                troubles.push(format!("the AWS credentials for account {account} could not be checked: {failure}"));
                unanswered.push(claim);
            }
        }
        if unanswered.is_empty() {
            break;
        }
        part.not_ready(troubles.join("; "));
        open = unanswered;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    part.ready();
    shutdown.cancelled().await;
    Ok(())
}

async fn holds(claim: &Claim) -> Result<Result<(), Failure>, OtherAccount> {
    let client = aws_sdk_sts::Client::new(&claim.sdk);
    let identity = match client.get_caller_identity().send().await {
        Ok(identity) => identity,
        Err(error) => return Ok(Err(classify(&error))),
    };
    if identity.account() == Some(claim.account.as_str()) {
        return Ok(Ok(()));
    }
    let found = identity.account().unwrap_or("unknown").to_owned();
    Err(match claim.keeper.clone() {
        None => OtherAccount::Own { expected: claim.account.clone(), found },
        Some(role) => OtherAccount::Keeper { role, found },
    })
}
