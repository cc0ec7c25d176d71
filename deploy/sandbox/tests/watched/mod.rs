//! A client of the bus that sees what the server refuses it.

#![allow(dead_code, reason = "each test program uses its part")]

use std::time::Duration;

use async_nats::{Client, Event};
use sandbox::{NatsServer, Toolbox};
use tokio::sync::mpsc;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const MARKER: &str = "marker.that.nobody.may.publish";
/// The client's queue of events is bounded: more refusals at once would be lost.
const AT_ONCE: usize = 50;

pub(crate) async fn server() -> NatsServer {
    let tools = tokio::task::spawn_blocking(|| Toolbox::fetch(|line| eprintln!("{line}")))
        .await
        .expect("joins")
        .expect("tools");
    NatsServer::start(&tools).await.expect("nats-server starts")
}

/// A client whose refusals by the server can be read.
pub(crate) struct Watched {
    pub(crate) client: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Watched {
    pub(crate) async fn connect(server: &NatsServer, user: &str) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let seed = std::fs::read_to_string(server.seed_file_of(user)).expect("seed");
        let client = async_nats::ConnectOptions::with_nkey(seed)
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        let _ = sender.send(error.to_string());
                    }
                }
            })
            .connect(server.url())
            .await
            .expect("connects");
        Self { client, refusals }
    }

    /// Publishes; the server's refusal, if it refused. A flush is answered after everything before it was judged.
    pub(crate) async fn publish(&mut self, subject: &str) -> Option<String> {
        self.client.publish(subject.to_owned(), "x".into()).await.expect("sent");
        self.settled().await
    }

    pub(crate) async fn subscribe(&mut self, subject: &str) -> Option<String> {
        let _subscription = self.client.subscribe(subject.to_owned()).await.expect("sent");
        self.settled().await
    }

    /// Those of the subjects that the server refuses to let us publish to.
    pub(crate) async fn refused_publishes(&mut self, subjects: &[String]) -> Vec<String> {
        let mut refused = Vec::new();
        for some in subjects.chunks(AT_ONCE) {
            for subject in some {
                self.client.publish(subject.clone(), "x".into()).await.expect("sent");
            }
            refused.extend(self.refused(some).await);
        }
        refused
    }

    /// Those of the subjects that the server refuses to let us subscribe to.
    pub(crate) async fn refused_subscriptions(&mut self, subjects: &[String]) -> Vec<String> {
        let mut refused = Vec::new();
        for some in subjects.chunks(AT_ONCE) {
            let mut held = Vec::new();
            for subject in some {
                held.push(self.client.subscribe(subject.clone()).await.expect("sent"));
            }
            refused.extend(self.refused(some).await);
        }
        refused
    }

    /// Those that were named in refusals since the last look.
    async fn refused(&mut self, subjects: &[String]) -> Vec<String> {
        self.client.publish(MARKER, "x".into()).await.expect("sent");
        let mut refused = Vec::new();
        loop {
            let text = self.next_refusal().await;
            if text.contains(MARKER) {
                return refused;
            }
            let named = subjects.iter().find(|subject| text.contains(&format!("\"{subject}\"")));
            refused.push(named.unwrap_or_else(|| panic!("a refusal of nothing that was asked: {text}")).clone());
        }
    }

    /// Waits for a round trip through the server: an unknown subject of our own inbox, to ourselves.
    async fn settled(&mut self) -> Option<String> {
        self.client.flush().await.expect("flushed");
        // Flush writes, and does not wait for the server: a refused marker is judged after what went before it.
        self.client.publish(MARKER, "x".into()).await.expect("sent");
        let first = self.next_refusal().await;
        if first.contains(MARKER) {
            return None;
        }
        let marker = self.next_refusal().await;
        assert!(marker.contains(MARKER), "{marker}");
        Some(first)
    }

    async fn next_refusal(&mut self) -> String {
        tokio::time::timeout(10 * SECOND, self.refusals.recv())
            .await
            .expect("the marker is refused")
            .expect("connected")
    }

    pub(crate) async fn may_publish(&mut self, subject: &str) {
        assert_eq!(self.publish(subject).await, None, "{subject} should be allowed");
    }

    pub(crate) async fn may_not_publish(&mut self, subject: &str) {
        assert!(self.publish(subject).await.is_some(), "{subject} should be refused");
    }

    pub(crate) async fn may_not_subscribe(&mut self, subject: &str) {
        assert!(self.subscribe(subject).await.is_some(), "{subject} should be refused");
    }

    pub(crate) async fn may_subscribe(&mut self, subject: &str) {
        assert_eq!(self.subscribe(subject).await, None, "{subject} should be allowed");
    }
}
