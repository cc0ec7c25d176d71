//! What the registry counts. Labels are words of ours, never anything that came from outside.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram},
};

use contracts::connection::ConnectionState;

use crate::{flow::watch::WatchState, store::Backlog};

/// The instruments. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    callbacks: Counter<u64>,
    reports: Histogram<f64>,
    published: Counter<u64>,
    outbox_rows: Gauge<u64>,
    outbox_age: Gauge<f64>,
    connections: Gauge<u64>,
    probes_due: Gauge<u64>,
    probes_overdue: Gauge<f64>,
    probes_ordered: Counter<u64>,
    budget_refusals: Counter<u64>,
}

/// Every one, so that a gauge of a state that nobody is in any more says so.
const STATES: [ConnectionState; 8] = [
    ConnectionState::Registered,
    ConnectionState::Verifying,
    ConnectionState::Verified,
    ConnectionState::Rejected,
    ConnectionState::Degraded,
    ConnectionState::Insecure,
    ConnectionState::Disconnected,
    ConnectionState::Revoked,
];

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
            connections: meter
                .u64_gauge("rolebridge_registry_connections")
                .with_description("Connections by state, of all instances: each shows the same")
                .build(),
            probes_due: meter
                .u64_gauge("rolebridge_registry_probes_due")
                .with_description("Connections whose time to be probed has come")
                .build(),
            probes_overdue: meter
                .f64_gauge("rolebridge_registry_probes_overdue_seconds")
                .with_description("Seconds for which the first of them has been due")
                .build(),
            probes_ordered: meter
                .u64_counter("rolebridge_registry_probes_ordered")
                .with_description("Probes that no stack waits for, by cause")
                .build(),
            budget_refusals: meter
                .u64_counter("rolebridge_registry_probe_budget_refusals")
                .with_description("Times that the budget had no probe left, by cause")
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

    pub(crate) fn probes_ordered(&self, cause: &'static str, count: usize) {
        self.probes_ordered.add(count as u64, &[KeyValue::new("cause", cause)]);
    }

    pub(crate) fn budget_refused(&self, cause: &'static str) {
        self.budget_refusals.add(1, &[KeyValue::new("cause", cause)]);
    }

    pub(crate) fn watch(&self, state: &WatchState) {
        for one in STATES {
            let number = state.by_state.iter().find(|(state, _)| *state == one).map_or(0, |(_, number)| *number);
            self.connections.record(number, &[KeyValue::new("state", one.as_str())]);
        }
        self.probes_due.record(state.due, &[]);
        self.probes_overdue.record(state.overdue.as_secs_f64(), &[]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
