//! Calls of the emulator as an account's root, by hand: for what CloudFormation there cannot make and the SDKs in reach do not offer.
//! The signature of a root's key is not checked by the emulator; on AWS all of this would be refused.

use aws_credential_types::Credentials;

use crate::{
    account::Account,
    error::{Cause, Result, SandboxError},
};

impl Account {
    /// A POST to `path` of the emulator for one `service`, as this account's root.
    pub(crate) fn root_post(&self, service: &str, path: &str) -> Result<reqwest::RequestBuilder> {
        let client = reqwest::Client::builder().no_proxy().build().map_err(SandboxError::aws("make an HTTP client"))?;
        let scope = format!("{}/20260101/{}/{service}/aws4_request", self.id(), self.region());
        Ok(client
            .post(format!("{}{path}", self.endpoint()))
            .header(
                "Authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked"),
            )
            .header("X-Amz-Date", "20260101T000000Z"))
    }

    /// Makes an access key for an IAM user of this account.
    ///
    /// # Errors
    /// IAM refuses, or answers something else.
    pub async fn create_access_key(&self, user: &str) -> Result<Credentials> {
        let operation = || format!("make an access key for the user {user} of account {}", self.id());
        let form = format!("Action=CreateAccessKey&Version=2010-05-08&UserName={user}");
        let response = self
            .root_post("iam", "/")?
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(SandboxError::aws(operation()))?;
        let text = response.text().await.map_err(SandboxError::aws(operation()))?;
        match (element(&text, "AccessKeyId"), element(&text, "SecretAccessKey")) {
            (Some(id), Some(secret)) => Ok(Credentials::new(id, secret, None, None, "sandbox-user")),
            _ => Err(SandboxError::aws(operation())(Cause::from("the answer holds no key"))),
        }
    }
}

/// The text of the first element of that name: enough for this one answer, which holds neither attributes nor entities there.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_found() {
        assert_eq!(element("<a><B>x</B><C>y</C></a>", "C"), Some("y"));
        assert_eq!(element("<a><B>x</B></a>", "C"), None);
        assert_eq!(element("<C>x", "C"), None);
    }
}
