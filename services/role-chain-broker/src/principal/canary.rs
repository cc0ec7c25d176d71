//! The canary: in each account of principals one role of our own that lets in every principal of that account and may do nothing. What refuses there is our own side.
//!
//! With it a probe sees whether our side lets a call out at all before it believes that a customer's role refused. It bears a name and a path
//! that principals may assume, as customers' roles do. What must not live here: when it is asked (`probe::own_side`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::{IamPath, ParseIdentityError, RoleArn};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    MakeError, Maker, STRANGER,
    accounts::{Accounts, Home},
    error::iam,
    iam::Half,
    policy::Layout,
};

const NAME: &str = "rolebridge-canary";
/// That of customers' roles, wherever principals live: role policies and the boundary let principals assume nothing else.
const PATH: &str = "/rolebridge/";

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// It is seen to again this often: somebody may have changed it.
const LOOK: Duration = Duration::from_secs(600);

impl Layout {
    /// The canary's ARN.
    ///
    /// # Errors
    /// Never for an account and a partition that were parsed.
    pub fn canary(&self) -> Result<RoleArn, ParseIdentityError> {
        RoleArn::new(&self.partition, &self.account, &IamPath::parse(PATH)?, NAME)
    }

    /// Principals of this account whose own policies allow it, with session tags or without: no condition, least of all on the external ID.
    fn canary_trust(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": format!("arn:{}:iam::{}:root", self.partition, self.account) },
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }]})
    }
}

/// The canary's ARN in one of the accounts; in the others it is the same but for the account.
///
/// # Errors
/// Never for accounts and partitions that were parsed.
pub fn arn(accounts: &Accounts) -> Result<RoleArn, ParseIdentityError> {
    let first = accounts.homes().first().map(|home| home.layout.canary());
    first.unwrap_or_else(|| RoleArn::parse(""))
}

/// Makes the canary, or mends it. May be broken off anywhere and repeated, by any number of instances.
async fn make(home: &Home) -> Result<(), MakeError> {
    let (arn, trust) = (home.layout.canary().map_err(MakeError::Name)?, home.layout.canary_trust());
    let boundary = home.layout.boundary.as_deref();
    if home.iam.role(NAME).await.map_err(iam("read the canary role"))?.is_none() {
        let path = IamPath::parse(PATH).map_err(MakeError::Name)?;
        // Of no tenant.
        let made = home.iam.create_role(&path, NAME, &trust, STRANGER, boundary).await;
        made.map_err(iam("make the canary role"))?;
    }
    let role = home.iam.role(NAME).await.map_err(iam("read the canary role"))?.ok_or(MakeError::NotSettled)?;
    if role.arn != arn {
        return Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() });
    }
    if let Some(wanted) = boundary
        && role.boundary.as_deref() != Some(wanted)
    {
        home.iam.set_boundary(Half::Role, NAME, wanted).await.map_err(iam("bound the canary role"))?;
    }
    if role.trust.as_ref() != Some(&trust) {
        home.iam.set_trust(NAME, &trust).await.map_err(iam("set the trust policy of the canary role"))?;
    }
    for policy in home.iam.policies(Half::Role, NAME).await.map_err(iam("list the canary role's policies"))? {
        home.iam.delete_policy(Half::Role, NAME, &policy).await.map_err(iam("delete a policy of the canary role"))?;
    }
    for arn in home.iam.attached(Half::Role, NAME).await.map_err(iam("list the canary role's policies"))? {
        home.iam.detach(Half::Role, NAME, &arn).await.map_err(iam("detach a policy of the canary role"))?;
    }
    Ok(())
}

/// Makes the canary of each account and sees to it every ten minutes.
///
/// Cancel: ends at once. Failure: tried again with growing pauses for as long as it takes; until then no refusal is believed.
///
/// # Errors
/// Never.
pub async fn keep(maker: Arc<Maker>, shutdown: CancellationToken) -> Result<(), Infallible> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        _ = futures::future::join_all(maker.accounts.homes().iter().map(keep_in)) => Ok(()),
    }
}

/// Never ends.
async fn keep_in(home: &Home) {
    let backoff = || {
        let backoff = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        backoff.with_jitter().without_max_times().build()
    };
    let (mut pauses, account) = (backoff(), &home.layout.account);
    loop {
        let pause = match make(home).await {
            Ok(()) => {
                pauses = backoff();
                tracing::debug!(%account, "the canary role stands");
                LOOK
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(
                    %account, cause,
                    "the canary role does not stand, so no connection of this account's principals can be verified: launch the account's template of deploy/aws again, so that the broker may make the role {NAME}: {error}"
                );
                pauses.next().unwrap_or(LONGEST_PAUSE)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::fake::Bench;

    #[tokio::test]
    async fn it_is_made_once_and_mended_and_may_do_nothing() {
        let bench = Bench::bounded(Some("arn:aws:iam::111111111111:policy/bound"));
        let home = &bench.maker.accounts.homes()[0];
        for _ in 0..2 {
            make(home).await.unwrap();
            let (users, roles, made, role) = {
                let world = bench.world();
                (world.users.len(), world.roles.len(), world.roles_made, world.roles[NAME].clone())
            };
            assert_eq!((users, roles, made), (0, 1, 1));
            assert_eq!(role.arn, home.layout.canary().unwrap());
            assert_eq!(role.trust, Some(home.layout.canary_trust()));
            assert_eq!(role.boundary, home.layout.boundary);
            assert!(!role.trust.unwrap().to_string().contains("Condition"));
            home.iam.set_trust(NAME, &json!({})).await.unwrap();
            home.iam.put_policy(Half::Role, NAME, "theirs", &json!({})).await.unwrap();
        }
        make(home).await.unwrap();
        assert!(home.iam.policies(Half::Role, NAME).await.unwrap().is_empty());
    }
}
