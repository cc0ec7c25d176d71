//! Makes sure that the broker's own AWS credentials are of the provider's account: with others it would make principals that nobody can use.

use std::time::Duration;

use aws::{SdkConfig, classify};
use contracts::AccountId;
use runtime::Part;
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error(
    "the AWS credentials in use are of account {found}, and the provider's account is {expected}: use its credentials, or correct ROLEBRIDGE_PROVIDER_ACCOUNT"
)]
pub struct OtherAccount {
    expected: AccountId,
    found: String,
}

/// Asks until AWS answers, then only waits for shutdown.
///
/// Cancel: ends at once. Failure: AWS out of reach means not ready and is tried again.
///
/// # Errors
/// When the credentials are another account's.
pub async fn check(
    sdk: SdkConfig,
    expected: AccountId,
    part: Part,
    shutdown: CancellationToken,
) -> Result<(), OtherAccount> {
    let client = aws_sdk_sts::Client::new(&sdk);
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            answer = client.get_caller_identity().send() => answer,
        };
        match answer {
            Ok(identity) if identity.account() == Some(expected.as_str()) => break,
            Ok(identity) => {
                return Err(OtherAccount { expected, found: identity.account().unwrap_or("unknown").to_owned() });
            }
            Err(error) => {
                let failure = classify(&error);
                part.not_ready(format!("the broker's own AWS credentials could not be checked: {failure}"));
                tracing::warn!(%failure, told = failure.message(), "the broker's own AWS credentials could not be checked, trying again");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    part.ready();
    shutdown.cancelled().await;
    Ok(())
}
