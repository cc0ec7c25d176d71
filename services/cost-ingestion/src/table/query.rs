//! Questions: what a tenant's costs add up to.
//!
//! One snapshot of the table for the whole answer: a commit meanwhile does not show. `files` finds the tenant's slices in it, `plan` makes the question ready;
//! a slice with a daily summary (`summary`) is answered from that, any other is read (`scan`); both give rows whose texts are numbers (`rows`, `words`),
//! which are added up (`group`), put in order and cut into pages (`answer`). Must not live here: NATS, how tables are written.

mod answer;
mod files;
mod group;
mod plan;
mod rows;
mod scan;
mod summary;
mod words;

use super::{CostTable, TableError};
use answer::Answer;
use contracts::TenantId;
use contracts::costs::{BillingPeriod, InvalidCostQuery, QueriedCosts, QueryCostsRequest};
use files::{Index, SliceFiles, digest};
use futures::{StreamExt as _, stream};
use group::Groups;
use moka::future::Cache;
use plan::Plan;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use summary::Summary;
use tokio::sync::{Mutex, Notify, Semaphore};

/// Groups that one question may tell apart.
const GROUPS: usize = 100_000;
/// Cells that a daily summary may have.
const SUMMARY_CELLS: usize = 200_000;
/// Bytes of summaries that are held in memory.
const SUMMARY_BYTES: u64 = 128 << 20;
/// Lines of answers that are held for their later pages, and for how long.
const ANSWER_LINES: u64 = 300_000;
const ANSWER_KEPT: Duration = Duration::from_secs(300);
/// Summaries that are fetched at the same time for one question.
const FETCHED: usize = 8;
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a page when nobody says.
const PAGE: u16 = 100;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It keeps not to its bounds.
    #[error("{0}")]
    Invalid(#[from] InvalidCostQuery),
    /// The mark is none, or of another question.
    #[error("`after` is not the `next` of an answer to this question: leave it out, and begin again")]
    ForeignMark,
    /// The page before was of rows that are not the table's any more.
    #[error("these costs have been written anew since the first page: begin again, without `after`")]
    Changed,
    /// More lines than are told apart.
    #[error("the answer has more than {0} lines: ask by fewer keys, for less time, or with filters")]
    TooManyGroups(usize),
    /// It took too long.
    #[error("adding up took longer than {} s: ask for fewer billing periods or without tags, or try again when less is asked", PATIENCE.as_secs())]
    TooSlow,
    /// The process is ending.
    #[error("the work was stopped")]
    Stopped,
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What questions share.
pub(super) struct Asking {
    index: Mutex<Option<Arc<Index>>>,
    /// For row groups that are being worked on.
    cores: Arc<Semaphore>,
    /// For row groups that are in memory.
    places: Arc<Semaphore>,
    summaries: Cache<String, Arc<Summary>>,
    answers: Cache<String, Arc<Answer>>,
    /// Told at each commit of this process.
    pub(super) changed: Notify,
}

impl Default for Asking {
    fn default() -> Self {
        let bytes = |_: &String, summary: &Arc<Summary>| u32::try_from(summary.bytes()).unwrap_or(u32::MAX);
        let lines = |_: &String, answer: &Arc<Answer>| u32::try_from(answer.len()).unwrap_or(u32::MAX);
        Self {
            index: Mutex::default(),
            cores: Arc::new(Semaphore::new(cores())),
            places: Arc::new(Semaphore::new(cores() * 2)),
            summaries: Cache::builder().max_capacity(SUMMARY_BYTES).weigher(bytes).build(),
            answers: Cache::builder().max_capacity(ANSWER_LINES).weigher(lines).time_to_live(ANSWER_KEPT).build(),
            changed: Notify::new(),
        }
    }
}

fn cores() -> usize {
    available_parallelism().map_or(2, usize::from)
}

/// Where an answer may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Daily summaries where there are any, rows otherwise.
    Summaries,
    /// Rows alone: to measure, and to check summaries by.
    Rows,
}

impl CostTable {
    /// Answers a question about one tenant.
    ///
    /// # Errors
    /// A question out of bounds, a mark that does not fit, or a table that cannot be read.
    pub async fn query(&self, tenant: TenantId, request: &QueryCostsRequest) -> Result<QueriedCosts, QueryError> {
        self.query_from(tenant, request, From::Summaries).await
    }

    /// As [`Self::query`], from what is said.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_from(
        &self,
        tenant: TenantId,
        request: &QueryCostsRequest,
        from: From,
    ) -> Result<QueriedCosts, QueryError> {
        request.check()?;
        let answered = tokio::time::timeout(PATIENCE, self.ask(tenant, request, from));
        answered.await.map_err(|_| QueryError::TooSlow)?
    }

    async fn ask(&self, tenant: TenantId, request: &QueryCostsRequest, from: From) -> Result<QueriedCosts, QueryError> {
        let index = self.index().await?;
        let slices = index.wanted(tenant, request);
        let mark = Mark::new(tenant, request, &slices);
        let start = match &request.after {
            None => 0,
            Some(after) => mark.place(after)?,
        };
        let (name, known) = (mark.text(0), request.after.is_some());
        let held = if known { self.asking.answers.get(&name).await } else { None };
        let answer = match held {
            Some(answer) => answer,
            None => {
                let (groups, from_summary) = self.add_up(request, &slices, from).await?;
                Arc::new(Answer::of(groups, from_summary, request)?)
            }
        };
        let lines = answer.page(start, usize::from(request.limit.unwrap_or(PAGE)))?;
        let end = start.saturating_add(lines.len());
        let next = (end < answer.len()).then(|| mark.text(end));
        if next.is_some() {
            self.asking.answers.insert(name, Arc::clone(&answer)).await;
        }
        let periods: BTreeSet<&BillingPeriod> = slices.iter().map(|slice| &slice.period).collect();
        Ok(QueriedCosts {
            version: index.version,
            from_summary: answer.from_summary,
            rows: answer.rows,
            periods: periods.into_iter().cloned().collect(),
            totals: answer.totals.clone(),
            by: request.by.clone(),
            lines,
            next,
        })
    }

    /// The groups, and whether they are all of summaries.
    async fn add_up(
        &self,
        request: &QueryCostsRequest,
        slices: &[Arc<SliceFiles>],
        from: From,
    ) -> Result<(Groups, bool), QueryError> {
        let plan = Arc::new(Plan::of(request));
        let (mut summed, mut read) = (Vec::new(), Vec::new());
        if from == From::Summaries && plan.is_of_summaries() {
            let found = stream::iter(slices.iter().cloned())
                .map(|slice| async move { (self.summary(&slice).await, slice) })
                .buffered(FETCHED)
                .collect::<Vec<_>>();
            for (summary, slice) in found.await {
                match summary.as_deref() {
                    Some(Summary::Cells(_)) => summed.extend(summary.map(|summary| (summary, slice))),
                    Some(Summary::TooFine) | None => read.push(slice),
                }
            }
        } else {
            read = slices.to_vec();
        }
        let from_summary = read.is_empty();
        let mut groups = scan::scan(&self.asking, self.store(), Arc::clone(&plan), read, cores(), GROUPS).await?;
        if !summed.is_empty() {
            let work = move || {
                for (summary, slice) in &summed {
                    if let Summary::Cells(rows) = summary.as_ref() {
                        plan.add(rows, slice, &mut groups)?;
                    }
                }
                Ok::<_, QueryError>(groups)
            };
            groups = tokio::task::spawn_blocking(work).await.map_err(|_| QueryError::Stopped)??;
        }
        Ok((groups, from_summary))
    }
}

/// Marks of pages: of which question, of which data files, and how many lines came before.
struct Mark {
    question: String,
    files: String,
}

impl Mark {
    fn new(tenant: TenantId, request: &QueryCostsRequest, slices: &[Arc<SliceFiles>]) -> Self {
        let question = QueryCostsRequest { limit: None, after: None, ..request.clone() };
        let question = serde_json::to_string(&question).unwrap_or_default();
        let files = slices.iter().flat_map(|slice| [slice.name.as_str(), slice.content.as_str()]);
        Self { question: digest([tenant.to_string().as_str(), &question]), files: digest(files) }
    }

    fn text(&self, place: usize) -> String {
        format!("{}.{}.{place}", self.question, self.files)
    }

    fn place(&self, mark: &str) -> Result<usize, QueryError> {
        let mut parts = mark.split('.');
        let (question, files, place) = (parts.next(), parts.next(), parts.next());
        if question != Some(&self.question) || parts.next().is_some() {
            return Err(QueryError::ForeignMark);
        }
        if files != Some(&self.files) {
            return Err(QueryError::Changed);
        }
        place.and_then(|place| place.parse().ok()).ok_or(QueryError::ForeignMark)
    }
}
