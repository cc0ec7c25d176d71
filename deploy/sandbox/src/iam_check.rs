//! Proof that the emulator refuses what AWS refuses. With IAM off every attack would "fail" to be refused, or worse: every test that awaits a
//! success would pass for the wrong reason.

use aws_credential_types::Credentials;
use aws_sdk_sts::error::ProvideErrorMetadata as _;

use crate::{
    account::StackRequest,
    emulator::AwsEmulator,
    error::{Result, SandboxError},
};

const ACCOUNT: &str = "999999999999";
const REGION: &str = "us-east-1";

const TEMPLATE: &str = r#"{
  "Resources": {
    "User": {"Type": "AWS::IAM::User", "Properties": {"Policies": [{"PolicyName": "assume", "PolicyDocument": {"Version": "2012-10-17",
      "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}}]}},
    "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17",
      "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": {"Fn::GetAtt": ["User", "Arn"]}},
        "Condition": {"StringEquals": {"sts:ExternalId": "right"}}}]}}}
  },
  "Outputs": {
    "User": {"Value": {"Ref": "User"}},
    "RoleArn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}
  }
}"#;

impl AwsEmulator {
    /// Proves that IAM is on: the right external ID with the right secret is let through; a wrong external ID, none, and a wrong secret are
    /// refused, for that reason.
    ///
    /// # Errors
    /// [`SandboxError::IamOff`] names what was let through.
    pub async fn assert_iam_is_on(&self) -> Result<()> {
        let account = self.account(ACCOUNT, REGION);
        let name = format!("iam-check-{}", uuid::Uuid::new_v4().simple());
        let stack = account.deploy(&StackRequest::new(&name, TEMPLATE)).await?;
        let output = |name: &'static str| stack.outputs.get(name).cloned().ok_or(SandboxError::MissingOutput(name));
        let role = output("RoleArn")?;
        let right = account.create_access_key(&output("User")?).await?;
        let wrong = Credentials::new(right.access_key_id(), "wrong".repeat(8), None, None, "iam-check");

        if let Some(code) = self.assume(right.clone(), &role, Some("right")).await? {
            return Err(SandboxError::aws("assume a role with the right external ID")(code));
        }
        self.refused(right.clone(), &role, Some("wrong"), "AccessDenied", "a wrong external ID").await?;
        self.refused(right, &role, None, "AccessDenied", "a missing external ID").await?;
        self.refused(wrong, &role, Some("right"), "SignatureDoesNotMatch", "a wrong secret").await?;
        account.delete_stack(&stack.id).await
    }

    async fn refused(
        &self,
        with: Credentials,
        role: &str,
        external_id: Option<&str>,
        code: &str,
        what: &'static str,
    ) -> Result<()> {
        match self.assume(with, role, external_id).await? {
            None => Err(SandboxError::IamOff(what)),
            Some(found) if found == code => Ok(()),
            Some(found) => Err(SandboxError::aws(format!("see {what} refused with {code}"))(found)),
        }
    }

    /// The error code of STS; `None` when it lets the caller through.
    async fn assume(&self, with: Credentials, role: &str, external_id: Option<&str>) -> Result<Option<String>> {
        let client = aws_sdk_sts::Client::new(&self.sdk_config(REGION, with));
        let request = client.assume_role().role_arn(role).role_session_name("iam-check");
        match request.set_external_id(external_id.map(str::to_owned)).send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.code() {
                Some(code) => Ok(Some(code.to_owned())),
                None => Err(SandboxError::aws("reach STS of the emulator")(error)),
            },
        }
    }
}
