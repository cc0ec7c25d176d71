//! The canary: one role of our own that lets in every principal of the provider's account and may do nothing. What refuses there is our own side.
//!
//! With it a probe sees whether our side lets a call out at all before it believes that a customer's role refused. It bears a name and a path
//! that principals may assume, as customers' roles do. What must not live here: when it is asked (`probe::own_side`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use contracts::{IamPath, ParseIdentityError, RoleArn};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{MakeError, Maker, STRANGER, iam::Half, maker::iam, policy::Layout};

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

    /// Principals of this account whose own policies allow it: no condition, least of all on the external ID.
    fn canary_trust(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": format!("arn:{}:iam::{}:root", self.partition, self.account) },
            "Action": "sts:AssumeRole",
        }]})
    }
}

/// Makes the canary, or mends it. May be broken off anywhere and repeated, by any number of instances.
async fn make(maker: &Maker) -> Result<(), MakeError> {
    let (arn, trust) = (maker.layout.canary().map_err(MakeError::Name)?, maker.layout.canary_trust());
    let boundary = maker.layout.boundary.as_deref();
    if maker.iam.role(NAME).await.map_err(iam("read the canary role"))?.is_none() {
        let path = IamPath::parse(PATH).map_err(MakeError::Name)?;
        // Of no tenant.
        let made = maker.iam.create_role(&path, NAME, &trust, STRANGER, boundary).await;
        made.map_err(iam("make the canary role"))?;
    }
    let role = maker.iam.role(NAME).await.map_err(iam("read the canary role"))?.ok_or(MakeError::NotSettled)?;
    if role.arn != arn {
        return Err(MakeError::Foreign { kind: "role", found: role.arn.to_string() });
    }
    if let Some(wanted) = boundary
        && role.boundary.as_deref() != Some(wanted)
    {
        maker.iam.set_boundary(Half::Role, NAME, wanted).await.map_err(iam("bound the canary role"))?;
    }
    if role.trust.as_ref() != Some(&trust) {
        maker.iam.set_trust(NAME, &trust).await.map_err(iam("set the trust policy of the canary role"))?;
    }
    for policy in maker.iam.policies(Half::Role, NAME).await.map_err(iam("list the canary role's policies"))? {
        maker.iam.delete_policy(Half::Role, NAME, &policy).await.map_err(iam("delete a policy of the canary role"))?;
    }
    for arn in maker.iam.attached(Half::Role, NAME).await.map_err(iam("list the canary role's policies"))? {
        maker.iam.detach(Half::Role, NAME, &arn).await.map_err(iam("detach a policy of the canary role"))?;
    }
    Ok(())
}

/// Makes the canary and sees to it every ten minutes.
///
/// Cancel: ends at once. Failure: tried again with growing pauses for as long as it takes; until then no refusal is believed.
///
/// # Errors
/// Never.
pub async fn keep(maker: Arc<Maker>, shutdown: CancellationToken) -> Result<(), Infallible> {
    let backoff = || {
        let backoff = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        backoff.with_jitter().without_max_times().build()
    };
    let mut pauses = backoff();
    let keep = async {
        loop {
            let pause = match make(&maker).await {
                Ok(()) => {
                    pauses = backoff();
                    tracing::debug!("the canary role stands");
                    LOOK
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(
                        cause,
                        "the canary role does not stand, so no connection can be verified: launch deploy/aws/provider.yaml again, so that the broker may make the role {NAME}: {error}"
                    );
                    pauses.next().unwrap_or(LONGEST_PAUSE)
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = keep => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::fake::Bench;

    #[tokio::test]
    async fn it_is_made_once_and_mended_and_may_do_nothing() {
        let bench = Bench::bounded(Some("arn:aws:iam::111111111111:policy/bound"));
        let maker = &bench.maker;
        for _ in 0..2 {
            make(maker).await.unwrap();
            let (users, roles, made, role) = {
                let world = bench.world();
                (world.users.len(), world.roles.len(), world.roles_made, world.roles[NAME].clone())
            };
            assert_eq!((users, roles, made), (0, 1, 1));
            assert_eq!(role.arn, maker.layout.canary().unwrap());
            assert_eq!(role.trust, Some(maker.layout.canary_trust()));
            assert_eq!(role.boundary, maker.layout.boundary);
            assert!(!role.trust.unwrap().to_string().contains("Condition"));
            maker.iam.set_trust(NAME, &json!({})).await.unwrap();
            maker.iam.put_policy(Half::Role, NAME, "theirs", &json!({})).await.unwrap();
        }
        make(maker).await.unwrap();
        assert!(maker.iam.policies(Half::Role, NAME).await.unwrap().is_empty());
    }
}
