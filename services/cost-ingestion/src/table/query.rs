//! Cost by service: the one question that the service answers itself. Everything else is asked of the table by an engine.

use super::write::{Sums, for_each_cost};
use super::{CostTable, TableError, delta};
use crate::focus;
use crate::object::ObjectFile;
use arrow_array::RecordBatch;
use contracts::costs::{Amount, BillingPeriod, CostTotal, CostsByService, Currency, ServiceCost};
use contracts::{ConnectionId, TenantId};
use deltalake_core::DeltaTableError;
use deltalake_core::table::state::DeltaTableState;
use futures::TryStreamExt as _;
use object_store::path::Path;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Services that one answer may list.
pub const MAX_TOP: u16 = 200;
const DEFAULT_TOP: u16 = 50;
/// Services that are told apart at all: names come from customers' files.
const MAX_SERVICES: usize = 10_000;
/// Stands for the services that are not listed.
const OTHER: &str = "(other)";
const COLUMNS: [&str; 4] = ["BilledCost", "BillingCurrency", "EffectiveCost", "ServiceName"];

/// Whose costs, and of which part.
#[derive(Clone, Debug)]
pub struct CostQuery {
    /// The tenant: no file of another one is opened.
    pub tenant: TenantId,
    /// Only this connection.
    pub connection: Option<ConnectionId>,
    /// Only this period.
    pub period: Option<BillingPeriod>,
    /// How many services to list, 1 to [`MAX_TOP`]; 50 if not said. The rest is one line for each currency.
    pub top: Option<u16>,
}

#[derive(Default)]
struct Line {
    sums: Sums,
    rows: u64,
}

/// (currency, service) -> sums.
type Lines = HashMap<String, HashMap<String, Line>>;

impl CostTable {
    /// Adds up by service, dearest first. One snapshot of the table: a commit meanwhile does not show.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn by_service(&self, query: &CostQuery) -> Result<CostsByService, TableError> {
        let state = self.latest().await?;
        let (mut lines, mut periods) = (Lines::new(), BTreeSet::new());
        for (period, path, size) in wanted_files(&state, query)? {
            periods.insert(period);
            self.add_file(path, size, &mut lines).await?;
        }
        answer(lines, periods.into_iter().collect(), usize::from(query.top.unwrap_or(DEFAULT_TOP).clamp(1, MAX_TOP)))
    }

    async fn add_file(&self, path: Path, size: i64, lines: &mut Lines) -> Result<(), TableError> {
        let failed = |source| TableError::Data { operation: "reading", source };
        let size = u64::try_from(size).map_err(|_| TableError::BadRow("size"))?;
        let reader = ObjectFile::new(self.store(), path, size, u64::MAX);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
        let roots: Vec<_> = builder
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| COLUMNS.contains(&field.name().as_str()))
            .map(|(at, _)| at)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let mut rows = builder.with_projection(mask).with_batch_size(8192).build().map_err(failed)?;
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            add_rows(&typed(&batch).map_err(failed)?, lines)?;
        }
        Ok(())
    }
}

/// The files that hold what is asked for, by their partition values alone.
fn wanted_files(state: &DeltaTableState, query: &CostQuery) -> Result<Vec<(BillingPeriod, Path, i64)>, TableError> {
    let mut files = Vec::new();
    for file in state.log_data() {
        let values = file.partition_values_map();
        let value = |name| values.get(name).and_then(Option::as_ref);
        let is = |name, wanted: Option<String>| wanted.is_none_or(|wanted| value(name) == Some(&wanted));
        let wanted = is("x_tenant_id", Some(query.tenant.to_string()))
            && is("x_connection_id", query.connection.map(|id| id.to_string()))
            && is("x_billing_period", query.period.as_ref().map(ToString::to_string));
        if !wanted {
            continue;
        }
        if file.deletion_vector_descriptor().is_some() {
            return Err(delta("reading")(DeltaTableError::generic(
                "a file has deletion vectors, which are not understood",
            )));
        }
        let period = value("x_billing_period").and_then(|period| period.parse().ok());
        files.push((period.ok_or(TableError::BadRow("x_billing_period"))?, file.object_store_path(), file.size()));
    }
    Ok(files)
}

/// The batch with the types of [`focus::SCHEMA`], whatever engine wrote the file.
fn typed(batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
    let wrong = |error: arrow_schema::ArrowError| ParquetError::ArrowError(error.to_string());
    let mut columns = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let wanted = focus::SCHEMA.field_with_name(field.name()).map_err(wrong)?;
        columns.push((field.name().clone(), arrow_cast::cast(column, wanted.data_type()).map_err(wrong)?));
    }
    RecordBatch::try_from_iter(columns).map_err(wrong)
}

fn add_rows(batch: &RecordBatch, lines: &mut Lines) -> Result<(), TableError> {
    for_each_cost(batch, |row| {
        if !lines.contains_key(row.currency) {
            lines.insert(row.currency.to_owned(), HashMap::new());
        }
        let Some(services) = lines.get_mut(row.currency) else { return Ok(()) };
        let name =
            if services.len() < MAX_SERVICES || services.contains_key(row.service) { row.service } else { OTHER };
        if !services.contains_key(name) {
            services.insert(name.to_owned(), Line::default());
        }
        if let Some(line) = services.get_mut(name) {
            line.sums.add(row.billed, row.effective)?;
            line.rows += 1;
        }
        Ok(())
    })
}

fn answer(lines: Lines, periods: Vec<BillingPeriod>, top: usize) -> Result<CostsByService, TableError> {
    let mut totals: BTreeMap<Currency, Line> = BTreeMap::new();
    let mut all = Vec::new();
    for (currency, services) in lines {
        let currency: Currency = currency.parse().map_err(|_| TableError::BadRow("BillingCurrency"))?;
        for (service, line) in services {
            merge(totals.entry(currency.clone()).or_default(), &line)?;
            all.push((currency.clone(), service, line));
        }
    }
    // What was not told apart stays the last, however dear.
    all.sort_by(|a, b| {
        let key = |x: &(Currency, String, Line)| (x.1 == OTHER, std::cmp::Reverse(x.2.sums.billed));
        key(a).cmp(&key(b)).then_with(|| (&a.1, &a.0).cmp(&(&b.1, &b.0)))
    });
    let listed = all.len().min(top);
    let mut rest: BTreeMap<Currency, Line> = BTreeMap::new();
    for (currency, _, line) in all.split_off(listed) {
        merge(rest.entry(currency).or_default(), &line)?;
    }
    all.extend(rest.into_iter().map(|(currency, line)| (currency, OTHER.to_owned(), line)));
    let rows = totals.values().map(|line| line.rows).sum();
    let total = |(currency, line): (Currency, Line)| {
        Ok(CostTotal { currency, billed: wire(line.sums.billed)?, effective: wire(line.sums.effective)? })
    };
    let service = |(currency, service, line): (Currency, String, Line)| {
        let (billed, effective) = (wire(line.sums.billed)?, wire(line.sums.effective)?);
        Ok(ServiceCost { service, currency, billed, effective, rows: line.rows })
    };
    let totals = totals.into_iter().map(total).collect::<Result<_, TableError>>()?;
    let by_service = all.into_iter().map(service).collect::<Result<_, TableError>>()?;
    Ok(CostsByService { rows, periods, totals, by_service })
}

fn merge(into: &mut Line, from: &Line) -> Result<(), TableError> {
    into.rows += from.rows;
    into.sums.add(from.sums.billed, from.sums.effective)
}

fn wire(amount: crate::money::Amount) -> Result<Amount, TableError> {
    amount.to_decimal().map(Amount::new).ok_or(TableError::TooLarge)
}
