//! IAM, as far as a principal needs it. The trait is the door; the fake stands beside it.

use async_trait::async_trait;
use aws::{Failure, FailureKind, SdkConfig, Unclear, classify, traced};
use aws_sdk_iam::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::Tag,
};
use contracts::{IamPath, RoleArn, TenantId, UserArn};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::policy::POLICY_NAME;
use crate::sts::Keys;

/// A role as IAM has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRole {
    pub arn: RoleArn,
    /// `None` when IAM's text is no JSON.
    pub trust: Option<Value>,
}

/// Reads and writes of one user and one role. Every write may be repeated.
///
/// Cancel: a dropped write may or may not have happened; the next run reads first. Failure: see [`aws::FailureKind`].
#[async_trait]
pub trait Iam: Send + Sync {
    async fn user(&self, name: &str) -> Result<Option<UserArn>, Failure>;
    async fn create_user(&self, path: &IamPath, name: &str, tenant: TenantId) -> Result<(), Failure>;
    async fn user_policy(&self, user: &str) -> Result<Option<Value>, Failure>;
    async fn put_user_policy(&self, user: &str, policy: &Value) -> Result<(), Failure>;
    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure>;
    async fn create_role(&self, path: &IamPath, name: &str, trust: &Value, tenant: TenantId) -> Result<(), Failure>;
    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure>;
    async fn role_policy(&self, role: &str) -> Result<Option<Value>, Failure>;
    async fn put_role_policy(&self, role: &str, policy: &Value) -> Result<(), Failure>;
    /// IDs of all the user's access keys.
    async fn access_keys(&self, user: &str) -> Result<Vec<SecretString>, Failure>;
    async fn create_access_key(&self, user: &str) -> Result<Keys, Failure>;
    async fn delete_access_key(&self, user: &str, id: &SecretString) -> Result<(), Failure>;
}

/// IAM itself, with the broker's own credentials.
#[derive(Debug, Clone)]
pub struct RealIam(Client);

impl RealIam {
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        Self(Client::new(sdk))
    }
}

/// One call, in its span.
async fn sent<T, E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, Failure> {
    traced("IAM", operation, async { call.await.map_err(|error| classify(&error)) }).await
}

/// `NoSuchEntity` is an answer, not a failure.
fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is("NoSuchEntity") => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Somebody was faster: as good as done, since the caller reads again.
fn made<T>(result: Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if !failure.is("EntityAlreadyExists") => Err(failure),
        _ => Ok(()),
    }
}

fn garbage() -> Failure {
    Failure::new(FailureKind::Indeterminate(Unclear::Garbage), None)
}

/// IAM gives documents percent-encoded ([GetRole](https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html)).
fn document(text: &str) -> Option<Value> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
    serde_json::from_str(&decoded).ok()
}

/// So that an operator sees in IAM whose it is.
fn tags(tenant: TenantId) -> Vec<Tag> {
    let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build().ok();
    [tag("rolebridge:tenant", tenant.to_string()), tag("rolebridge:managed-by", "role-chain-broker".to_owned())]
        .into_iter()
        .flatten()
        .collect()
}

#[async_trait]
impl Iam for RealIam {
    async fn user(&self, name: &str) -> Result<Option<UserArn>, Failure> {
        let call = self.0.get_user().user_name(name).send();
        let Some(output) = found(sent("GetUser", call).await)? else { return Ok(None) };
        let arn = output.user().and_then(|user| UserArn::parse(user.arn()).ok());
        arn.map(Some).ok_or_else(garbage)
    }

    async fn create_user(&self, path: &IamPath, name: &str, tenant: TenantId) -> Result<(), Failure> {
        let call = self.0.create_user().user_name(name).path(path.as_str()).set_tags(Some(tags(tenant)));
        made(sent("CreateUser", call.send()).await)
    }

    async fn user_policy(&self, user: &str) -> Result<Option<Value>, Failure> {
        let call = self.0.get_user_policy().user_name(user).policy_name(POLICY_NAME);
        let output = found(sent("GetUserPolicy", call.send()).await)?;
        Ok(output.and_then(|output| document(output.policy_document())))
    }

    async fn put_user_policy(&self, user: &str, policy: &Value) -> Result<(), Failure> {
        let call =
            self.0.put_user_policy().user_name(user).policy_name(POLICY_NAME).policy_document(policy.to_string());
        sent("PutUserPolicy", call.send()).await.map(drop)
    }

    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure> {
        let call = self.0.get_role().role_name(name).send();
        let Some(output) = found(sent("GetRole", call).await)? else { return Ok(None) };
        let role = output.role().ok_or_else(garbage)?;
        let arn = RoleArn::parse(role.arn()).map_err(|_| garbage())?;
        Ok(Some(FoundRole { arn, trust: role.assume_role_policy_document().and_then(document) }))
    }

    async fn create_role(&self, path: &IamPath, name: &str, trust: &Value, tenant: TenantId) -> Result<(), Failure> {
        let call = self
            .0
            .create_role()
            .role_name(name)
            .path(path.as_str())
            .assume_role_policy_document(trust.to_string())
            .description(format!("Assumes the customer roles of tenant {tenant}. Kept by role-chain-broker."))
            .max_session_duration(3600)
            .set_tags(Some(tags(tenant)));
        made(sent("CreateRole", call.send()).await)
    }

    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure> {
        let call = self.0.update_assume_role_policy().role_name(role).policy_document(trust.to_string());
        sent("UpdateAssumeRolePolicy", call.send()).await.map(drop)
    }

    async fn role_policy(&self, role: &str) -> Result<Option<Value>, Failure> {
        let call = self.0.get_role_policy().role_name(role).policy_name(POLICY_NAME);
        let output = found(sent("GetRolePolicy", call.send()).await)?;
        Ok(output.and_then(|output| document(output.policy_document())))
    }

    async fn put_role_policy(&self, role: &str, policy: &Value) -> Result<(), Failure> {
        let call =
            self.0.put_role_policy().role_name(role).policy_name(POLICY_NAME).policy_document(policy.to_string());
        sent("PutRolePolicy", call.send()).await.map(drop)
    }

    async fn access_keys(&self, user: &str) -> Result<Vec<SecretString>, Failure> {
        // Two at most: one page.
        let output = sent("ListAccessKeys", self.0.list_access_keys().user_name(user).send()).await?;
        Ok(output.access_key_metadata().iter().filter_map(|key| key.access_key_id().map(Into::into)).collect())
    }

    async fn create_access_key(&self, user: &str) -> Result<Keys, Failure> {
        let output = sent("CreateAccessKey", self.0.create_access_key().user_name(user).send()).await?;
        let key = output.access_key.ok_or_else(garbage)?;
        Ok(Keys {
            access_key_id: key.access_key_id.into(),
            secret_access_key: key.secret_access_key.into(),
            session_token: None,
        })
    }

    async fn delete_access_key(&self, user: &str, id: &SecretString) -> Result<(), Failure> {
        let call = self.0.delete_access_key().user_name(user).access_key_id(id.expose_secret());
        found(sent("DeleteAccessKey", call.send()).await).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_encoded_or_not() {
        let plain = r#"{"Resource":"arn:aws:iam::*:role/a b+c"}"#;
        let encoded = "%7B%22Resource%22%3A%22arn%3Aaws%3Aiam%3A%3A%2A%3Arole%2Fa%20b%2Bc%22%7D";
        assert_eq!(document(encoded), serde_json::from_str(plain).ok());
        assert_eq!(document(plain), serde_json::from_str(plain).ok());
        assert_eq!(document("%7"), None);
    }
}
