//! One AWS account of the emulator, as its owner sees it: CloudFormation stacks and buckets.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use aws_config::SdkConfig;
use aws_sdk_cloudformation::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{Capability, Parameter, Stack as SdkStack, Tag},
};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, aws::AmazonS3Builder, path::Path as ObjectPath};

use crate::error::{Result, SandboxError};

const POLL: Duration = Duration::from_millis(50);

/// An account (as its root) in one region.
#[derive(Debug, Clone)]
pub struct Account {
    id: String,
    region: String,
    config: SdkConfig,
    python: PathBuf,
}

/// What is to be launched.
#[derive(Debug, Clone, Default)]
pub struct StackRequest {
    pub name: String,
    /// The template's text.
    pub template: String,
    pub parameters: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// How a stack stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackState {
    /// The stack's ARN, which also finds it after it was deleted.
    pub id: String,
    /// `CREATE_COMPLETE` and the like.
    pub status: String,
    pub outputs: BTreeMap<String, String>,
    /// The resource that failed first in the stack's life, if one did.
    pub failure: Option<ResourceFailure>,
}

/// The event that explains a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFailure {
    pub logical_id: String,
    pub reason: String,
}

/// Something that CloudFormation noted about a resource, or about the stack itself (which bears the stack's name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEvent {
    pub logical_id: String,
    /// `CREATE_COMPLETE` and the like.
    pub status: String,
    pub reason: String,
}

impl StackState {
    /// Whether CloudFormation will do nothing more by itself.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !self.status.ends_with("_IN_PROGRESS")
    }
}

impl StackRequest {
    #[must_use]
    pub fn new(name: &str, template: &str) -> Self {
        Self { name: name.to_owned(), template: template.to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn parameter(mut self, name: &str, value: impl Into<String>) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.tags.insert(name.to_owned(), value.into());
        self
    }

    fn sdk_parameters(&self) -> Vec<Parameter> {
        let make =
            |(key, value): (&String, &String)| Parameter::builder().parameter_key(key).parameter_value(value).build();
        self.parameters.iter().map(make).collect()
    }

    fn sdk_tags(&self) -> Vec<Tag> {
        self.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }
}

impl Account {
    pub(crate) fn new(id: &str, region: &str, config: SdkConfig, python: PathBuf) -> Self {
        Self { id: id.to_owned(), region: region.to_owned(), config, python }
    }

    /// The 12-digit ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Configuration for SDK clients that act as the account's root.
    #[must_use]
    pub const fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.config.endpoint_url().unwrap_or_default()
    }

    pub(crate) fn python(&self) -> &std::path::Path {
        &self.python
    }

    fn cloudformation(&self) -> Client {
        Client::new(&self.config)
    }

    /// Begins to make a stack, and returns its ID without waiting.
    ///
    /// # Errors
    /// CloudFormation refuses the template or the parameters.
    pub async fn create_stack(&self, request: &StackRequest) -> Result<String> {
        let answer = self
            .cloudformation()
            .create_stack()
            .stack_name(&request.name)
            .template_body(&request.template)
            .capabilities(Capability::CapabilityNamedIam)
            .set_parameters(Some(request.sdk_parameters()))
            .set_tags(Some(request.sdk_tags()))
            .send()
            .await
            .map_err(SandboxError::aws(format!("create the stack {}", request.name)))?;
        Ok(answer.stack_id.unwrap_or_default())
    }

    /// Begins to change the stack of the request's name; parameters that are not named return to their defaults.
    ///
    /// # Errors
    /// CloudFormation refuses, also when nothing would change.
    pub async fn update_stack(&self, request: &StackRequest) -> Result<()> {
        self.cloudformation()
            .update_stack()
            .stack_name(&request.name)
            .template_body(&request.template)
            .capabilities(Capability::CapabilityNamedIam)
            .set_parameters(Some(request.sdk_parameters()))
            .set_tags(Some(request.sdk_tags()))
            .send()
            .await
            .map_err(SandboxError::aws(format!("update the stack {}", request.name)))?;
        Ok(())
    }

    /// Begins to delete a stack, by name or ID.
    ///
    /// # Errors
    /// CloudFormation refuses.
    pub async fn delete_stack(&self, stack: &str) -> Result<()> {
        self.cloudformation()
            .delete_stack()
            .stack_name(stack)
            .send()
            .await
            .map_err(SandboxError::aws(format!("delete the stack {stack}")))?;
        Ok(())
    }

    /// How the stack (by ID, or by name while it lives) stands; `None` if there is none.
    ///
    /// # Errors
    /// CloudFormation refuses.
    pub async fn stack(&self, stack: &str) -> Result<Option<StackState>> {
        let answer = match self.cloudformation().describe_stacks().stack_name(stack).send().await {
            Ok(answer) => answer,
            Err(error) if error.message().is_some_and(|text| text.contains("does not exist")) => return Ok(None),
            Err(error) => return Err(SandboxError::aws(format!("describe the stack {stack}"))(error)),
        };
        let Some(found) = answer.stacks.unwrap_or_default().into_iter().next() else { return Ok(None) };
        let mut state = state_of(found);
        if state.status.contains("FAILED") || state.status.contains("ROLLBACK") {
            state.failure = self.first_failure(&state.id).await?;
        }
        Ok(Some(state))
    }

    /// Waits until `done` holds for the stack's state; a stack that is gone counts as `DELETE_COMPLETE`.
    ///
    /// # Errors
    /// The time is over.
    pub async fn wait_stack(
        &self,
        stack: &str,
        within: Duration,
        done: impl Fn(&StackState) -> bool,
    ) -> Result<StackState> {
        let start = Instant::now();
        loop {
            let state = self.stack(stack).await?.unwrap_or_else(|| StackState {
                id: stack.to_owned(),
                status: "DELETE_COMPLETE".to_owned(),
                outputs: BTreeMap::new(),
                failure: None,
            });
            if done(&state) {
                return Ok(state);
            }
            if start.elapsed() > within {
                return Err(SandboxError::StackTimeout { stack: stack.to_owned(), status: state.status, within });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes a stack and waits for `CREATE_COMPLETE`.
    ///
    /// # Errors
    /// Any other end, with the reason; 60 s without one.
    pub async fn deploy(&self, request: &StackRequest) -> Result<StackState> {
        let id = self.create_stack(request).await?;
        let state = self.wait_stack(&id, Duration::from_secs(60), StackState::is_final).await?;
        if state.status == "CREATE_COMPLETE" {
            return Ok(state);
        }
        let reason =
            state.failure.map_or_else(String::new, |failure| format!("{}: {}", failure.logical_id, failure.reason));
        Err(SandboxError::Stack { stack: request.name.clone(), status: state.status, reason })
    }

    /// Makes an S3 bucket, in a stack of its own.
    ///
    /// # Errors
    /// As [`Account::deploy`].
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let template = r#"{"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Ref": "Name"}}}},
            "Parameters": {"Name": {"Type": "String"}}}"#;
        self.deploy(&StackRequest::new(&format!("bucket-{bucket}"), template).parameter("Name", bucket)).await.map(drop)
    }

    /// Writes an object, as the account's root.
    ///
    /// # Errors
    /// S3 refuses.
    pub async fn put_object(&self, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<()> {
        let cannot = || format!("write the object {key} to the bucket {bucket}");
        self.bucket(bucket)?
            .put(&ObjectPath::from(key), PutPayload::from(bytes))
            .await
            .map_err(SandboxError::aws(cannot()))?;
        Ok(())
    }

    /// A bucket as an object store, as the account's root.
    ///
    /// # Errors
    /// The bucket's name is malformed.
    pub fn bucket(&self, bucket: &str) -> Result<impl ObjectStore + use<>> {
        AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&self.region)
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id(&self.id)
            .with_secret_access_key("unchecked")
            .build()
            .map_err(SandboxError::aws(format!("address the bucket {bucket}")))
    }

    /// All that happened to a stack, oldest first.
    ///
    /// # Errors
    /// CloudFormation refuses.
    pub async fn stack_events(&self, stack_id: &str) -> Result<Vec<StackEvent>> {
        let pages = self.cloudformation().describe_stack_events().stack_name(stack_id).into_paginator().items().send();
        let events: Vec<_> =
            pages.try_collect().await.map_err(SandboxError::aws(format!("read the events of the stack {stack_id}")))?;
        // Newest first, as they come.
        let mut events: Vec<_> = events
            .into_iter()
            .map(|event| StackEvent {
                logical_id: event.logical_resource_id.unwrap_or_default(),
                status: event.resource_status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
                reason: event.resource_status_reason.unwrap_or_default(),
            })
            .collect();
        events.reverse();
        Ok(events)
    }

    async fn first_failure(&self, stack_id: &str) -> Result<Option<ResourceFailure>> {
        let events = self.stack_events(stack_id).await?;
        let failed = events.into_iter().find(|event| event.status.ends_with("_FAILED"));
        Ok(failed.map(|event| ResourceFailure { logical_id: event.logical_id, reason: event.reason }))
    }
}

fn state_of(stack: SdkStack) -> StackState {
    let outputs = stack
        .outputs
        .unwrap_or_default()
        .into_iter()
        .filter_map(|output| output.output_key.zip(output.output_value))
        .collect();
    StackState {
        id: stack.stack_id.unwrap_or_default(),
        status: stack.stack_status.map(|status| status.as_str().to_owned()).unwrap_or_default(),
        outputs,
        failure: None,
    }
}
