//! callback-ingest as a process between a real nats-server and the emulator's SNS and SQS, with a web server in CloudFormation's place.

#![allow(dead_code, reason = "each test program uses a part")]

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use contracts::{
    CallbackToken, CloudEvent, Stream,
    callback::{Answer, CallbackOutcome, CallbackReceived},
};
use futures::StreamExt;
use messaging::{
    Backoff, Bus, ConsumerSpec, Disposition, Router, async_nats::jetstream::consumer::pull, seal::SealSeed,
};
use sandbox::{AwsEmulator, NatsServer, NatsUser, Provider, ServiceProcess, Toolbox};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wiremock::MockServer;

pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const PROVIDER_ACCOUNT: &str = "111111111111";
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// What `System` is to a test of all services, for this one alone.
pub(crate) struct World {
    pub(crate) ingest: ServiceProcess,
    pub(crate) nats: NatsServer,
    pub(crate) emulator: AwsEmulator,
    pub(crate) provider: Provider,
    /// Where answers go.
    pub(crate) bucket: MockServer,
    sqs: aws_sdk_sqs::Client,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|_| {})).await.unwrap().unwrap();
        let (nats, emulator) = (NatsServer::start(&tools).await.unwrap(), AwsEmulator::start(&tools).await.unwrap());
        let provider = Provider::deploy(&emulator, PROVIDER_ACCOUNT, REGION).await.unwrap();
        let (bucket, folder) = (MockServer::start().await, tempfile::tempdir().unwrap());
        let key = folder.path().join("ingest.seed");
        SealSeed::generate().unwrap().save(&key).unwrap();
        let environment = [
            ("ROLEBRIDGE_NATS_URL", nats.url()),
            ("ROLEBRIDGE_NATS_SEED_FILE", nats.seed_file(NatsUser::CallbackIngest).display().to_string()),
            ("ROLEBRIDGE_CALLBACK_QUEUE_URL", provider.queue_url.clone()),
            ("ROLEBRIDGE_TOPIC_ARNS", provider.topic_arn.clone()),
            ("ROLEBRIDGE_INGEST_KEY_FILE", key.display().to_string()),
            ("ROLEBRIDGE_SNS_SIGNATURE", "sandbox-skip".to_owned()),
            ("ROLEBRIDGE_RESPONSE_SANDBOX_ORIGIN", bucket.uri()),
            ("ROLEBRIDGE_LOG_FORMAT", "json".to_owned()),
            ("RUST_LOG", "debug".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", emulator.endpoint()),
            ("AWS_ACCESS_KEY_ID", provider.callback_ingest.access_key_id().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", provider.callback_ingest.secret_access_key().to_owned()),
        ];
        let mut ingest = ServiceProcess::spawn("callback-ingest", environment).unwrap();
        ingest.wait_ready(WITHIN).await.unwrap();
        let root = aws_sdk_sqs::config::Credentials::new(PROVIDER_ACCOUNT, "x", None, None, "root");
        let sqs = aws_sdk_sqs::Client::new(&emulator.sdk_config(REGION, root));
        Self { ingest, nats, emulator, provider, bucket, sqs, _folder: folder }
    }

    pub(crate) async fn bus(&self, user: NatsUser) -> Bus {
        self.nats.bus(user).await.unwrap()
    }

    /// A request as the customer's template makes it, to be answered at our bucket.
    pub(crate) fn request(&self, token: &CallbackToken, request_id: &str) -> Value {
        json!({
            "RequestType": "Create", "RequestId": request_id,
            "ResponseURL": format!("{}/answers/{request_id}?X-Amz-Signature=canary-url", self.bucket.uri()),
            "ResourceType": "Custom::RolebridgeConnection", "LogicalResourceId": "Connection",
            "StackId": format!("arn:aws:cloudformation:{REGION}:222222222222:stack/rolebridge/0b9f3a10-6f3e-11f0-8c5d-0242ac120002"),
            "ResourceProperties": {
                "ServiceToken": self.provider.topic_arn, "ExternalId": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
                "CallbackToken": token.expose(), "RoleArn": "arn:aws:iam::222222222222:role/rolebridge/rolebridge-0242ac120002",
                "AccountId": "222222222222", "Region": REGION, "Partition": "aws", "CostBucket": "", "CostPrefix": "",
                "TemplateVersion": "1",
            },
        })
    }

    /// Publishes to the topic, as CloudFormation does with the customer's credentials.
    pub(crate) async fn publish(&self, message: &str) {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("Action", "Publish"),
                ("Version", "2010-03-31"),
                ("TopicArn", &self.provider.topic_arn),
                ("Message", message),
            ])
            .finish();
        // The emulator takes an account's number for its root's key, and does not check that key's signature.
        let scope = format!("{PROVIDER_ACCOUNT}/20260101/{REGION}/sns/aws4_request");
        let reply = reqwest::Client::new()
            .post(self.emulator.endpoint())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"))
            .body(form)
            .send()
            .await
            .unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }

    /// Puts a message past SNS, as only the provider's own root can.
    pub(crate) async fn put(&self, body: impl Into<String>) {
        self.sqs.send_message().queue_url(&self.provider.queue_url).message_body(body).send().await.unwrap();
    }

    /// Messages in the queue, taken ones included.
    pub(crate) async fn left(&self) -> usize {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let request = self.sqs.get_queue_attributes().queue_url(&self.provider.queue_url);
        let reply = request.set_attribute_names(Some(names.to_vec())).send().await.unwrap();
        let attributes = reply.attributes.unwrap();
        names.iter().map(|name| attributes[name].parse::<usize>().unwrap()).sum()
    }

    pub(crate) async fn until_empty(&self) {
        until("the queue is empty", async || self.left().await == 0).await;
    }

    /// All dead letters, headers and payload as text; waits for `count`.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<String> {
        let bus = self.bus(NatsUser::Operator).await;
        let stream = bus.jetstream().get_stream(Stream::DeadLetters.name()).await.unwrap();
        let consumer = stream.create_consumer(pull::OrderedConfig::default()).await.unwrap();
        let letters = consumer.messages().await.unwrap().take(count).map(|message| {
            let message = message.unwrap();
            format!("{:?} {}", message.headers, String::from_utf8_lossy(&message.payload))
        });
        tokio::time::timeout(WITHIN, letters.collect()).await.expect("fewer dead letters than expected")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ours = self.ingest.log_text();
            println!("{}", ours.lines().filter(|line| line.contains("callback_ingest")).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The registry's side of the bus.
pub(crate) struct Registry {
    pub(crate) bus: Bus,
    callbacks: mpsc::UnboundedReceiver<CloudEvent<CallbackReceived>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Registry {
    pub(crate) async fn start(world: &World) -> Self {
        let bus = world.bus(NatsUser::TenantRegistry).await;
        let (sender, callbacks) = mpsc::unbounded_channel();
        let router = Router::new().on::<CallbackReceived, _, _>(move |event, _| {
            sender.send(event).unwrap();
            std::future::ready(Disposition::Done)
        });
        let spec = ConsumerSpec {
            stream: Stream::Callbacks,
            durable: "tenant-registry-callbacks",
            filters: vec!["rolebridge.internal.v1.callbacks.received".to_owned()],
            in_flight: 16,
            ack_wait: Duration::from_secs(30),
            max_deliver: 5,
            backoff: Backoff { first: Duration::from_secs(1), most: Duration::from_secs(1) },
        };
        let stop = CancellationToken::new();
        tokio::spawn(messaging::consume(bus.clone(), spec, router, stop.clone()));
        Self { bus, callbacks, _stop: stop.drop_guard() }
    }

    pub(crate) async fn next(&mut self) -> CloudEvent<CallbackReceived> {
        tokio::time::timeout(WITHIN, self.callbacks.recv()).await.expect("no callback came").unwrap()
    }

    pub(crate) async fn decide(&self, received: &CallbackReceived, answer: Answer) {
        let outcome = CallbackOutcome {
            key: received.key.clone(),
            answer,
            physical_resource_id: "rolebridge-connection-1".to_owned(),
            return_address: received.return_address.clone(),
            received_at: received.received_at,
        };
        self.bus.publish(&messaging::event(outcome)).await.unwrap();
    }
}

pub(crate) async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(WITHIN, async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}
