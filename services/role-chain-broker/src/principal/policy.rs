//! Names and policies of a principal: as little as the chain needs.

use contracts::{AccountId, IamPath, ParseIdentityError, Partition, RoleArn, TenantId, Timestamp, UserArn};
use serde_json::{Value, json};

use super::iam::Half;
use crate::purpose::{customer_roles, tag_customer_roles};

/// Name of the inline policy of each user and each role that lets it work.
const CHAIN: &str = "rolebridge-chain";
/// Name of the inline policy of a role whose sessions of before an instant are denied.
const REVOKED: &str = "rolebridge-revoked-sessions";

/// Where principals live.
#[derive(Debug, Clone)]
pub struct Layout {
    pub partition: Partition,
    /// One of the provider's.
    pub account: AccountId,
    pub path: IamPath,
    /// ARN of the managed policy that bounds what users and roles may ever do; none in installations of before there was one.
    pub boundary: Option<String>,
}

/// Everything about one principal that follows from its tenant.
#[derive(Debug, Clone)]
pub struct Plan {
    pub tenant: TenantId,
    /// Of the user and of the role: `rolebridge-` and the tenant's UUID, 47 of at most 64 characters.
    pub name: String,
    pub path: IamPath,
    pub user_arn: UserArn,
    pub role_arn: RoleArn,
    pub boundary: Option<String>,
    partition: Partition,
}

impl Layout {
    /// # Errors
    /// When path and name make no ARN, which a path from the configuration cannot bring about.
    pub fn plan(&self, tenant: TenantId) -> Result<Plan, ParseIdentityError> {
        let name = format!("rolebridge-{tenant}");
        Ok(Plan {
            tenant,
            user_arn: UserArn::new(&self.partition, &self.account, &self.path, &name)?,
            role_arn: RoleArn::new(&self.partition, &self.account, &self.path, &name)?,
            path: self.path.clone(),
            boundary: self.boundary.clone(),
            partition: self.partition.clone(),
            name,
        })
    }
}

impl Plan {
    /// Exactly this tenant's user may assume the role.
    #[must_use]
    pub fn trust(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "AWS": self.user_arn.as_str() },
            "Action": "sts:AssumeRole",
        }]})
    }

    /// The inline policies that user or role must have; no others, and no managed ones.
    #[must_use]
    pub fn policies(&self, half: Half, denied_before: Option<Timestamp>) -> Vec<(&'static str, Value)> {
        match half {
            Half::User => vec![(CHAIN, self.user_policy())],
            Half::Role => {
                let revoked = denied_before.map(|before| (REVOKED, Self::revoked_sessions(before)));
                [Some((CHAIN, self.role_policy())), revoked].into_iter().flatten().collect()
            }
        }
    }

    /// Denies everything to sessions of the role that were issued before the instant
    /// ([revoking sessions](https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html)).
    fn revoked_sessions(before: Timestamp) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": { "DateLessThan": { "aws:TokenIssueTime": before.to_string() } },
        }]})
    }

    /// The user may assume that role and do nothing else.
    #[must_use]
    pub fn user_policy(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": self.role_arn.as_str(),
        }]})
    }

    /// The role may assume roles of the customer template, with our session tags or without, and do nothing else.
    ///
    /// No condition on the external ID, on purpose: with one, the probes that must be refused would be refused by us and prove nothing about
    /// the customer's role. Sessions for real issues carry that condition in their session policy.
    #[must_use]
    pub fn role_policy(&self) -> Value {
        let [assume] = self.assume_customer_roles();
        json!({ "Version": "2012-10-17", "Statement": [assume, tag_customer_roles(&self.partition)] })
    }

    /// What [`Plan::policies`] were in earlier versions of this program, oldest first. One of them is no drift: it is renewed. Each allows less than what
    /// stands today, so that whoever puts one back gains nothing; one that allowed more must not be in here.
    #[must_use]
    pub fn earlier_policies(&self, half: Half, denied_before: Option<Timestamp>) -> Vec<Vec<(&'static str, Value)>> {
        match half {
            Half::User => Vec::new(),
            Half::Role => {
                let before_tags = json!({ "Version": "2012-10-17", "Statement": self.assume_customer_roles() });
                let revoked = denied_before.map(|before| (REVOKED, Self::revoked_sessions(before)));
                vec![[Some((CHAIN, before_tags)), revoked].into_iter().flatten().collect()]
            }
        }
    }

    fn assume_customer_roles(&self) -> [Value; 1] {
        [json!({ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": customer_roles(&self.partition) })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_follow_from_the_tenant() {
        let layout = Layout {
            partition: Partition::parse("aws-us-gov").unwrap(),
            account: AccountId::parse("111111111111").unwrap(),
            path: IamPath::parse("/rolebridge/").unwrap(),
            boundary: None,
        };
        let tenant = TenantId::new();
        let plan = layout.plan(tenant).unwrap();
        assert!(plan.name.len() <= 64);
        assert_eq!(plan.role_arn, layout.plan(tenant).unwrap().role_arn);
        assert_eq!(
            plan.role_arn.as_str(),
            format!("arn:aws-us-gov:iam::111111111111:role/rolebridge/rolebridge-{tenant}")
        );
        assert!(plan.role_policy().to_string().contains("arn:aws-us-gov:iam::*:role/rolebridge/rolebridge-*"));
        let statements = &plan.role_policy()["Statement"];
        assert_eq!(statements[0]["Action"], "sts:AssumeRole");
        assert!(statements[0].get("Condition").is_none());
        assert!(!statements.to_string().contains("ExternalId"));
    }
}
