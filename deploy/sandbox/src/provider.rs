//! The provider's side in the emulator: the very template that operators launch, and one IAM user for each service that talks to AWS, with nothing but
//! that template's policy.

use std::collections::BTreeMap;

use aws_credential_types::Credentials;

use crate::{
    account::{Account, StackRequest},
    emulator::AwsEmulator,
    error::{Result, SandboxError},
};

/// What operators launch in their own account.
pub const PROVIDER_TEMPLATE: &str = include_str!("../../aws/provider.yaml");
/// What operators launch in each further account of principals.
pub const PROVIDER_ACCOUNT_TEMPLATE: &str = include_str!("../../aws/provider-account.yaml");
/// What customers launch in theirs.
pub const CUSTOMER_TEMPLATE: &str = include_str!("../../aws/customer.yaml");

/// The emulator leaves the path out of most IAM resources, so that `user/rolebridge/*` matches nothing: the broker is allowed the same actions, and no
/// others, on the bare names of its principals, too. And it does not know the condition `iam:PermissionsBoundary`: what the template allows for
/// bounded principals is allowed for all. Hence two refusals of AWS are not seen here: of everything but to look at a principal that is not
/// there, and of writing policies of one that has lost its boundary. The broker's unit tests know both.
const BARE_NAMES: &str = r#"{
  "Resources": {
    "BareNames": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"ManagedPolicyName": "sandbox-bare-names", "PolicyDocument": {
      "Version": "2012-10-17",
      "Statement": [
        {"Effect": "Allow", "Resource": ["arn:aws:iam::*:user/rolebridge-*", "arn:aws:iam::*:user/rolebridge/*"], "Action": [
          "iam:CreateAccessKey", "iam:DeleteAccessKey", "iam:DeleteUser", "iam:DeleteUserPolicy", "iam:DetachUserPolicy", "iam:GetUser",
          "iam:GetUserPolicy", "iam:ListAccessKeys", "iam:ListAttachedUserPolicies", "iam:ListUserPolicies", "iam:ListUserTags", "iam:TagUser",
          "iam:UntagUser", "iam:UpdateAccessKey", "iam:CreateUser", "iam:PutUserPolicy", "iam:PutUserPermissionsBoundary"]},
        {"Effect": "Allow", "Resource": ["arn:aws:iam::*:role/rolebridge-*", "arn:aws:iam::*:role/rolebridge/*"], "Action": [
          "iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies",
          "iam:ListRolePolicies", "iam:ListRoleTags", "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole",
          "iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"]}]}}}
  },
  "Outputs": {"Arn": {"Value": {"Ref": "BareNames"}}}
}"#;

/// On AWS a service runs as a role of its compute; here each gets a user with an access key.
const IDENTITIES: &str = r#"{
  "Parameters": {"IngestPolicy": {"Type": "String"}, "BrokerPolicy": {"Type": "String"}, "BareNames": {"Type": "String"}},
  "Resources": {
    "Ingest": {"Type": "AWS::IAM::User", "Properties": {"UserName": "callback-ingest", "ManagedPolicyArns": [{"Ref": "IngestPolicy"}]}},
    "Broker": {"Type": "AWS::IAM::User", "Properties": {"UserName": "role-chain-broker",
      "ManagedPolicyArns": [{"Ref": "BrokerPolicy"}, {"Ref": "BareNames"}FURTHER]}}
  }
}"#;

/// The provider's account once its template stands.
#[derive(Debug, Clone)]
pub struct Provider {
    pub account: Account,
    pub topic_arn: String,
    pub queue_url: String,
    pub queue_arn: String,
    pub dead_letter_queue_url: String,
    pub wrapping_key_arn: String,
    pub callback_ingest_policy_arn: String,
    pub role_chain_broker_policy_arn: String,
    /// What bounds principals.
    pub principal_boundary_arn: String,
    /// May take callbacks from the queue, and nothing else.
    pub callback_ingest: Credentials,
    /// May keep principals and use the wrapping key, and nothing else.
    pub role_chain_broker: Credentials,
}

impl Provider {
    /// Launches `deploy/aws/provider.yaml`, and makes the services' users.
    ///
    /// # Errors
    /// A stack does not reach `CREATE_COMPLETE`, with the reason.
    pub async fn deploy(emulator: &AwsEmulator, account: &str, region: &str) -> Result<Self> {
        Self::deploy_with(emulator, account, region, &[]).await
    }

    /// The same, with `deploy/aws/provider-account.yaml` in each of the further accounts, whose keeper roles the broker may assume.
    ///
    /// # Errors
    /// As [`Provider::deploy`].
    pub async fn deploy_with(emulator: &AwsEmulator, account: &str, region: &str, further: &[&str]) -> Result<Self> {
        let account = emulator.account(account, region);
        let keepers: Vec<String> = further.iter().map(|account| keeper_role(account)).collect();
        let stack = StackRequest::new("rolebridge", PROVIDER_TEMPLATE).parameter("KeeperRoleArns", keepers.join(","));
        let mut outputs = account.deploy(&stack).await?.outputs;
        let callback_ingest_policy_arn = take(&mut outputs, "CallbackIngestPolicyArn")?;
        let role_chain_broker_policy_arn = take(&mut outputs, "RoleChainBrokerPolicyArn")?;
        let assume_keepers = match further {
            [] => String::new(),
            _ => format!(r#", "{}""#, take(&mut outputs, "AssumeKeepersPolicyArn")?),
        };
        let identities = IDENTITIES.replace("FURTHER", &assume_keepers);
        let identities = StackRequest::new("rolebridge-identities", &identities)
            .parameter("BareNames", bare_names(&account).await?)
            .parameter("IngestPolicy", &callback_ingest_policy_arn)
            .parameter("BrokerPolicy", &role_chain_broker_policy_arn);
        account.deploy(&identities).await?;
        let broker = format!("arn:aws:iam::{}:user/role-chain-broker", account.id());
        for further in further {
            further_account(&emulator.account(further, region), &broker).await?;
        }
        let callback_ingest = account.create_access_key("callback-ingest").await?;
        let role_chain_broker = account.create_access_key("role-chain-broker").await?;
        Ok(Self {
            account,
            topic_arn: take(&mut outputs, "CallbackTopicArn")?,
            queue_url: take(&mut outputs, "CallbackQueueUrl")?,
            queue_arn: take(&mut outputs, "CallbackQueueArn")?,
            dead_letter_queue_url: take(&mut outputs, "CallbackDeadLetterQueueUrl")?,
            wrapping_key_arn: take(&mut outputs, "WrappingKeyArn")?,
            principal_boundary_arn: take(&mut outputs, "PrincipalBoundaryArn")?,
            callback_ingest_policy_arn,
            role_chain_broker_policy_arn,
            callback_ingest,
            role_chain_broker,
        })
    }
}

/// The role with which the broker keeps principals in a further account.
#[must_use]
pub fn keeper_role(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/rolebridge-keeper")
}

async fn bare_names(account: &Account) -> Result<String> {
    let mut outputs = account.deploy(&StackRequest::new("sandbox-bare-names", BARE_NAMES)).await?.outputs;
    take(&mut outputs, "Arn")
}

/// Launches the template of a further account as it is, but for the bare names.
async fn further_account(account: &Account, broker: &str) -> Result<()> {
    let policies = format!(r#"ManagedPolicyArns: [!Ref KeeperPolicy, "{}"]"#, bare_names(account).await?);
    let template = PROVIDER_ACCOUNT_TEMPLATE.replace("ManagedPolicyArns: [!Ref KeeperPolicy]", &policies);
    let stack = StackRequest::new("rolebridge", &template).parameter("BrokerPrincipalArn", broker);
    account.deploy(&stack).await.map(drop)
}

fn take(outputs: &mut BTreeMap<String, String>, name: &'static str) -> Result<String> {
    outputs.remove(name).ok_or(SandboxError::MissingOutput(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn iam_actions(text: &str) -> BTreeSet<&str> {
        text.split("iam:")
            .skip(1)
            .filter_map(|rest| rest.split(|end: char| !end.is_ascii_alphabetic()).next())
            .collect()
    }

    #[test]
    fn the_broker_is_allowed_no_action_here_that_the_template_does_not_allow() {
        let template: BTreeSet<_> = iam_actions(PROVIDER_TEMPLATE);
        assert_eq!(
            iam_actions(PROVIDER_ACCOUNT_TEMPLATE),
            iam_actions(PROVIDER_TEMPLATE),
            "the broker may do the same in each account"
        );
        let here: BTreeSet<_> = iam_actions(BARE_NAMES).into_iter().filter(|action| !action.is_empty()).collect();
        assert!(here.len() > 20, "{here:?}");
        assert_eq!(here.difference(&template).collect::<Vec<_>>(), Vec::<&&str>::new());
    }
}
