//! IAM of the emulator, by hand: its SDK belongs to the broker alone. The signature of an account's root is not checked there.

use sandbox::{Account, REGION, System};
use serde_json::{Value, json};

async fn call(system: &System, account: &Account, action: &str, parameters: &[(&str, &str)]) {
    let (went_well, answer) = ask(system, account, action, parameters).await;
    assert!(went_well, "{action}: {answer}");
}

/// Whether it went well, and the answer.
async fn ask(system: &System, account: &Account, action: &str, parameters: &[(&str, &str)]) -> (bool, String) {
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("Action", action), ("Version", "2010-05-08")])
        .extend_pairs(parameters)
        .finish();
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/20260101/{REGION}/iam/aws4_request, SignedHeaders=host, Signature=unchecked",
        account.id()
    );
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client
        .post(system.emulator.endpoint())
        .header("Authorization", authorization)
        .header("X-Amz-Date", "20260101T000000Z")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .expect("IAM answers");
    (response.status().is_success(), response.text().await.expect("text"))
}

/// What an action that reads answers; nothing when what it asks for is not there.
pub(crate) async fn look(
    system: &System,
    account: &Account,
    action: &str,
    parameters: &[(&str, &str)],
) -> Option<String> {
    let (went_well, answer) = ask(system, account, action, parameters).await;
    assert!(went_well || answer.contains("NoSuchEntity"), "{action}: {answer}");
    went_well.then_some(answer)
}

/// A trust policy for this principal, with this condition or none.
pub(crate) fn trust(principal: &str, condition: Option<Value>) -> Value {
    let mut statement = json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": principal}});
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// Gives a role (by its name) another trust policy, behind CloudFormation's back.
pub(crate) async fn set_trust(system: &System, account: &Account, role: &str, policy: &Value) {
    let policy = policy.to_string();
    call(system, account, "UpdateAssumeRolePolicy", &[("RoleName", role), ("PolicyDocument", &policy)]).await;
}

/// Deletes a role that has one inline policy, behind CloudFormation's back.
pub(crate) async fn delete_role(system: &System, account: &Account, role: &str, policy: &str) {
    call(system, account, "DeleteRolePolicy", &[("RoleName", role), ("PolicyName", policy)]).await;
    call(system, account, "DeleteRole", &[("RoleName", role)]).await;
}
