//! What whoever reads a period writes down: the versions that were read, and the try under way.

use crate::table::Fingerprint;
use contracts::Timestamp;
use contracts::costs::{Amount, Currency, PeriodVersion};
use serde::{Deserialize, Serialize};

/// Versions of a period that are listed; the count goes on.
const LISTED: usize = 50;

/// What was read of one period of one export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The versions, the latest last; the oldest are left out.
    pub versions: Vec<Version>,
    /// How many there were.
    pub count: u32,
    /// Of the latest version, by service.
    pub services: Vec<ServiceSum>,
    /// The billing accounts of the latest version.
    pub payers: Vec<String>,
    /// The export that took the rows away, if one did.
    pub taken_by: Option<String>,
    /// What was about to be committed.
    pub pending: Option<Pending>,
    /// The try under way, or the last one that failed.
    pub attempt: Option<Attempt>,
}

/// A version that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of its files.
    pub fingerprint: Fingerprint,
    /// What people see of it.
    #[serde(flatten)]
    pub seen: PeriodVersion,
    /// The source formats.
    pub formats: String,
}

/// What is about to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The version; its table version is not known yet.
    pub version: Version,
    /// Its sums.
    pub services: Vec<ServiceSum>,
    /// Its payers.
    pub payers: Vec<String>,
}

/// What a service costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSum {
    /// FOCUS `ServiceName`.
    pub service: String,
    /// Its currency.
    pub currency: Currency,
    /// FOCUS `BilledCost`.
    pub billed: Amount,
    /// FOCUS `EffectiveCost`.
    pub effective: Amount,
}

/// Tries at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The version that is tried.
    pub fingerprint: Fingerprint,
    /// When the first of them began.
    pub since: Timestamp,
    /// How many began.
    pub tries: u32,
    /// Whether one is under way: it is written down before anything is read.
    pub running: bool,
    /// Whether it is given up until `next`, and said.
    pub given_up: bool,
    /// Why the last one failed.
    pub reason: Option<String>,
    /// Not before then.
    pub next: Timestamp,
    /// The reason that was said of this version last: what stays refused is news once.
    #[serde(default)]
    pub said: Option<String>,
}

impl Entry {
    /// The version whose rows the table holds, as far as the ledger knows.
    #[must_use]
    pub fn held(&self) -> Option<&Version> {
        if self.taken_by.is_some() { None } else { self.versions.last() }
    }

    /// Whether the table holds this version, as far as the ledger knows.
    #[must_use]
    pub fn holds(&self, fingerprint: Fingerprint) -> bool {
        self.held().is_some_and(|version| version.fingerprint == fingerprint)
    }

    /// The tries at this version.
    #[must_use]
    pub fn attempt_at(&self, fingerprint: Fingerprint) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.fingerprint == fingerprint)
    }

    /// Makes what was pending the latest version.
    pub fn promote(&mut self, pending: Pending, table_version: u64) {
        let Pending { mut version, services, payers } = pending;
        version.seen.table_version = table_version;
        self.versions.push(version);
        let spare = self.versions.len().saturating_sub(LISTED);
        self.versions.drain(..spare);
        self.count += 1;
        (self.services, self.payers) = (services, payers);
        (self.taken_by, self.pending, self.attempt) = (None, None, None);
    }
}
