//! What the broker counts. Labels are small fixed sets: no tenant, no connection, no role.

use std::time::Duration;

use aws::{Failure, FailureKind};
use contracts::{
    tenant::Drift,
    verification::{PermissionCheck, Probe, ProbeOutcome, PurposeEvidence, PurposeOutcome},
};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use crate::principal::Fullness;

/// The instruments; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    issued: Histogram<f64>,
    cache: Counter<u64>,
    sts: Counter<u64>,
    probes: Counter<u64>,
    refusals: Counter<u64>,
    purposes: Counter<u64>,
    rotations: Counter<u64>,
    drifts: Counter<u64>,
    key_age: Gauge<f64>,
    look_age: Gauge<f64>,
    sts_waiting: Gauge<u64>,
    journal_bytes: Gauge<u64>,
    journal_age: Gauge<f64>,
    journal_lost: Counter<u64>,
    placements: Counter<u64>,
    principals: Gauge<u64>,
    capacity: Gauge<u64>,
    clock_skew: Gauge<f64>,
    session_tags: Counter<u64>,
    upgrades: Counter<u64>,
}

impl Metrics {
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        Self {
            issued: meter
                .f64_histogram("rolebridge_issue_duration")
                .with_unit("s")
                .with_description("Time to answer a request for credentials, by result")
                .build(),
            cache: meter
                .u64_counter("rolebridge_issue_cache")
                .with_description("Requests for credentials by whether the cache had them")
                .build(),
            sts: meter
                .u64_counter("rolebridge_sts_calls")
                .with_description("Calls to STS by action and result")
                .build(),
            probes: meter
                .u64_counter("rolebridge_probes")
                .with_description("Probes of customer roles by outcome")
                .build(),
            refusals: meter
                .u64_counter("rolebridge_probe_refusals")
                .with_description("Refusals that probes met, by whether our own side was seen to let the same call out")
                .build(),
            purposes: meter
                .u64_counter("rolebridge_purpose_checks")
                .with_description("Looks at the permissions of a purpose, by how and by outcome")
                .build(),
            rotations: meter
                .u64_counter("rolebridge_key_rotations")
                .with_description("Access keys of principals that were changed, and steps that failed, by result")
                .build(),
            drifts: meter
                .u64_counter("rolebridge_principal_drifts")
                .with_description("What was found changed of principals, by kind and by whether it was mended")
                .build(),
            key_age: meter
                .f64_gauge("rolebridge_principal_key_age_seconds")
                .with_description("Age of the oldest access key in use, as of the last round")
                .build(),
            journal_bytes: meter
                .u64_gauge("rolebridge_journal_bytes")
                .with_unit("By")
                .with_description("Bytes of the audit's journal that the stream of events has not acknowledged")
                .build(),
            journal_lost: meter
                .u64_counter("rolebridge_journal_lost_bytes")
                .with_description("Bytes of the audit's journal that could not be read, by what they are")
                .build(),
            journal_age: meter
                .f64_gauge("rolebridge_journal_age_seconds")
                .with_description(
                    "Age of the oldest of them; up to a minute and a little, as sums wait for their minute's end",
                )
                .build(),
            look_age: meter
                .f64_gauge("rolebridge_principal_look_age_seconds")
                .with_description(
                    "Time since the principal that was not looked at for longest was, as of the last round",
                )
                .build(),
            sts_waiting: meter
                .u64_gauge("rolebridge_sts_waiting")
                .with_description("Calls to STS that wait for their turn in the budget")
                .build(),
            placements: meter
                .u64_counter("rolebridge_principal_placements")
                .with_description("Choices of a provider account for a new principal, by what came of them")
                .build(),
            principals: meter
                .u64_gauge("rolebridge_principals")
                .with_description("Principals by the provider account that they live in")
                .build(),
            capacity: meter
                .u64_gauge("rolebridge_principals_capacity")
                .with_description("Principals that a provider account takes, by account")
                .build(),
            clock_skew: meter
                .f64_gauge("rolebridge_clock_skew_seconds")
                .with_description("By how much AWS's clock is ahead of this machine's; less than two seconds is none")
                .build(),
            session_tags: meter
                .u64_counter("rolebridge_session_tags")
                .with_description("New sessions of roles that should admit session tags, by what became of the tags")
                .build(),
            upgrades: meter
                .u64_counter("rolebridge_principal_upgrades")
                .with_description("Principals whose policies were those of an earlier version and were renewed")
                .build(),
        }
    }

    pub fn sts_waiting(&self, calls: usize) {
        self.sts_waiting.record(calls as u64, &[]);
    }

    /// `result` is `issued` or an error code of the wire.
    pub fn issue(&self, took: Duration, result: &'static str) {
        self.issued.record(took.as_secs_f64(), &[KeyValue::new("result", result)]);
    }

    pub fn cache(&self, hit: bool) {
        self.cache.add(1, &[KeyValue::new("hit", hit)]);
    }

    pub fn sts_call(&self, action: &'static str, failure: Option<&Failure>) {
        let result = match failure.map(|failure| failure.kind) {
            None => "ok",
            Some(FailureKind::Refused) => "refused",
            Some(FailureKind::Indeterminate(_)) => "indeterminate",
            Some(FailureKind::Other) => "error",
        };
        self.sts.add(1, &[KeyValue::new("action", action), KeyValue::new("result", result)]);
    }

    /// `result` is `done` or `failed`.
    pub fn rotation(&self, result: &'static str) {
        self.rotations.add(1, &[KeyValue::new("result", result)]);
    }

    pub fn drift(&self, drift: Drift, mended: bool) {
        let kind = match drift {
            Drift::UserMissing => "user-missing",
            Drift::UserPolicy => "user-policy",
            Drift::RoleMissing => "role-missing",
            Drift::RoleReplaced => "role-replaced",
            Drift::RoleTrust => "role-trust",
            Drift::RolePolicy => "role-policy",
            Drift::Boundary => "boundary",
            Drift::AccessKeyMissing => "access-key-missing",
            Drift::AccessKeyForeign => "access-key-foreign",
        };
        self.drifts.add(1, &[KeyValue::new("kind", kind), KeyValue::new("mended", mended)]);
    }

    /// `result` is `carried`, `refused` (the session was begun without) or `known-refused` (it was not tried).
    pub fn session_tags(&self, result: &'static str) {
        self.session_tags.add(1, &[KeyValue::new("result", result)]);
    }

    /// Policies of an earlier version were renewed.
    pub fn upgraded(&self) {
        self.upgrades.add(1, &[]);
    }

    /// Of the whole installation, as this instance saw it in its last round.
    pub fn principals(&self, oldest_key: Duration, oldest_look: Duration) {
        self.key_age.record(oldest_key.as_secs_f64(), &[]);
        self.look_age.record(oldest_look.as_secs_f64(), &[]);
    }

    /// Bytes of a file of the journal that could not be read: damage, or the one record that a crash tore.
    pub fn journal_lost(&self, bytes: u64, damaged: bool) {
        let kind = if damaged { "damaged" } else { "torn" };
        self.journal_lost.add(bytes, &[KeyValue::new("kind", kind)]);
    }

    /// What this instance's journal still holds, and for how long.
    pub fn journal(&self, bytes: u64, age: Duration) {
        self.journal_bytes.record(bytes, &[]);
        self.journal_age.record(age.as_secs_f64(), &[]);
    }

    /// `result` is `placed`, `moved` (IAM took no more), `unreachable` (the next account was tried) or `full` (there was no room anywhere).
    pub fn placement(&self, result: &'static str) {
        self.placements.add(1, &[KeyValue::new("result", result)]);
    }

    /// How full one of the provider's accounts is: the one label that is not a word of ours, from the configuration's own list.
    pub fn fullness(&self, one: &Fullness) {
        let account = [KeyValue::new("account", one.account.to_string())];
        self.principals.record(one.principals.into(), &account);
        self.capacity.record(one.capacity.into(), &account);
    }

    /// By how many milliseconds AWS's clock is ahead.
    pub fn clock_skew(&self, ahead: i64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a skew are far below 2^52")]
        self.clock_skew.record(ahead as f64 / 1000.0, &[]);
    }

    pub fn probe(&self, probe: Probe, outcome: ProbeOutcome) {
        let probe = match probe {
            Probe::RightId => "right-id",
            Probe::CallerIdentity => "caller-identity",
            Probe::NoId => "no-id",
            Probe::RandomId => "random-id",
            Probe::RetiredId => "retired-id",
            Probe::OtherPrincipal => "other-principal",
            Probe::SessionTags => "session-tags",
        };
        let outcome = match outcome {
            ProbeOutcome::Succeeded => "succeeded",
            ProbeOutcome::Refused => "refused",
            ProbeOutcome::Indeterminate => "indeterminate",
        };
        self.probes.add(1, &[KeyValue::new("probe", probe), KeyValue::new("outcome", outcome)]);
    }

    /// One that is not believed may be a policy's of our own.
    pub fn refusal(&self, believed: bool) {
        self.refusals.add(1, &[KeyValue::new("believed", believed)]);
    }

    pub fn purpose_check(&self, seen: &PurposeEvidence) {
        let check = match seen.check {
            PermissionCheck::Simulation => "simulation",
            PermissionCheck::Read => "read",
        };
        let outcome = match seen.outcome {
            PurposeOutcome::Complete => "complete",
            PurposeOutcome::Missing => "missing",
            PurposeOutcome::Indeterminate => "indeterminate",
        };
        let labels = [("purpose", seen.purpose.as_str()), ("check", check), ("outcome", outcome)];
        self.purposes.add(1, &labels.map(|(key, value)| KeyValue::new(key, value)));
    }
}
