//! Exporters: Prometheus always, OTLP when its endpoint is set.

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prometheus::Registry;

use crate::TelemetryError;

/// Whether the standard variables ask for OTLP of `signal` (`TRACES`, `METRICS`).
fn wanted(signal: &str) -> bool {
    let set = |name: String| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = std::env::var(format!("OTEL_{signal}_EXPORTER")).unwrap_or_default();
    !disabled
        && exporter != "none"
        && (set("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()) || set(format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")))
}

pub(crate) fn tracer_provider(resource: Resource) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = SdkTracerProvider::builder().with_resource(resource);
    if !wanted("TRACES") {
        return Ok(builder.build());
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .build()
        .map_err(TelemetryError::Otlp)?;
    Ok(builder.with_batch_exporter(exporter).build())
}

pub(crate) fn meter_provider(resource: Resource, registry: &Registry) -> Result<SdkMeterProvider, TelemetryError> {
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .map_err(TelemetryError::Prometheus)?;
    let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if !wanted("METRICS") {
        return Ok(builder.build());
    }
    let exporter = MetricExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .build()
        .map_err(TelemetryError::Otlp)?;
    Ok(builder.with_periodic_exporter(exporter).build())
}
