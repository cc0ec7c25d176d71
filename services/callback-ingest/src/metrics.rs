//! What is counted and timed. Labels are of small, fixed sets: nothing that a stranger writes becomes one.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, UpDownCounter},
};

/// Seconds. Our own share is milliseconds; a probe that waits for IAM makes minutes.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 240.0, 600.0];

/// The instruments of callback-ingest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: Counter<u64>,
    settled: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    intake: Histogram<f64>,
    queue_errors: Counter<u64>,
    answers: Counter<u64>,
    put: Histogram<f64>,
    whole: Histogram<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = telemetry::meter();
        let seconds = |name: &'static str, about: &'static str| {
            meter.f64_histogram(name).with_unit("s").with_description(about).with_boundaries(SECONDS.to_vec()).build()
        };
        Self {
            received: meter
                .u64_counter("rolebridge_ingest_received")
                .with_description("Messages taken from the queue")
                .build(),
            settled: meter
                .u64_counter("rolebridge_ingest_settled")
                .with_description("Messages by what became of them: published, answered, dropped, refused, kept")
                .build(),
            in_flight: meter
                .i64_up_down_counter("rolebridge_ingest_in_flight")
                .with_description("Messages in hand")
                .build(),
            intake: seconds("rolebridge_ingest_intake", "From the queue to the stream's acknowledgement"),
            queue_errors: meter
                .u64_counter("rolebridge_ingest_queue_errors")
                .with_description("Failed calls to the queue")
                .build(),
            answers: meter
                .u64_counter("rolebridge_ingest_answers")
                .with_description("Outcomes by what became of them")
                .build(),
            put: seconds("rolebridge_ingest_put", "One PUT to CloudFormation"),
            whole: seconds(
                "rolebridge_ingest_callback_to_answer",
                "From the queue to the answer that CloudFormation took",
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn received(&self) {
        self.received.add(1, &[]);
        self.in_flight.add(1, &[]);
    }

    /// `end` is what became of a message, `reason` a name of the refusal, both from fixed sets.
    pub(crate) fn settled(&self, end: &'static str, reason: &'static str, took: Duration) {
        let labels = [KeyValue::new("end", end), KeyValue::new("reason", reason)];
        self.settled.add(1, &labels);
        self.in_flight.add(-1, &[]);
        self.intake.record(took.as_secs_f64(), &[KeyValue::new("end", end)]);
    }

    pub(crate) fn queue_error(&self, operation: &'static str) {
        self.queue_errors.add(1, &[KeyValue::new("operation", operation)]);
    }

    pub(crate) fn answer(&self, result: &'static str) {
        self.answers.add(1, &[KeyValue::new("result", result)]);
    }

    pub(crate) fn put_took(&self, took: Duration, went_well: bool) {
        self.put.record(took.as_secs_f64(), &[KeyValue::new("ok", went_well)]);
    }

    pub(crate) fn answered_after(&self, took: Duration) {
        self.whole.record(took.as_secs_f64(), &[]);
    }
}
