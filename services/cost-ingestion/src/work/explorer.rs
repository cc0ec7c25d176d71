//! Cost Explorer as an export of its own: what it answered is kept beside the table, a CSV file for each month, and read like any other export.
//!
//! It is asked once on a day (UTC) for each connection that has no export of the current and the last month: for twelve months and the current one first,
//! afterwards for the current and the last. Where the stack names an export, that is looked for first. A month's file is only written when something in it
//! changed, so a month that did not is not read again.
//!
//! `_rolebridge/cost-explorer/<tenant>/<connection>/<month>.csv`, and `asked.json` beside them: what was asked on which day, written before each request.

use super::find::{Connected, FindExports, Place};
use super::ledger::{Found, Ledger};
use crate::api::cost_explorer::{self, Spend};
use crate::api::{ApiError, Apis};
use crate::credentials::Scope;
use crate::export::{COST_EXPLORER_BUCKET, Export, ExportError, OpenExport};
use async_trait::async_trait;
use contracts::Region;
use contracts::costs::{BillingPeriod, ExportLocation};
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use time::{Date, Duration, Month, OffsetDateTime};

const FOLDER: &str = "_rolebridge/cost-explorer";
const ASKED: &str = "asked.json";
/// Requests on one day for one connection, of 0.01 USD each.
pub const REQUESTS: u32 = 60;

/// What Cost Explorer answered: a "bucket" for each connection.
#[derive(Clone)]
pub struct Kept {
    store: Arc<dyn ObjectStore>,
}

impl Kept {
    /// In this store, which is the table's.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    fn of(&self, scope: Scope) -> Arc<dyn ObjectStore> {
        let folder = Path::from(FOLDER).join(scope.tenant.to_string()).join(scope.connection.to_string());
        Arc::new(PrefixStore::new(Arc::clone(&self.store), folder))
    }
}

#[async_trait]
impl FindExports for Kept {
    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
        let files: Vec<_> = self.of(connected.scope).list(None).try_collect().await.map_err(kept("listing"))?;
        let any = files.iter().any(|file| file.location.as_ref().ends_with(".csv"));
        let location = ExportLocation { bucket: COST_EXPLORER_BUCKET.to_owned(), prefix: String::new() };
        Ok(any.then(|| Place { location, region: connected.region.clone() }).into_iter().collect())
    }
}

/// Opens what is kept, and customers' buckets by somebody else.
pub struct OrKept {
    /// Opens customers' buckets.
    pub buckets: Arc<dyn OpenExport>,
    /// Cost Explorer's answers.
    pub kept: Kept,
}

#[async_trait]
impl OpenExport for OrKept {
    async fn open(
        &self,
        scope: Scope,
        location: &ExportLocation,
        region: &Region,
    ) -> Result<Arc<dyn ObjectStore>, ExportError> {
        if location.bucket == COST_EXPLORER_BUCKET {
            return Ok(self.kept.of(scope));
        }
        self.buckets.open(scope, location, region).await
    }
}

/// Asks Cost Explorer when it is time. Finds nothing itself: [`Kept`], which comes after it, does.
pub struct CostExplorer {
    pub apis: Arc<Apis>,
    pub kept: Kept,
    pub ledger: Ledger,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    /// The last day on which anything was.
    day: String,
    /// Requests on that day.
    requests: u32,
    /// Whether all that was to be asked on it was answered.
    done: bool,
    /// Whether the twelve months were answered once.
    all: bool,
}

#[async_trait]
impl FindExports for CostExplorer {
    fn name(&self) -> &'static str {
        "Cost Explorer"
    }

    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
        let scope = connected.scope;
        let Some(caller) = self.apis.of(scope, &connected.region) else { return Ok(Vec::new()) };
        let (store, today) = (self.kept.of(scope), OffsetDateTime::now_utc().date());
        let mut asked = read(&store).await?.unwrap_or_default();
        let day = today.to_string();
        if asked.day != day {
            asked = Asked { day, requests: 0, done: false, all: asked.all };
        }
        if asked.done || !self.is_wanted(connected, today).await? {
            return Ok(Vec::new());
        }
        let (start, end) = range(today, asked.all);
        let purse = Purse { store: Arc::clone(&store), before: asked.clone() };
        let lines = cost_explorer::costs(&caller, &start, &end, &purse).await?;
        for (month, text) in cost_explorer::months(&lines, connected.account.as_str()) {
            keep(&store, &format!("{month}.csv"), text.into_bytes()).await?;
        }
        let requests = asked.requests.saturating_add(caller.sent());
        write(&store, &Asked { requests, done: true, all: true, ..asked }).await?;
        tracing::info!(requests = caller.sent(), lines = lines.len(), "Cost Explorer was asked");
        Ok(Vec::new())
    }
}

impl CostExplorer {
    /// Whether no export tells the current and the last month. Where the stack names one, it is looked for once before.
    async fn is_wanted(&self, connected: &Connected, today: Date) -> Result<bool, ExportError> {
        let found = self.ledger.found(connected.scope).await;
        let Some(found) = found.map_err(|_| ExportError::Kept { operation: "reading the ledger beside" })? else {
            return Ok(connected.named.is_none());
        };
        let month = |date: Date| format!("{:04}-{:02}", date.year(), u8::from(date.month()));
        Ok([month(today), month(months_before(today, 1))].iter().any(|month| !tells(&found, month)))
    }
}

fn tells(found: &Found, month: &str) -> bool {
    let Ok(period) = month.parse::<BillingPeriod>() else { return false };
    found.exports.iter().any(|export| {
        !Export::named(&export.export).is_cost_explorer()
            && export.units.iter().any(|unit| unit.period == period && unit.fingerprint.is_some())
    })
}

/// From the first day that is asked for until before tomorrow.
fn range(today: Date, all: bool) -> (String, String) {
    let end = today.saturating_add(Duration::DAY);
    (months_before(today, if all { 1 } else { 12 }).to_string(), end.to_string())
}

/// The first day of the month so many months before the day's.
fn months_before(day: Date, months: i32) -> Date {
    let at = day.year() * 12 + i32::from(u8::from(day.month())) - 1 - months;
    let month = u8::try_from(at.rem_euclid(12) + 1).ok().and_then(|month| Month::try_from(month).ok());
    let first = month.and_then(|month| Date::from_calendar_date(at.div_euclid(12), month, 1).ok());
    first.unwrap_or(day)
}

/// Counts requests before they are sent, so that one that ends the program counts.
struct Purse {
    store: Arc<dyn ObjectStore>,
    before: Asked,
}

#[async_trait]
impl Spend for Purse {
    async fn spend(&self, sent: u32) -> Result<(), ExportError> {
        let requests = self.before.requests.saturating_add(sent).saturating_add(1);
        if requests > REQUESTS {
            return Err(ApiError::TooMany { permission: "ce:GetCostAndUsage", limit: REQUESTS }.into());
        }
        write(&self.store, &Asked { requests, ..self.before.clone() }).await
    }
}

fn kept(operation: &'static str) -> impl Fn(object_store::Error) -> ExportError {
    move |source| {
        tracing::warn!(error = ?source, "what Cost Explorer answered is out of reach");
        ExportError::Kept { operation }
    }
}

async fn read(store: &Arc<dyn ObjectStore>) -> Result<Option<Asked>, ExportError> {
    match store.get(&Path::from(ASKED)).await {
        // A damaged one is as if it were not there: it is asked once more.
        Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.map_err(kept("reading"))?).ok()),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(kept("reading")(error)),
    }
}

async fn write(store: &Arc<dyn ObjectStore>, asked: &Asked) -> Result<(), ExportError> {
    let json = serde_json::to_vec(asked).map_err(|_| ExportError::Kept { operation: "writing" })?;
    store.put(&Path::from(ASKED), json.into()).await.map(drop).map_err(kept("writing"))
}

/// Writes a file unless it is there, byte for byte.
async fn keep(store: &Arc<dyn ObjectStore>, name: &str, bytes: Vec<u8>) -> Result<(), ExportError> {
    let path = Path::from(name);
    let before = match store.get(&path).await {
        Ok(found) => Some(found.bytes().await.map_err(kept("reading"))?),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => return Err(kept("reading")(error)),
    };
    if before.is_some_and(|before| before == bytes) {
        return Ok(());
    }
    store.put(&path, bytes.into()).await.map(drop).map_err(kept("writing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_months_and_the_current_one_are_asked_for_first_and_two_afterwards() {
        let day = |text: &str| {
            let format = time::format_description::well_known::Iso8601::DATE;
            Date::parse(text, &format).unwrap()
        };
        let range = |text, all| range(day(text), all);
        let texts = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(range("2026-11-22", false), texts("2025-11-01", "2026-11-23"));
        assert_eq!(range("2026-11-22", true), texts("2026-10-01", "2026-11-23"));
        assert_eq!(range("2026-01-31", true), texts("2025-12-01", "2026-02-01"));
        assert_eq!(range("2028-02-28", true), texts("2028-01-01", "2028-02-29"));
    }
}
