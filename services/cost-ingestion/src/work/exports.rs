//! The endpoint `costs.exports.<tenant>`: how it stands with each period of each export, by the ledger.

use super::choose;
use super::ledger::{Entry, Failure, Found, FoundExport, FoundUnit, Ledger, LedgerError, Version};
use crate::credentials::Scope;
use contracts::costs::{ExportPeriod, ListCostExports, PeriodState};
use contracts::{ConnectionId, ErrorCode, ErrorReply, Page, TenantId};
use messaging::Call;

/// Periods of one page.
const LARGEST: u16 = 200;
const USUAL: u16 = 100;
/// Versions that are shown.
const LATEST: usize = 3;

/// Answers one page. The tenant stands in the subject, where permissions can see it.
///
/// # Errors
/// `invalid-request` for a page that there cannot be, `unavailable` when the ledger cannot be read.
pub async fn answer(ledger: &Ledger, call: Call<ListCostExports>) -> Result<Page<ExportPeriod>, ErrorReply> {
    let tenant = call.token(0)?;
    let request = call.request;
    let limit = usize::from(request.limit.unwrap_or(USUAL));
    if limit == 0 || limit > usize::from(LARGEST) {
        return Err(ErrorReply::new(ErrorCode::InvalidRequest, format!("limit is 1 to {LARGEST}")));
    }
    let after = request.after.as_deref().map(mark).transpose()?;
    page(ledger, tenant, request.connection, after, limit).await.map_err(|error| {
        tracing::error!(error = ?error, %tenant, "the ledger could not be read");
        ErrorReply::new(ErrorCode::Unavailable, format!("{error}; try again")).retry_after(1000)
    })
}

/// Where a page begins: a connection, and how many of its lines were on pages before.
fn mark(text: &str) -> Result<(ConnectionId, usize), ErrorReply> {
    let parsed = text.split_once(':').and_then(|(id, lines)| Some((id.parse().ok()?, lines.parse().ok()?)));
    parsed
        .ok_or_else(|| ErrorReply::new(ErrorCode::InvalidRequest, "after is the `next` of the page before".to_owned()))
}

async fn page(
    ledger: &Ledger,
    tenant: TenantId,
    only: Option<ConnectionId>,
    after: Option<(ConnectionId, usize)>,
    limit: usize,
) -> Result<Page<ExportPeriod>, LedgerError> {
    let connections = match only {
        Some(connection) => vec![connection],
        None => ledger.connections(tenant).await?,
    };
    let mut items = Vec::new();
    for connection in connections.into_iter().filter(|id| after.is_none_or(|(from, _)| *id >= from)) {
        let scope = Scope { tenant, connection };
        let Some(found) = ledger.found(scope).await? else { continue };
        let skipped = after.filter(|(from, _)| *from == connection).map_or(0, |(_, lines)| lines);
        for (at, line) in lines(&found).into_iter().enumerate().skip(skipped) {
            if items.len() == limit {
                return Ok(Page { items, next: Some(format!("{connection}:{at}")) });
            }
            items.push(match line {
                Line::Failure(failure) => as_failure(connection, failure),
                Line::Unit(export, unit) => {
                    let entry = ledger.entry(scope, &export.export, &unit.period).await?;
                    as_period(connection, export, unit, &entry)
                }
            });
        }
    }
    Ok(Page { items, next: None })
}

enum Line<'f> {
    Failure(&'f Failure),
    Unit(&'f FoundExport, &'f FoundUnit),
}

fn lines(found: &Found) -> Vec<Line<'_>> {
    let units = choose::in_order(&found.exports).into_iter().map(|(export, unit)| Line::Unit(export, unit));
    found.failures.iter().map(Line::Failure).chain(units).collect()
}

fn as_failure(connection: ConnectionId, failure: &Failure) -> ExportPeriod {
    ExportPeriod {
        connection,
        export: failure.place.clone(),
        period: None,
        state: PeriodState::Failed,
        format: None,
        files: 0,
        bytes: 0,
        versions: 0,
        latest: Vec::new(),
        reason: Some(failure.reason.clone()),
        tries: failure.tries,
        next_try: Some(failure.next),
    }
}

fn as_period(connection: ConnectionId, export: &FoundExport, unit: &FoundUnit, entry: &Entry) -> ExportPeriod {
    let attempt = unit.fingerprint.and_then(|fingerprint| entry.attempt_at(fingerprint));
    let held = unit.fingerprint.is_some_and(|fingerprint| entry.holds(fingerprint));
    let (state, reason) = match (&unit.superseded, &unit.failure, attempt) {
        (Some(other), _, _) => (PeriodState::Superseded, Some(other.reason.clone())),
        (None, Some(failure), _) => (PeriodState::Failed, Some(failure.clone())),
        (None, None, _) if held => (PeriodState::Done, None),
        (None, None, Some(attempt)) if attempt.running => (PeriodState::Reading, attempt.reason.clone()),
        (None, None, Some(attempt)) if attempt.reason.is_some() => (PeriodState::Failed, attempt.reason.clone()),
        (None, None, _) => (PeriodState::Waiting, None),
    };
    let format = entry.held().map(|version| version.formats.clone());
    ExportPeriod {
        connection,
        export: export.export.clone(),
        period: Some(unit.period.clone()),
        state,
        format: format.or_else(|| unit.look.as_ref().map(|look| look.format.clone())),
        files: unit.files,
        bytes: unit.bytes,
        versions: entry.count,
        latest: entry.versions.iter().rev().take(LATEST).map(|Version { seen, .. }| seen.clone()).collect(),
        reason,
        tries: attempt.map_or(0, |attempt| attempt.tries),
        next_try: attempt
            .filter(|attempt| state == PeriodState::Failed && !attempt.running)
            .map(|attempt| attempt.next),
    }
}
