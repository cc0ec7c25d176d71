//! Requests of CloudFormation that no CloudFormation sent, with a role that is real.

use contracts::enrollment::EnrollmentOffer;
use sandbox::{Account, REGION, StackRequest, System};
use serde_json::{Value, json};
use uuid::Uuid;

const ROLE: &str = r#"{
  "Parameters": {"Principal": {"Type": "String"}, "ExternalId": {"Type": "String"}},
  "Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "rolebridge-crafted", "Path": "/rolebridge/",
    "AssumeRolePolicyDocument": {"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": {"Ref": "Principal"}},
      "Condition": {"StringEquals": {"sts:ExternalId": {"Ref": "ExternalId"}}}}]},
    "Policies": [{"PolicyName": "costs", "PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*",
      "Action": ["bcm-data-exports:*", "cur:DescribeReportDefinitions", "ce:GetCostAndUsage"]}]}}]}}},
  "Outputs": {"RoleArn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}}
}"#;

/// Makes a role that trusts the principal as it should, and gives its ARN.
pub(crate) async fn role(account: &Account, offer: &EnrollmentOffer, principal: &str) -> String {
    let request = StackRequest::new("a-role", ROLE).parameter("Principal", principal);
    let stack = account.deploy(&request.parameter("ExternalId", offer.external_id.as_str())).await.expect("a role");
    stack.outputs["RoleArn"].clone()
}

/// A request, and the last part of the address that it wants to be answered at: one of the emulator's that nobody waits at.
pub(crate) struct Crafted {
    pub(crate) request: Value,
    pub(crate) address: String,
}

impl Crafted {
    pub(crate) fn create(system: &System, account: &Account, offer: &EnrollmentOffer, role: &str) -> Self {
        Self::new(system, account, offer, role, "Create")
    }

    pub(crate) fn delete(system: &System, account: &Account, offer: &EnrollmentOffer, role: &str, id: &str) -> Self {
        let mut crafted = Self::new(system, account, offer, role, "Delete");
        crafted.request["PhysicalResourceId"] = id.into();
        crafted
    }

    fn new(system: &System, account: &Account, offer: &EnrollmentOffer, role: &str, kind: &str) -> Self {
        let address = Uuid::new_v4().to_string();
        let request = json!({
            "RequestType": kind,
            "RequestId": Uuid::new_v4(),
            "StackId": format!("arn:aws:cloudformation:{REGION}:{}:stack/crafted/{}", account.id(), Uuid::new_v4()),
            "ResponseURL": format!("{}/_ministack/cfn-response/{address}", system.emulator.endpoint()),
            "ResourceType": "Custom::RolebridgeConnection",
            "LogicalResourceId": "Connection",
            "ResourceProperties": {
                "ServiceToken": system.provider.topic_arn, "ServiceTimeout": "600", "ExternalId": offer.external_id.as_str(),
                "CallbackToken": offer.callback_token.expose(), "RoleArn": role, "AccountId": account.id(), "Region": REGION,
                "Partition": "aws", "CostBucket": "", "CostPrefix": "", "TemplateVersion": "1",
            },
        });
        Self { request, address }
    }

    /// The same, to be answered at `url`.
    pub(crate) fn at(mut self, url: &str) -> Self {
        self.request["ResponseURL"] = url.into();
        self
    }

    /// The same, with another `ResourceProperties` entry.
    pub(crate) fn property(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.request["ResourceProperties"][name] = value.into();
        self
    }

    /// What the emulator noted of answers to this request: it knows no such address, and says so each time.
    pub(crate) fn answers(&self, system: &System) -> Vec<String> {
        let log = system.emulator.log_text();
        let noted = |line: &&str| line.contains("unknown token") && line.contains(&self.address);
        log.lines().filter(noted).map(ToOwned::to_owned).collect()
    }
}
