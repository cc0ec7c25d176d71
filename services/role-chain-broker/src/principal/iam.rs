//! IAM, as far as a principal needs it. The trait is the door; the real one and the fake stand beside it.

use async_trait::async_trait;
use aws::Failure;
use contracts::{IamPath, RoleArn, TenantId, UserArn};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::sts::Keys;

/// Which half of a principal. Both bear the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Half {
    User,
    Role,
}

impl Half {
    pub const ALL: [Self; 2] = [Self::User, Self::Role];
}

/// A user as IAM has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundUser {
    pub arn: UserArn,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
}

/// A role as IAM has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRole {
    pub arn: RoleArn,
    /// `AROA...`: a role that is deleted and made again has another one.
    pub id: String,
    /// `None` when IAM's text is no JSON.
    pub trust: Option<Value>,
    /// ARN of the permissions boundary.
    pub boundary: Option<String>,
}

/// One of the user's access keys.
#[derive(Debug, Clone)]
pub struct FoundKey {
    pub id: SecretString,
    pub active: bool,
}

impl FoundKey {
    pub fn is(&self, id: &SecretString) -> bool {
        self.id.expose_secret() == id.expose_secret()
    }
}

/// Reads and writes of one user and one role. Every write may be repeated, and what is gone already counts as deleted.
///
/// Cancel: a dropped write may or may not have happened; the next run reads first. Failure: see [`aws::FailureKind`].
#[async_trait]
pub trait Iam: Send + Sync {
    async fn user(&self, name: &str) -> Result<Option<FoundUser>, Failure>;
    async fn create_user(
        &self,
        path: &IamPath,
        name: &str,
        tenant: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure>;
    async fn role(&self, name: &str) -> Result<Option<FoundRole>, Failure>;
    async fn create_role(
        &self,
        path: &IamPath,
        name: &str,
        trust: &Value,
        tenant: TenantId,
        boundary: Option<&str>,
    ) -> Result<(), Failure>;
    async fn set_trust(&self, role: &str, trust: &Value) -> Result<(), Failure>;
    async fn set_boundary(&self, half: Half, name: &str, boundary: &str) -> Result<(), Failure>;
    async fn delete(&self, half: Half, name: &str) -> Result<(), Failure>;
    /// Names of the inline policies; none when user or role are not there.
    async fn policies(&self, half: Half, name: &str) -> Result<Vec<String>, Failure>;
    async fn policy(&self, half: Half, name: &str, policy: &str) -> Result<Option<Value>, Failure>;
    async fn put_policy(&self, half: Half, name: &str, policy: &str, document: &Value) -> Result<(), Failure>;
    async fn delete_policy(&self, half: Half, name: &str, policy: &str) -> Result<(), Failure>;
    /// ARNs of the managed policies that are attached; none when user or role are not there.
    async fn attached(&self, half: Half, name: &str) -> Result<Vec<String>, Failure>;
    async fn detach(&self, half: Half, name: &str, policy_arn: &str) -> Result<(), Failure>;
    /// All the user's access keys; none when the user is not there.
    async fn access_keys(&self, user: &str) -> Result<Vec<FoundKey>, Failure>;
    async fn create_access_key(&self, user: &str) -> Result<Keys, Failure>;
    async fn set_key_active(&self, user: &str, id: &SecretString, active: bool) -> Result<(), Failure>;
    async fn delete_access_key(&self, user: &str, id: &SecretString) -> Result<(), Failure>;
}
