//! Replacing a slice: the old files out and the new ones in, in one commit.

use super::write::{DataFile, discard};
use super::{CostTable, Fingerprint, PARTITIONS, Slice, TableError, Written, delta};
use crate::export::Export;
use contracts::costs::BillingPeriod;
use contracts::{ConnectionId, TenantId};
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, LogicalFileView, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Commits that may be lost against other writers before giving up.
pub(super) const ATTEMPTS: u32 = 20;

/// What came of replacing a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Committed, as this version of the table.
    Committed {
        /// The table's version.
        version: u64,
    },
    /// Another writer had committed the same source files already; ours were taken back.
    Unchanged,
}

impl CostTable {
    /// Whether the slice was last written from exactly these source files.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn holds(&self, slice: &Slice, fingerprint: Fingerprint) -> Result<bool, TableError> {
        let state = self.latest().await?;
        self.recorded(&state, slice).await.map(|known| known == Some(fingerprint))
    }

    /// Which of these slices were last written from exactly these source files: one look at the table.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn holds_each(&self, slices: &[(Slice, Fingerprint)]) -> Result<Vec<bool>, TableError> {
        let state = self.latest().await?;
        let mut held = Vec::with_capacity(slices.len());
        for (slice, fingerprint) in slices {
            held.push(self.recorded(&state, slice).await? == Some(*fingerprint));
        }
        Ok(held)
    }

    /// The number of the table's version now.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn version(&self) -> Result<u64, TableError> {
        Ok(self.latest().await?.version())
    }

    async fn recorded(&self, state: &DeltaTableState, slice: &Slice) -> Result<Option<Fingerprint>, TableError> {
        let version = state.transaction_version(self.log.as_ref(), slice.name()).await.map_err(delta("reading"))?;
        Ok(version.map(Fingerprint))
    }

    /// The exports of this connection that have rows of this period.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn exports(
        &self,
        tenant: TenantId,
        connection: ConnectionId,
        period: &BillingPeriod,
    ) -> Result<Vec<Export>, TableError> {
        let state = self.latest().await?;
        let wanted = [tenant.to_string(), period.as_str().to_owned(), connection.to_string()];
        let mut exports = BTreeSet::new();
        for file in state.log_data() {
            let known = file.partition_values_map();
            let value = |name: &str| known.get(name).and_then(Option::as_ref);
            if PARTITIONS.iter().zip(&wanted).all(|(name, wanted)| value(name) == Some(wanted)) {
                exports.extend(value("x_export").map(|name| Export::named(name)));
            }
        }
        Ok(exports.into_iter().collect())
    }

    /// As [`Self::replace_and_take`], with nothing to take away.
    ///
    /// # Errors
    /// As [`Self::replace_and_take`].
    pub async fn replace(
        &self,
        slice: &Slice,
        fingerprint: Fingerprint,
        written: Written,
        note: HashMap<String, Value>,
    ) -> Result<Replaced, TableError> {
        self.replace_and_take(slice, fingerprint, written, note, &[]).await
    }

    /// Replaces the slice by what was written, and takes away the rows of the slices in `taken`, whose costs it tells too. Readers see the old rows or the new ones, never both and never half; a crash before the commit leaves
    /// the old ones. `note` goes into the table's history, for people.
    ///
    /// # Errors
    /// When storage fails. Whether the commit took place is then unknown, and doing it all again is right: it finds out by the fingerprint.
    pub async fn replace_and_take(
        &self,
        slice: &Slice,
        fingerprint: Fingerprint,
        written: Written,
        note: HashMap<String, Value>,
        taken: &[Slice],
    ) -> Result<Replaced, TableError> {
        let store = self.store();
        for _ in 0..ATTEMPTS {
            let state = self.latest().await?;
            if self.recorded(&state, slice).await? == Some(fingerprint) {
                // Ours, if a first attempt got through although storage said otherwise: then the files are the table's, and must stay.
                if is_in(&state, &written) {
                    return Ok(Replaced::Committed { version: state.version() });
                }
                discard(&store, &written).await;
                return Ok(Replaced::Unchanged);
            }
            match self.commit(&state, (slice, taken), fingerprint, &written, note.clone()).await {
                Ok(version) => {
                    self.asking.changed.notify_one();
                    return Ok(Replaced::Committed { version });
                }
                Err(error) if lost(&error) => {}
                Err(error) => return Err(delta("committing to")(error)),
            }
        }
        discard(&store, &written).await;
        Err(TableError::Busy(ATTEMPTS))
    }

    async fn commit(
        &self,
        state: &DeltaTableState,
        (slice, taken): (&Slice, &[Slice]),
        fingerprint: Fingerprint,
        written: &Written,
        note: HashMap<String, Value>,
    ) -> Result<u64, DeltaTableError> {
        let now = OffsetDateTime::now_utc().unix_timestamp() * 1000;
        let gone = taken.iter().chain([slice]).flat_map(|slice| files_of(state, slice));
        let mut actions: Vec<Action> = gone.map(|file| Action::Remove(file.remove_action(true))).collect();
        actions.extend(adds(slice, written, now, true));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: Some(PARTITIONS.map(str::to_owned).to_vec()),
            predicate: None,
        };
        let transaction = |slice: &Slice, fingerprint: Fingerprint| {
            Transaction::new_with_last_update(slice.name(), fingerprint.0, Some(now))
        };
        let transactions = taken.iter().map(|taken| transaction(taken, Fingerprint::NOTHING));
        // No retries inside: what is removed must be found anew in the state that a retry commits onto.
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_metadata(note)
            .with_application_transactions(transactions.chain([transaction(slice, fingerprint)]).collect());
        let commit = CommitBuilder::from(properties).with_actions(actions);
        Ok(commit.build(Some(state), Arc::clone(&self.log), operation).await?.version())
    }
}

/// The slice's files.
pub(super) fn files_of<'a>(state: &'a DeltaTableState, slice: &Slice) -> impl Iterator<Item = LogicalFileView> + 'a {
    let values = slice.values();
    state.log_data().into_iter().filter(move |file| {
        let known = file.partition_values_map();
        PARTITIONS.iter().zip(&values).all(|(name, value)| known.get(*name).and_then(Option::as_ref) == Some(value))
    })
}

/// What adds the files that were written to the slice. `data_change` is false where the same rows stood there before.
pub(super) fn adds(slice: &Slice, written: &Written, now: i64, data_change: bool) -> impl Iterator<Item = Action> {
    let values = PARTITIONS.iter().zip(slice.values());
    let partition: HashMap<String, Option<String>> =
        values.map(|(name, value)| ((*name).to_owned(), Some(value))).collect();
    written.files.iter().map(move |file| {
        Action::Add(Add {
            path: file.path.to_string(),
            partition_values: partition.clone(),
            size: i64::try_from(file.size).unwrap_or(i64::MAX),
            modification_time: now,
            data_change,
            stats: Some(stats(file)),
            ..Add::default()
        })
    })
}

/// What engines prune files by.
fn stats(file: &DataFile) -> String {
    let instant = |micros: i64| {
        let millis = i128::from(micros.div_euclid(1000)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(millis).ok()?.format(&Rfc3339).ok()
    };
    // Instants are written in milliseconds: the last is rounded up.
    let span = file.starts.and_then(|(first, last)| Some((instant(first)?, instant(last.saturating_add(999))?)));
    let stats = match span {
        None => json!({"numRecords": file.rows}),
        Some((first, last)) => json!({
            "numRecords": file.rows, "minValues": {"ChargePeriodStart": first}, "maxValues": {"ChargePeriodStart": last},
            "nullCount": {"ChargePeriodStart": 0},
        }),
    };
    stats.to_string()
}

pub(super) fn is_in(state: &DeltaTableState, written: &Written) -> bool {
    let live: BTreeSet<String> = state.log_data().into_iter().map(|file| file.path().into_owned()).collect();
    written.files.iter().any(|file| live.contains(file.path.as_ref()))
}

/// Another writer was faster.
pub(super) fn lost(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::CommitConflict(_)
            }
    )
}
