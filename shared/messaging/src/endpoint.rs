//! NATS micro services ([ADR-32](https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md)) that always reply.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, str::FromStr, sync::Arc};

use async_nats::{
    HeaderMap,
    service::{self, Service, ServiceExt, error::Error as ServiceFault},
};
use bytes::Bytes;
use contracts::{Endpoint, ErrorCode, ErrorReply, catalog, subject};
use futures::{FutureExt, StreamExt};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{Bus, BusError, publish::TRACEPARENT};

/// Requests of one endpoint that are worked on at the same time; more wait in the client's buffer, where nobody can tell them to come again later.
const CONCURRENT: usize = 16_384;

/// Bytes that most responses have room in.
const USUAL_RESPONSE: usize = 2048;

/// A request with the tokens that its subject carried.
#[derive(Debug)]
pub struct Call<E: Endpoint> {
    pub request: E::Request,
    tokens: Vec<String>,
    user: Option<String>,
}

impl<E: Endpoint> Call<E> {
    /// The NATS user whose private inbox (`_INBOX_<user>.`) the reply goes to.
    ///
    /// Permissions let each user hear its own inbox alone, so whoever wants the reply must name itself here. They do not keep a user from naming another's
    /// inbox and going without the reply: this says who was answered, and is no proof of who asked.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The token at the `index`-th `*` of the endpoint's subject.
    ///
    /// # Errors
    /// `invalid-request` when it is not the text of a `T`.
    pub fn token<T: FromStr<Err: std::fmt::Display>>(&self, index: usize) -> Result<T, ErrorReply> {
        let invalid = |problem: String| {
            ErrorReply::new(ErrorCode::InvalidRequest, format!("the subject's token {}: {problem}", index + 1))
        };
        let token = self.tokens.get(index).ok_or_else(|| invalid("missing".to_owned()))?;
        token.parse().map_err(|error: T::Err| invalid(error.to_string()))
    }
}

/// An endpoint server that stopped though nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("the requests for {endpoint} stopped coming: the subscription was closed")]
pub struct ServeError {
    endpoint: &'static str,
}

/// A micro service with its endpoints. Instances of one service share the work (queue group).
pub struct EndpointServer {
    service: Service,
    requests: Counter<u64>,
    seconds: Histogram<f64>,
    endpoints: Vec<futures::future::BoxFuture<'static, Result<(), ServeError>>>,
    stop: CancellationToken,
    bus: Bus,
}

impl std::fmt::Debug for EndpointServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EndpointServer({} endpoints)", self.endpoints.len())
    }
}

impl EndpointServer {
    /// Announces the service `name`; its endpoints follow with [`EndpointServer::serve`].
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn start(bus: &Bus, name: &'static str, description: &str) -> Result<Self, BusError> {
        let builder = bus.client.service_builder().description(description).queue_group(name);
        let service = builder.start(name, env!("CARGO_PKG_VERSION")).await;
        let service = service.map_err(|source| {
            BusError::new("announcing the service", name, std::io::Error::other(source.to_string()))
        })?;
        let meter = telemetry::meter();
        Ok(Self {
            service,
            requests: meter
                .u64_counter("rolebridge_requests")
                .with_description("Requests by endpoint and result")
                .build(),
            seconds: meter
                .f64_histogram("rolebridge_request_seconds")
                .with_description("Seconds from request to reply")
                .build(),
            endpoints: Vec::new(),
            stop: CancellationToken::new(),
            bus: bus.clone(),
        })
    }

    /// Adds `E`; when this returns, the server knows it, and requests for it come here. A handler that panics answers `internal`; a request that is not of the contract answers `invalid-request`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn serve<E, F, Fut>(self, handle: F) -> Result<Self, BusError>
    where
        E: Endpoint,
        F: Fn(Call<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Response, ErrorReply>> + Send + 'static,
    {
        self.add(handle, Span::OfEach).await
    }

    /// As [`EndpointServer::serve`], for what is asked tens of thousands of times a second: a request that carries no trace begins none, because a span costs
    /// more than such an answer. What the handler does besides answering begins its own.
    ///
    /// # Errors
    /// As [`EndpointServer::serve`].
    pub async fn serve_often<E, F, Fut>(self, handle: F) -> Result<Self, BusError>
    where
        E: Endpoint,
        F: Fn(Call<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Response, ErrorReply>> + Send + 'static,
    {
        self.add(handle, Span::OfTraced).await
    }

    async fn add<E, F, Fut>(mut self, handle: F, span: Span) -> Result<Self, BusError>
    where
        E: Endpoint,
        F: Fn(Call<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Response, ErrorReply>> + Send + 'static,
    {
        let endpoint = self.service.endpoint_builder().name(E::NAME).metadata(schemas::<E>()).add(E::SUBJECT).await;
        let mut endpoint = endpoint.map_err(|source| {
            BusError::new("serving the endpoint", E::NAME, std::io::Error::other(source.to_string()))
        })?;
        self.bus.round_trip().await?;
        let server = Arc::new(Server { handle, span, requests: self.requests.clone(), seconds: self.seconds.clone() });
        let stop = self.stop.clone();
        self.endpoints.push(Box::pin(async move {
            let (tasks, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONCURRENT)));
            let mut stopping = false;
            let served = loop {
                tokio::select! {
                    request = endpoint.next() => match request {
                        Some(request) => begin(server.clone().answer::<E, Fut>(request), &tasks, &slots).await,
                        None if stopping || stop.is_cancelled() => break Ok(()),
                        None => break Err(ServeError { endpoint: E::NAME }),
                    },
                    // First the server gives us no more, or it would while nobody reads; what has come by then is answered.
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        if endpoint.stop().await.is_err() {
                            break Ok(());
                        }
                    }
                }
            };
            tasks.close();
            tasks.wait().await;
            served
        }));
        Ok(self)
    }

    /// Serves until `shutdown`; then takes no more, and answers what is in hand.
    ///
    /// # Errors
    /// When a subscription is closed under us.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let stop = self.stop.clone();
        let stopping = async move {
            shutdown.cancelled().await;
            stop.cancel();
        };
        let all = futures::future::try_join_all(self.endpoints);
        let (result, ()) = tokio::select! {
            result = all => (result, ()),
            // `stopping` only ever ends by cancelling `stop`, after which the endpoints end by themselves.
            () = async { stopping.await; std::future::pending::<()>().await } => (Ok(Vec::new()), ()),
        };
        if let Err(error) = self.service.stop().await {
            tracing::debug!(%error, "the service could not be taken back");
        }
        result.map(|_| ())
    }
}

/// Begins to answer right here: what can be answered without waiting has been when this returns, and costs no task. The rest goes on by itself.
async fn begin(answer: impl Future<Output = ()> + Send + 'static, tasks: &TaskTracker, slots: &Arc<Semaphore>) {
    let mut answer = Box::pin(answer);
    if futures::poll!(answer.as_mut()).is_ready() {
        return;
    }
    // While there is none, no further request is begun. The semaphore is never closed.
    let slot = slots.clone().acquire_owned().await;
    tasks.spawn(async move {
        answer.await;
        drop(slot);
    });
}

/// Which requests have a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    OfEach,
    /// Those that carry a trace.
    OfTraced,
}

struct Server<F> {
    handle: F,
    span: Span,
    requests: Counter<u64>,
    seconds: Histogram<f64>,
}

impl<F> Server<F> {
    async fn answer<E, Fut>(self: Arc<Self>, request: service::Request)
    where
        E: Endpoint,
        F: Fn(Call<E>) -> Fut,
        Fut: Future<Output = Result<E::Response, ErrorReply>>,
    {
        let started = std::time::Instant::now();
        let traceparent = request.message.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT));
        let span = if traceparent.is_some() || self.span == Span::OfEach {
            tracing::info_span!("serve", endpoint = E::NAME, otel.kind = "server")
        } else {
            tracing::Span::none()
        };
        telemetry::continue_trace(&span, traceparent.map(|text| text.as_str()));
        let result = self.outcome::<E, Fut>(&request).instrument(span.clone()).await;
        let label = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
        let labels = [KeyValue::new("endpoint", E::NAME), KeyValue::new("result", label)];
        let replied = match result {
            Ok(body) => request.respond(Ok(body)).await,
            Err(error) => respond_with(&request, &error).await,
        };
        if let Err(error) = replied {
            span.in_scope(|| tracing::warn!(endpoint = E::NAME, %error, "the reply could not be sent"));
        }
        self.requests.add(1, &labels);
        self.seconds.record(started.elapsed().as_secs_f64(), &labels);
    }

    async fn outcome<E, Fut>(&self, request: &service::Request) -> Result<Bytes, ErrorReply>
    where
        E: Endpoint,
        F: Fn(Call<E>) -> Fut,
        Fut: Future<Output = Result<E::Response, ErrorReply>>,
    {
        let body: &[u8] = if request.message.payload.is_empty() { b"{}" } else { &request.message.payload };
        let parsed = serde_json::from_slice(body).map_err(|error| {
            let message =
                format!("the request is not what {} takes: {error}; its schema is in the endpoint's metadata", E::NAME);
            ErrorReply::new(ErrorCode::InvalidRequest, message)
        })?;
        let tokens = subject::captures(E::SUBJECT, &request.message.subject).unwrap_or_default();
        let call = Call::<E> {
            request: parsed,
            tokens: tokens.into_iter().map(ToOwned::to_owned).collect(),
            user: request.message.reply.as_deref().and_then(inbox_owner).map(ToOwned::to_owned),
        };
        let bug = |what: &str| {
            tracing::error!(endpoint = E::NAME, "{what}");
            ErrorReply::new(ErrorCode::Internal, format!("{} failed by a fault of ours; its log says more", E::NAME))
        };
        let response =
            AssertUnwindSafe((self.handle)(call)).catch_unwind().await.map_err(|_| bug("the handler panicked"))??;
        let mut body = Vec::with_capacity(USUAL_RESPONSE);
        let written = serde_json::to_writer(&mut body, &response);
        written.map(|()| Bytes::from(body)).map_err(|_| bug("the response could not be written"))
    }
}

/// The user that an inbox belongs to. Names are what a server's configuration holds: other text is nobody's.
fn inbox_owner(reply: &str) -> Option<&str> {
    let (prefix, _) = reply.split_once('.')?;
    let user = prefix.strip_prefix("_INBOX_")?;
    let fine =
        (1..=64).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    fine.then_some(user)
}

/// Replies with the error in headers, as ADR-32 has it; the library keeps its statistics by them.
async fn respond_with(request: &service::Request, error: &ErrorReply) -> Result<(), async_nats::PublishError> {
    let fault = ServiceFault { status: error.message.replace(['\r', '\n'], " "), code: error.code.number() };
    let mut headers = HeaderMap::new();
    headers.insert(ErrorReply::CODE_HEADER, error.code.as_str());
    if let Some(milliseconds) = error.retry_after_ms {
        headers.insert(ErrorReply::RETRY_HEADER, milliseconds.to_string());
    }
    request.respond_with_headers(Err(fault), headers).await
}

/// The endpoint's schemas, as discovery shows them.
fn schemas<E: Endpoint>() -> HashMap<String, String> {
    let contract = catalog::endpoint::<E>();
    let schema = |of: catalog::SchemaOf| of(&mut catalog::generator()).as_value().to_string();
    HashMap::from([
        ("request_schema".to_owned(), schema(contract.request.schema)),
        ("response_schema".to_owned(), schema(contract.response.schema)),
    ])
}

#[cfg(test)]
mod tests {
    use super::inbox_owner;

    #[test]
    fn the_owner_of_an_inbox() {
        assert_eq!(inbox_owner("_INBOX_operator.abc.1"), Some("operator"));
        assert_eq!(inbox_owner("_INBOX_role-chain-broker.abc"), Some("role-chain-broker"));
        let long = format!("_INBOX_{}.a", "x".repeat(65));
        for nobodys in
            ["_INBOX.abc", "_INBOX_.abc", "_INBOX_operator", "elsewhere.a", "_INBOX_a b.c", "_INBOX_\u{e9}.c", &long]
        {
            assert_eq!(inbox_owner(nobodys), None, "{nobodys}");
        }
    }
}
