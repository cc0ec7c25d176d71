//! The endpoint `costs.query.<tenant>`, and the upkeep of daily summaries.

use crate::table::{CostTable, QueryError};
use contracts::costs::{QueriedCosts, QueryCosts};
use contracts::{ErrorCode, ErrorReply};
use messaging::Call;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often summaries are looked after when nothing is heard: other instances, and imports, commit too.
const LOOK: Duration = Duration::from_secs(60);

/// Answers one question. The tenant stands in the subject, where permissions can see it.
///
/// # Errors
/// `invalid-request` for a question out of bounds, `conflict` for a mark of rows that were replaced, `unavailable` when the table cannot be read.
pub async fn answer(table: &CostTable, call: Call<QueryCosts>) -> Result<QueriedCosts, ErrorReply> {
    let tenant = call.token(0)?;
    table.query(tenant, &call.request).await.map_err(|error| match &error {
        QueryError::Invalid(_) | QueryError::ForeignMark | QueryError::TooManyGroups(_) => {
            ErrorReply::new(ErrorCode::InvalidRequest, error.to_string())
        }
        QueryError::Changed => ErrorReply::new(ErrorCode::Conflict, error.to_string()),
        QueryError::TooSlow => ErrorReply::new(ErrorCode::Unavailable, error.to_string()).retry_after(5000),
        QueryError::Stopped | QueryError::Table(_) => {
            tracing::error!(error = ?error, %tenant, "costs could not be added up");
            ErrorReply::new(ErrorCode::Unavailable, format!("{error}; try again")).retry_after(1000)
        }
    })
}

/// Keeps daily summaries beside the table, after each commit and every minute. What fails is tried again; without summaries answers are slower, and right.
pub async fn summaries(table: Arc<CostTable>, shutdown: CancellationToken) {
    loop {
        // Left off in the middle, a summary is not there, and is made the next time.
        let Some(done) = shutdown.run_until_cancelled(table.summarise(&shutdown)).await else { return };
        match done {
            Ok(0) => {}
            Ok(made) => tracing::info!(made, "daily summaries were made"),
            Err(error) => tracing::warn!(error = ?error, "daily summaries could not be made; answers are slower"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = table.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
