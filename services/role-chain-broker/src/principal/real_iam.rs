//! IAM itself, through the AWS SDK, with the broker's own credentials.

use async_trait::async_trait;
use aws::{Failure, FailureKind, SdkConfig, Unclear, classify, traced};
use aws_sdk_iam::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{AttachedPolicy, StatusType, Tag},
};
use contracts::{IamPath, RoleArn, TenantId, UserArn};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::iam::{FoundKey, FoundRole, FoundUser, Half, Iam};
use crate::sts::Keys;

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

/// What is not there need not be deleted.
fn gone<T>(result: Result<T, Failure>) -> Result<(), Failure> {
    found(result).map(drop)
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

/// An answer that goes on elsewhere is not the whole; a principal never has that many.
fn arns(attached: Option<Vec<AttachedPolicy>>, truncated: bool) -> Result<Vec<String>, Failure> {
    if truncated {
        return Err(garbage());
    }
    let policies = attached.unwrap_or_default();
    Ok(policies.into_iter().filter_map(|policy| policy.policy_arn).collect())
}

#[async_trait]
impl Iam for RealIam {
    async fn user(&self, name: &str) -> Result<Option<FoundUser>, Failure> {
        let call = self.0.get_user().user_name(name).send();
        let Some(output) = found(sent("GetUser", call).await)? else { return Ok(None) };
        let user = output.user.ok_or_else(garbage)?;
        let arn = UserArn::parse(user.arn()).map_err(|_| garbage())?;
        let boundary = user.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn);
        Ok(Some(FoundUser { arn, boundary }))
    }

    async fn create_user(
        &self,
        path: &IamPath,
        name: &str,
        tenant: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure> {
        let call = self.0.create_user().user_name(name).path(path.as_str()).set_tags(Some(tags(tenant)));
        let call = call.set_permissions_boundary(boundary.map(str::to_owned));
        made(sent("CreateUser", call.send()).await)
    }

    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure> {
        let call = self.0.get_role().role_name(name).send();
        let Some(output) = found(sent("GetRole", call).await)? else { return Ok(None) };
        let role = output.role.ok_or_else(garbage)?;
        let arn = RoleArn::parse(role.arn()).map_err(|_| garbage())?;
        let trust = role.assume_role_policy_document().and_then(document);
        let id = role.role_id().to_owned();
        let boundary = role.permissions_boundary.and_then(|boundary| boundary.permissions_boundary_arn);
        Ok(Some(FoundRole { arn, id, trust, boundary }))
    }

    async fn create_role(
        &self,
        path: &IamPath,
        name: &str,
        trust: &Value,
        tenant: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure> {
        let call = self
            .0
            .create_role()
            .role_name(name)
            .path(path.as_str())
            .assume_role_policy_document(trust.to_string())
            .description(format!("Assumes the customer roles of tenant {tenant}. Kept by role-chain-broker."))
            .max_session_duration(3600)
            .set_permissions_boundary(boundary.map(str::to_owned))
            .set_tags(Some(tags(tenant)));
        made(sent("CreateRole", call.send()).await)
    }

    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure> {
        let call = self.0.update_assume_role_policy().role_name(role).policy_document(trust.to_string());
        sent("UpdateAssumeRolePolicy", call.send()).await.map(drop)
    }

    async fn set_boundary(&self, half: Half, name: &str, boundary: &str) -> Result<(), Failure> {
        match half {
            Half::User => {
                let call = self.0.put_user_permissions_boundary().user_name(name).permissions_boundary(boundary);
                sent("PutUserPermissionsBoundary", call.send()).await.map(drop)
            }
            Half::Role => {
                let call = self.0.put_role_permissions_boundary().role_name(name).permissions_boundary(boundary);
                sent("PutRolePermissionsBoundary", call.send()).await.map(drop)
            }
        }
    }

    async fn delete(&self, half: Half, name: &str) -> Result<(), Failure> {
        match half {
            Half::User => gone(sent("DeleteUser", self.0.delete_user().user_name(name).send()).await),
            Half::Role => gone(sent("DeleteRole", self.0.delete_role().role_name(name).send()).await),
        }
    }

    async fn policies(&self, half: Half, name: &str) -> Result<Vec<String>, Failure> {
        let (names, truncated) = match half {
            Half::User => {
                let call = self.0.list_user_policies().user_name(name).send();
                let Some(output) = found(sent("ListUserPolicies", call).await)? else { return Ok(Vec::new()) };
                (output.policy_names, output.is_truncated)
            }
            Half::Role => {
                let call = self.0.list_role_policies().role_name(name).send();
                let Some(output) = found(sent("ListRolePolicies", call).await)? else { return Ok(Vec::new()) };
                (output.policy_names, output.is_truncated)
            }
        };
        if truncated { Err(garbage()) } else { Ok(names) }
    }

    async fn policy(&self, half: Half, name: &str, policy: &str) -> Result<Option<Value>, Failure> {
        let text = match half {
            Half::User => {
                let call = self.0.get_user_policy().user_name(name).policy_name(policy);
                found(sent("GetUserPolicy", call.send()).await)?.map(|output| output.policy_document)
            }
            Half::Role => {
                let call = self.0.get_role_policy().role_name(name).policy_name(policy);
                found(sent("GetRolePolicy", call.send()).await)?.map(|output| output.policy_document)
            }
        };
        Ok(text.as_deref().and_then(document))
    }

    async fn put_policy(&self, half: Half, name: &str, policy: &str, document: &Value) -> Result<(), Failure> {
        let document = document.to_string();
        match half {
            Half::User => {
                let call = self.0.put_user_policy().user_name(name).policy_name(policy).policy_document(document);
                sent("PutUserPolicy", call.send()).await.map(drop)
            }
            Half::Role => {
                let call = self.0.put_role_policy().role_name(name).policy_name(policy).policy_document(document);
                sent("PutRolePolicy", call.send()).await.map(drop)
            }
        }
    }

    async fn delete_policy(&self, half: Half, name: &str, policy: &str) -> Result<(), Failure> {
        match half {
            Half::User => {
                let call = self.0.delete_user_policy().user_name(name).policy_name(policy);
                gone(sent("DeleteUserPolicy", call.send()).await)
            }
            Half::Role => {
                let call = self.0.delete_role_policy().role_name(name).policy_name(policy);
                gone(sent("DeleteRolePolicy", call.send()).await)
            }
        }
    }

    async fn attached(&self, half: Half, name: &str) -> Result<Vec<String>, Failure> {
        match half {
            Half::User => {
                let call = self.0.list_attached_user_policies().user_name(name).send();
                let Some(output) = found(sent("ListAttachedUserPolicies", call).await)? else { return Ok(Vec::new()) };
                arns(output.attached_policies, output.is_truncated)
            }
            Half::Role => {
                let call = self.0.list_attached_role_policies().role_name(name).send();
                let Some(output) = found(sent("ListAttachedRolePolicies", call).await)? else { return Ok(Vec::new()) };
                arns(output.attached_policies, output.is_truncated)
            }
        }
    }

    async fn detach(&self, half: Half, name: &str, policy_arn: &str) -> Result<(), Failure> {
        match half {
            Half::User => {
                let call = self.0.detach_user_policy().user_name(name).policy_arn(policy_arn);
                gone(sent("DetachUserPolicy", call.send()).await)
            }
            Half::Role => {
                let call = self.0.detach_role_policy().role_name(name).policy_arn(policy_arn);
                gone(sent("DetachRolePolicy", call.send()).await)
            }
        }
    }

    async fn access_keys(&self, user: &str) -> Result<Vec<FoundKey>, Failure> {
        let call = self.0.list_access_keys().user_name(user).send();
        let Some(output) = found(sent("ListAccessKeys", call).await)? else { return Ok(Vec::new()) };
        let active = |status: Option<StatusType>| status.is_none_or(|status| status == StatusType::Active);
        let key = |id: String, status| FoundKey { id: id.into(), active: active(status) };
        let listed = output.access_key_metadata.into_iter();
        Ok(listed.filter_map(|listed| listed.access_key_id.map(|id| key(id, listed.status))).collect())
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

    async fn set_key_active(&self, user: &str, id: &SecretString, active: bool) -> Result<(), Failure> {
        let status = if active { StatusType::Active } else { StatusType::Inactive };
        let call = self.0.update_access_key().user_name(user).access_key_id(id.expose_secret()).status(status);
        gone(sent("UpdateAccessKey", call.send()).await)
    }

    async fn delete_access_key(&self, user: &str, id: &SecretString) -> Result<(), Failure> {
        let call = self.0.delete_access_key().user_name(user).access_key_id(id.expose_secret());
        gone(sent("DeleteAccessKey", call.send()).await)
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
