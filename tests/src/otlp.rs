//! An OTLP collector that keeps what it is sent: HTTP with protobuf bodies, on a free port of the loopback
//! ([OTLP/HTTP](https://opentelemetry.io/docs/specs/otlp/#otlphttp)).

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1::Span as WireSpan,
};
use prost::Message as _;
use tokio::sync::Notify;

use crate::trace::{Span, Trace};

/// By service and metric name: what its data points came to at last (values of sums and gauges, counts of histograms).
pub type Metrics = BTreeMap<(String, String), f64>;

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    metrics: Metrics,
    /// All that came, as it came.
    raw: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: Mutex<Kept>,
    grown: Notify,
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    /// # Errors
    /// There is no free port.
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (address, shelf) = (listener.local_addr()?, Arc::new(Shelf::default()));
        let routes = Router::new()
            .route("/v1/traces", post(take_traces))
            .route("/v1/metrics", post(take_metrics))
            .with_state(shelf.clone());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(Self { address, shelf, server })
    }

    /// The variables that let a service send here, and often.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        environment(&format!("http://{}", self.address))
    }

    /// Waits until `find` finds something in the traces that have come so far.
    ///
    /// # Errors
    /// The time is over; the error lists the names of the spans that there are.
    pub async fn wait_for<T>(&self, within: Duration, find: impl Fn(&[Trace]) -> Option<T>) -> Result<T> {
        let found = self.until(|kept| find(&Trace::sort(&kept.spans)));
        match tokio::time::timeout(within, found).await {
            Ok(found) => Ok(found),
            Err(_) => {
                let traces = Trace::sort(&self.shelf.kept().spans);
                let told: Vec<String> = traces.iter().map(Trace::outline).collect();
                bail!(
                    "within {} s the collector did not get what was waited for, but:\n{}",
                    within.as_secs(),
                    told.join("\n")
                )
            }
        }
    }

    /// Waits until `done` holds for the metrics.
    ///
    /// # Errors
    /// The time is over; the error lists the metrics that there are.
    pub async fn wait_for_metrics(&self, within: Duration, done: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
        let found = self.until(|kept| done(&kept.metrics).then(|| kept.metrics.clone()));
        match tokio::time::timeout(within, found).await {
            Ok(found) => Ok(found),
            Err(_) => bail!("within {} s the collector got only {:#?}", within.as_secs(), self.shelf.kept().metrics),
        }
    }

    async fn until<T>(&self, find: impl Fn(&Kept) -> Option<T>) -> T {
        loop {
            let grown = self.shelf.grown.notified();
            if let Some(found) = find(&self.shelf.kept()) {
                return found;
            }
            grown.await;
        }
    }

    /// All that has come so far, as it came: every name, value and label, also of what is not understood here.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        self.shelf.kept().raw.clone()
    }

    /// Forgets the spans so far.
    pub fn clear(&self) {
        self.shelf.kept().spans.clear();
    }
}

/// The standard variables for a collector at `endpoint`.
#[must_use]
pub fn environment(endpoint: &str) -> BTreeMap<String, String> {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        // Milliseconds.
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl Shelf {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take_traces(State(shelf): State<Arc<Shelf>>, body: Bytes) -> StatusCode {
    shelf.kept().raw.extend_from_slice(&body);
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for of_service in request.resource_spans {
        let service = service(of_service.resource);
        let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
        shelf.kept().spans.extend(spans.map(|span| read(&service, span)));
    }
    shelf.grown.notify_waiters();
    StatusCode::OK
}

async fn take_metrics(State(shelf): State<Arc<Shelf>>, body: Bytes) -> StatusCode {
    shelf.kept().raw.extend_from_slice(&body);
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for of_service in request.resource_metrics {
        let service = service(of_service.resource);
        for metric in of_service.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let total = total(&metric);
            shelf.kept().metrics.insert((service.clone(), metric.name), total);
        }
    }
    shelf.grown.notify_waiters();
    StatusCode::OK
}

fn service(resource: Option<Resource>) -> String {
    attributes(resource.map(|resource| resource.attributes).unwrap_or_default())
        .remove("service.name")
        .unwrap_or_default()
}

fn read(service: &str, span: WireSpan) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        service: service.to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        start: Duration::from_nanos(span.start_time_unix_nano),
        end: Duration::from_nanos(span.end_time_unix_nano),
        attributes: attributes(span.attributes),
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    all.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn total(metric: &Metric) -> f64 {
    let number = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        None => 0.0,
    };
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.iter().map(number).sum(),
        Some(Data::Sum(sum)) => sum.data_points.iter().map(number).sum(),
        #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
        Some(Data::Histogram(histogram)) => histogram.data_points.iter().map(|point| point.count as f64).sum(),
        _ => 0.0,
    }
}
