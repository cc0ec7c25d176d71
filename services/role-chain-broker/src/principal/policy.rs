//! Names and policies of a principal: as little as the chain needs.

use contracts::{AccountId, IamPath, ParseIdentityError, Partition, RoleArn, TenantId, UserArn};
use serde_json::{Value, json};

use crate::purpose::customer_roles;

/// Name of the one inline policy of each user and each role.
pub(super) const POLICY_NAME: &str = "rolebridge-chain";

/// Where principals live.
#[derive(Debug, Clone)]
pub struct Layout {
    pub partition: Partition,
    /// The provider's.
    pub account: AccountId,
    pub path: IamPath,
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

    /// The user may assume that role and do nothing else.
    #[must_use]
    pub fn user_policy(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": self.role_arn.as_str(),
        }]})
    }

    /// The role may assume roles of the customer template and do nothing else.
    ///
    /// No condition on the external ID, on purpose: with one, the probes that must be refused would be refused by us and prove nothing about
    /// the customer's role. Sessions for real issues carry that condition in their session policy.
    #[must_use]
    pub fn role_policy(&self) -> Value {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": customer_roles(&self.partition),
        }]})
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
        assert!(!plan.role_policy().to_string().contains("Condition"));
    }
}
