//! Logs, traces and metrics of one process.
//!
//! Metrics are OpenTelemetry instruments, read twice: by `/metrics` (Prometheus text) and, when an endpoint is set, by OTLP. Traces always exist, so that
//! trace IDs reach logs, audit entries and other services; they are exported only when the standard `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `..._TRACES_ENDPOINT`, `..._METRICS_ENDPOINT`) is set. No contracts, no NATS here, and nothing that decides.

mod json;
mod otlp;
mod trace;

use std::{sync::Arc, time::Duration};

use opentelemetry::{global, metrics::Meter, propagation::TextMapCompositePropagator, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource, metrics::SdkMeterProvider, propagation::TraceContextPropagator, trace::SdkTracerProvider,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

pub use trace::{continue_trace, trace_id, traceparent};

/// Info, but for the Delta Lake library, which tells there of every step of every read.
const DEFAULT_FILTER: &str = "info,buoyant_kernel=warn,deltalake_core=warn";

/// How long the end of a process may wait for a collector.
const FLUSH: Duration = Duration::from_secs(3);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person at a terminal.
    Human,
    /// One JSON object a line, with the fields of the spans around it.
    Json,
}

/// How a process logs. What it logs is `RUST_LOG` (default `info`).
#[derive(Debug, Clone, clap::Args)]
pub struct LogConfig {
    /// How log lines look on standard error.
    #[arg(long, env = "ROLEBRIDGE_LOG_FORMAT", default_value = "human", value_enum)]
    pub log_format: LogFormat,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("RUST_LOG is not a log filter such as info or info,messaging=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    #[error("logging was set up twice")]
    Subscriber(#[source] tracing_subscriber::util::TryInitError),
    #[error("the OTLP exporter cannot be set up: check the OTEL_EXPORTER_OTLP_* variables")]
    Otlp(#[source] opentelemetry_otlp::ExporterBuildError),
    #[error("the Prometheus exporter cannot be set up")]
    Prometheus(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// The process's telemetry. Keep it until the end, then [`Telemetry::shutdown`] it so that nothing is lost.
#[derive(Debug, Clone)]
pub struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    registry: Arc<Registry>,
}

/// Sets up logging, tracing and metrics for the process, once.
///
/// # Errors
/// When `RUST_LOG` or an `OTEL_*` variable makes no sense, or it was called before.
pub fn init(service: &'static str, config: &LogConfig) -> Result<Telemetry, TelemetryError> {
    let resource = Resource::builder().with_service_name(service).build();
    let registry = Registry::new();
    let metrics = otlp::meter_provider(resource.clone(), &registry)?;
    let traces = otlp::tracer_provider(resource)?;
    global::set_meter_provider(metrics.clone());
    global::set_text_map_propagator(TextMapCompositePropagator::new(vec![Box::new(TraceContextPropagator::new())]));

    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(TelemetryError::Filter)?,
        _ => EnvFilter::new(DEFAULT_FILTER),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Human => lines.with_target(true).boxed(),
        LogFormat::Json => {
            let format = tracing_subscriber::fmt::format().json();
            let format = format.flatten_event(true).with_current_span(true).with_span_list(false);
            lines.json().event_format(json::WithTraceId(format)).boxed()
        }
    };
    let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer(service));
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        // Spans of our own crates at info and above: what a trace is made of, whatever the log filter says.
        .with(spans.with_filter(EnvFilter::new(DEFAULT_FILTER)))
        .try_init()
        .map_err(TelemetryError::Subscriber)?;
    json::remember_default();
    Ok(Telemetry { traces, metrics, registry: Arc::new(registry) })
}

/// The meter to make instruments from.
#[must_use]
pub fn meter() -> Meter {
    global::meter("rolebridge")
}

impl Telemetry {
    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# the metrics could not be written: {error}\n"),
        }
    }

    /// Sends what is left, for at most [`FLUSH`]: a collector that is away must not hold the process back.
    pub async fn shutdown(self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        // A thread of its own: the exporters block, and the runtime would wait for a blocking task of its own without bound.
        std::thread::spawn(move || done.send((self.traces.shutdown(), self.metrics.shutdown())));
        match tokio::time::timeout(FLUSH, flushed).await {
            Ok(Ok((Err(error), _) | (_, Err(error)))) => {
                tracing::warn!(%error, "the last spans or metrics could not be sent");
            }
            Ok(_) => {}
            Err(_) => tracing::warn!("the last spans or metrics could not be sent in {} s", FLUSH.as_secs()),
        }
    }
}
