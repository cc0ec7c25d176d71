//! What stands in for CloudFormation's own publishing to SNS, which the emulator does not know.
//!
//! For the `ServiceToken` of a custom resource the emulator looks for a Lambda function, by ARN or by name. A function *named* with the
//! topic's ARN in the customer's account is therefore found, and publishes the request to the topic with the customer's principal, as
//! CloudFormation does: topic policy, subscription and envelope are the real thing, and the customer's template stays as it is.
//! A quirk of the pinned version; a test says so when it goes.

use std::process::{Command, Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    account::{Account, StackRequest},
    error::{Cause, Result, SandboxError},
};

/// The function's code: only the standard library, which starts at once. The signature of a root's key is not checked.
const CODE: &str = r#"
import json, os, urllib.parse, urllib.request

def handler(event, context):
    topic = os.environ["TOPIC"]
    region = topic.split(":")[3]
    body = urllib.parse.urlencode({
        "Action": "Publish", "Version": "2010-03-31", "TopicArn": topic,
        "Subject": "AWS CloudFormation custom resource request", "Message": json.dumps(event),
    }).encode()
    scope = f"{os.environ['CUSTOMER']}/20260101/{region}/sns/aws4_request"
    request = urllib.request.Request(os.environ["ENDPOINT"], data=body, headers={
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=unchecked",
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Amz-Date": "20260101T000000Z",
    })
    with urllib.request.urlopen(request, timeout=30) as response:
        response.read()
"#;

/// The emulator wants the function's role to exist; the code does not use it.
const ROLE: &str = r#"{
  "Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]}}}},
  "Outputs": {"RoleArn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}}
}"#;

/// Packs standard input as the one file of a zip archive.
const PACK: &str = r"
import io, sys, zipfile
out = io.BytesIO()
with zipfile.ZipFile(out, 'w') as archive:
    archive.writestr('index.py', sys.stdin.read())
sys.stdout.buffer.write(out.getvalue())
";

impl Account {
    /// Lets custom resources of this account's stacks (in this region) reach the SNS topic `topic_arn` of the provider.
    ///
    /// # Errors
    /// The emulator refuses the function.
    pub async fn install_callback_bridge(&self, topic_arn: &str) -> Result<()> {
        let operation = || format!("install the callback bridge in account {}", self.id());
        let stack = match self.stack("sandbox-callback-bridge").await? {
            Some(stack) => stack,
            None => self.deploy(&StackRequest::new("sandbox-callback-bridge", ROLE)).await?,
        };
        let role = stack.outputs.get("RoleArn").ok_or(SandboxError::MissingOutput("RoleArn"))?;
        let function = json!({
            "FunctionName": topic_arn,
            "Runtime": "python3.12",
            "Role": role,
            "Handler": "index.handler",
            "Timeout": 60,
            "Code": {"ZipFile": STANDARD.encode(self.pack()?)},
            "Environment": {"Variables": {"TOPIC": topic_arn, "CUSTOMER": self.id(), "ENDPOINT": self.endpoint()}},
        });
        // By hand: the SDK refuses such a name before it is sent.
        let response = self
            .root_post("lambda", "/2015-03-31/functions")?
            .json(&function)
            .send()
            .await
            .map_err(SandboxError::aws(operation()))?;
        if response.status().is_success() {
            return Ok(());
        }
        let refusal = response.text().await.map_err(SandboxError::aws(operation()))?;
        Err(SandboxError::aws(operation())(Cause::from(refusal)))
    }

    /// The code as a zip archive.
    fn pack(&self) -> Result<Vec<u8>> {
        let what = "pack the callback bridge";
        let mut child = Command::new(self.python())
            .args(["-I", "-c", PACK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(SandboxError::io(what))?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, CODE.as_bytes()).map_err(SandboxError::io(what))?;
        }
        Ok(child.wait_with_output().map_err(SandboxError::io(what))?.stdout)
    }
}
