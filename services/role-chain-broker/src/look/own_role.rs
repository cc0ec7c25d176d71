//! IAM itself, asked with the session of a customer's role.

use async_trait::async_trait;
use aws::{Failure, FailureKind, Patience, SdkConfig, Unclear, classify, traced};
use aws_sdk_iam::{
    Client,
    config::{Builder, IdentityCache},
    operation::RequestId as _,
    types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType},
};
use contracts::{Region, RoleArn};

use super::OwnRole;
use crate::{
    purpose::Need,
    sts::{Answer, Keys},
};

/// IAM of whatever account the keys belong to.
#[derive(Debug, Clone)]
pub struct RealOwnRole {
    sdk: SdkConfig,
    patience: Patience,
}

impl RealOwnRole {
    #[must_use]
    pub fn new(sdk: SdkConfig, patience: Patience) -> Self {
        Self { sdk, patience }
    }

    /// As for STS: a client that has never seen other keys and never will.
    fn client(&self, keys: &Keys, region: &Region) -> Client {
        let config = Builder::from(&self.sdk)
            .credentials_provider(keys.for_sdk())
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(self.patience.timeouts())
            .retry_config(self.patience.retries())
            .region(aws_sdk_iam::config::Region::new(region.as_str().to_owned()));
        Client::from_conf(config.build())
    }
}

#[async_trait]
impl OwnRole for RealOwnRole {
    async fn longest_session(&self, keys: &Keys, role: &RoleArn, region: &Region) -> Result<Answer<u32>, Failure> {
        let call = self.client(keys, region).get_role().role_name(role.name());
        traced("IAM", "GetRole", async {
            let output = call.send().await.map_err(|error| classify(&error))?;
            let request_id = output.request_id().map(str::to_owned);
            let found = output.role.filter(|found| found.arn == role.as_str()).ok_or_else(garbage)?;
            let seconds = found.max_session_duration.and_then(|seconds| u32::try_from(seconds).ok());
            Ok(Answer { value: seconds.ok_or_else(garbage)?, request_id })
        })
        .await
    }

    async fn denied(
        &self,
        keys: &Keys,
        role: &RoleArn,
        region: &Region,
        need: &Need,
    ) -> Result<Answer<Vec<String>>, Failure> {
        let context = need.context.iter().map(|(key, value)| {
            let entry = ContextEntry::builder().context_key_name(*key).context_key_values(value);
            entry.context_key_type(ContextKeyTypeEnum::String).build()
        });
        let call = self
            .client(keys, region)
            .simulate_principal_policy()
            .policy_source_arn(role.as_str())
            .set_action_names(Some(need.actions.iter().map(|action| (*action).to_owned()).collect()))
            .resource_arns(&need.resource)
            .set_context_entries(Some(context.collect()));
        traced("IAM", "SimulatePrincipalPolicy", async {
            let output = call.send().await.map_err(|error| classify(&error))?;
            let request_id = output.request_id().map(str::to_owned);
            let mut denied = Vec::new();
            for action in need.actions {
                // An action without a result is no permission, and no lack of one either.
                let result = output.evaluation_results().iter().find(|result| result.eval_action_name() == *action);
                let decision = result.ok_or_else(garbage)?.eval_decision();
                if *decision != PolicyEvaluationDecisionType::Allowed {
                    denied.push((*action).to_owned());
                }
            }
            Ok(Answer { value: denied, request_id })
        })
        .await
    }
}

fn garbage() -> Failure {
    Failure::new(FailureKind::Indeterminate(Unclear::Garbage), None)
}
