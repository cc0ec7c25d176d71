//! What the registry counts. Labels are words of ours, never anything that came from outside.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};

use crate::store::Backlog;

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    callbacks: Counter<u64>,
    reports: Histogram<f64>,
    published: Counter<u64>,
    outbox_rows: Gauge<u64>,
    outbox_age: Gauge<f64>,
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let meter = telemetry::meter();
        Self {
            callbacks: meter
                .u64_counter("rolebridge_registry_callbacks")
                .with_description("Callbacks by request type and result")
                .build(),
            reports: meter
                .f64_histogram("rolebridge_registry_report_seconds")
                .with_description("Seconds from handing out a job to its report, by kind and verdict")
                .build(),
            published: meter
                .u64_counter("rolebridge_registry_published")
                .with_description("Messages published from the outbox")
                .build(),
            outbox_rows: meter
                .u64_gauge("rolebridge_registry_outbox_rows")
                .with_description("Messages that wait in the outbox")
                .build(),
            outbox_age: meter
                .f64_gauge("rolebridge_registry_outbox_age_seconds")
                .with_description("Age of the oldest waiting message")
                .build(),
        }
    }

    pub(crate) fn callback(&self, kind: &'static str, result: &'static str) {
        self.callbacks.add(1, &[KeyValue::new("request", kind), KeyValue::new("result", result)]);
    }

    pub(crate) fn report(&self, kind: &'static str, verdict: &'static str, took: Duration) {
        self.reports.record(took.as_secs_f64(), &[KeyValue::new("job", kind), KeyValue::new("verdict", verdict)]);
    }

    pub(crate) fn published(&self, count: usize) {
        self.published.add(count as u64, &[]);
    }

    pub(crate) fn backlog(&self, backlog: Backlog) {
        self.outbox_rows.record(backlog.rows, &[]);
        self.outbox_age.record(backlog.oldest.as_secs_f64(), &[]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
