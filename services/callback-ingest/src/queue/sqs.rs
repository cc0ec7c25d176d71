//! The queue on SQS.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::{
    Client,
    types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, MessageSystemAttributeName},
};
use futures::future::join_all;
use zeroize::Zeroizing;

use super::{BATCH, Queue, QueueError, Receipt, Received};

/// SQS by its standard API.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

/// Some entries of a batch were refused.
#[derive(Debug, thiserror::Error)]
#[error("SQS refused {count} of the batch, the first with {code}")]
struct Partial {
    count: usize,
    code: String,
}

impl SqsQueue {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(aws::Failure) -> QueueError {
    move |failure| QueueError { operation, source: Box::new(failure) }
}

/// One call in its span, which belongs to the messages it is about. (A poll belongs to none, and has no span.)
async fn traced<T, E>(
    operation: &'static str,
    call: impl Future<Output = Result<T, aws_sdk_sqs::error::SdkError<E>>>,
) -> Result<T, QueueError>
where
    E: aws_sdk_sqs::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    let call = async { call.await.map_err(|error| aws::classify(&error)) };
    aws::traced("SQS", operation, call).await.map_err(failed(operation))
}

fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}

fn whole(operation: &'static str, refused: &[aws_sdk_sqs::types::BatchResultErrorEntry]) -> Result<(), QueueError> {
    match refused.first() {
        None => Ok(()),
        Some(first) => {
            let source = Partial { count: refused.len(), code: first.code().to_owned() };
            Err(QueueError { operation, source: Box::new(source) })
        }
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Vec<Received>, QueueError> {
        let reply = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(BATCH).unwrap_or(1))
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await
            .map_err(|error| failed("ReceiveMessage")(aws::classify(&error)))?;
        let received = reply.messages.unwrap_or_default().into_iter().filter_map(|message| {
            let count = message
                .attributes
                .as_ref()
                .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
            Some(Received {
                deliveries: count.and_then(|count| count.parse().ok()).unwrap_or(1),
                id: message.message_id.unwrap_or_default(),
                receipt: Receipt::new(message.receipt_handle?),
                body: Zeroizing::new(message.body.unwrap_or_default()),
            })
        });
        Ok(received.collect())
    }

    async fn delete(&self, receipts: &[Receipt]) -> Result<(), QueueError> {
        match self.delete_batch(receipts).await {
            Err(error) if is_refused(&error) => one_by_one(receipts, |one| self.delete_one(one)).await,
            result => result,
        }
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Result<(), QueueError> {
        match self.extend_batch(receipts, visibility).await {
            Err(error) if is_refused(&error) => one_by_one(receipts, |one| self.extend_one(one, visibility)).await,
            result => result,
        }
    }
}

/// On AWS the right to `DeleteMessage` and `ChangeMessageVisibility` is the right to their batches. Where it is not (an endpoint's policy, an
/// emulator), the batch is refused, and each message can still be settled by itself.
fn is_refused(error: &QueueError) -> bool {
    let failure = error.source.downcast_ref::<aws::Failure>();
    failure.is_some_and(|failure| failure.kind == aws::FailureKind::Refused)
}

/// All at the same time; the first failure, if there is one, after all have ended.
async fn one_by_one<'a, F>(receipts: &'a [Receipt], call: impl Fn(&'a Receipt) -> F) -> Result<(), QueueError>
where
    F: Future<Output = Result<(), QueueError>>,
{
    join_all(receipts.iter().map(call)).await.into_iter().collect()
}

impl SqsQueue {
    async fn delete_one(&self, receipt: &Receipt) -> Result<(), QueueError> {
        let request = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt.as_str());
        traced("DeleteMessage", request.send()).await.map(drop)
    }

    async fn extend_one(&self, receipt: &Receipt, visibility: Duration) -> Result<(), QueueError> {
        let request = self.client.change_message_visibility().queue_url(&self.url).receipt_handle(receipt.as_str());
        let request = request.visibility_timeout(seconds(visibility));
        traced("ChangeMessageVisibility", request.send()).await.map(drop)
    }

    async fn delete_batch(&self, receipts: &[Receipt]) -> Result<(), QueueError> {
        const OPERATION: &str = "DeleteMessageBatch";
        let invalid = |source| QueueError { operation: OPERATION, source: Box::new(source) };
        let entries: Result<Vec<_>, _> = receipts
            .iter()
            .enumerate()
            .map(|(index, receipt)| {
                DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt.as_str()).build()
            })
            .collect();
        let request =
            self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries.map_err(invalid)?));
        whole(OPERATION, traced(OPERATION, request.send()).await?.failed())
    }

    async fn extend_batch(&self, receipts: &[Receipt], visibility: Duration) -> Result<(), QueueError> {
        const OPERATION: &str = "ChangeMessageVisibilityBatch";
        let invalid = |source| QueueError { operation: OPERATION, source: Box::new(source) };
        let entries: Result<Vec<_>, _> = receipts
            .iter()
            .enumerate()
            .map(|(index, receipt)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt.as_str())
                    .visibility_timeout(seconds(visibility))
                    .build()
            })
            .collect();
        let request = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries.map_err(invalid)?));
        whole(OPERATION, traced(OPERATION, request.send()).await?.failed())
    }
}
