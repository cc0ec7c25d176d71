//! Asking, many times, and what it took.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use async_nats::{Client, Request, service::NATS_SERVICE_ERROR};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

const TIMEOUT: Duration = Duration::from_secs(20);

/// How long each request took, and all together.
#[derive(Default)]
pub(crate) struct Took {
    each: Vec<Duration>,
    all: Duration,
}

/// Microseconds, and requests in a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
}

impl Took {
    pub(crate) fn add(&mut self, other: Self) {
        self.each.extend(other.each);
        self.all += other.all;
    }

    /// # Errors
    /// Nothing was asked.
    pub(crate) fn figures(&self) -> Result<Figures> {
        let mut sorted = self.each.clone();
        sorted.sort_unstable();
        ensure!(!sorted.is_empty(), "nothing was measured");
        // Nearest rank.
        let at =
            |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default();
        let requests = sorted.len();
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let per_second = requests as f64 / self.all.as_secs_f64();
        Ok(Figures { requests, p50_us: micros(at(50)), p99_us: micros(at(99)), per_second })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// `count` requests, `in_flight` at a time.
///
/// # Errors
/// As `ask`'s.
pub(crate) async fn run<F, Fut>(count: usize, in_flight: usize, ask: F) -> Result<Took>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let began = Instant::now();
    let timed = || async {
        let began = Instant::now();
        ask().await?;
        anyhow::Ok(began.elapsed())
    };
    let each = stream::iter(0..count).map(|_| timed()).buffer_unordered(in_flight).try_collect().await?;
    Ok(Took { each, all: began.elapsed() })
}

/// One request by NATS, whose answer is no error.
///
/// # Errors
/// No answer, or a service's error.
pub(crate) async fn ask(client: &Client, subject: &str, body: Bytes) -> Result<Bytes> {
    let request = Request::new().payload(body).timeout(Some(TIMEOUT));
    let reply = client.send_request(subject.to_owned(), request).await?;
    let refused = reply.headers.as_ref().and_then(|headers| headers.get(NATS_SERVICE_ERROR));
    ensure!(refused.is_none(), "refused: {}", refused.map(ToString::to_string).unwrap_or_default());
    Ok(reply.payload)
}
