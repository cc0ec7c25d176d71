use super::*;
use crate::export::Export;
use crate::source::{Layout, recognise};
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
use contracts::{ConnectionId, TenantId};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;
use proptest::prelude::*;
use std::collections::BTreeSet;
use url::Url;

fn pieces(starts: &[(i64, i64, usize)]) -> Vec<Piece> {
    starts
        .iter()
        .map(|(first, last, rows)| Piece { first: *first, last: *last, rows: *rows, at: 0, length: 0 })
        .collect()
}

proptest! {
    #[test]
    fn every_instant_is_in_exactly_one_span(parts in proptest::collection::vec((0_i64..50, 0_i64..10, 1_usize..1000), 1..60)) {
        let parts: Vec<_> = parts.into_iter().map(|(first, more, rows)| (first, first + more, rows)).collect();
        let spans: Vec<Span> = stretches(pieces(&parts).iter()).into_iter().flatten().collect();
        prop_assert_eq!(spans.first().map(|span| span.first), Some(i64::MIN));
        prop_assert_eq!(spans.last().map(|span| span.last), Some(i64::MAX));
        prop_assert!(spans.iter().all(|span| span.first <= span.last));
        prop_assert!(spans.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
    }
}

/// Rows of a month in no order: hours all over it, and a third of them at its first instant.
pub(in crate::table) fn rows(part: u64, count: u64) -> Mapped {
    let all = |text: &dyn Fn(u64) -> String| {
        Arc::new((0..count).map(|row| Some(text(row))).collect::<StringArray>()) as ArrayRef
    };
    let hour = |row: u64| if row.is_multiple_of(3) { 0 } else { (row * 7919 + part * 104_729) % 743 };
    let instant = |hour: u64| format!("2025-01-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24);
    let columns = vec![
        ("bill_payer_account_id", all(&|_| "111111111111".to_owned())),
        ("identity_line_item_id", all(&|row| format!("line-{part}-{row}"))),
        ("line_item_product_code", all(&|row| format!("Service{}", row % 400))),
        (
            "line_item_resource_id",
            all(&|row| if row.is_multiple_of(5) { String::new() } else { format!("r-{}", row % 70_000) }),
        ),
        ("line_item_unblended_cost", all(&|row| format!("0.{:018}", row + 1))),
        ("line_item_usage_end_date", all(&|row| instant(hour(row) + 1))),
        ("line_item_usage_start_date", all(&|row| instant(hour(row)))),
        ("resource_tags", all(&|row| format!("{{\"user_team\":\"t{}\"}}", row % 9))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let layout = Layout::new(&batch.schema());
    recognise(&layout).unwrap().map(&batch, &layout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_of_many_runs_is_in_one_order_and_has_every_row_once() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table =
        Arc::new(CostTable::with_store(Arc::clone(&store), &Url::parse("memory:///costs/").unwrap()).await.unwrap());
    let period = "2025-01".parse().unwrap();
    let slice = Slice { tenant: TenantId::new(), connection: ConnectionId::new(), export: Export::named("e"), period };
    let mut gathered = Gathered::default();
    for part in 0..4 {
        let mut gatherer = Gatherer::default();
        (0..6).for_each(|more| gatherer.take(&rows(part * 6 + more, 700)).unwrap());
        gathered.merge(gatherer.finish().unwrap()).unwrap();
    }
    assert!(gathered.shelves.iter().all(|shelf| shelf.file.is_some() && shelf.pieces.len() > 100));
    // Services are kept as numbers; of resources there are too many.
    let kept = |name: &str, shelf: &Shelf| {
        let at = focus::COLUMNS.iter().position(|column| column.name == name).unwrap();
        shelf.words[at].len()
    };
    assert!(gathered.shelves.iter().all(|shelf| kept("ServiceName", shelf) == 400 && kept("ResourceId", shelf) < 560));
    let totals = gathered.totals.clone();
    let (written, result) = write(Arc::new(gathered.sorted()), &table, &slice, 3, &CancellationToken::new()).await;
    result.unwrap();
    assert_eq!((written.rows, &written.totals), (24 * 700, &totals));

    let mut files = written.files.clone();
    files.sort_by_key(|file| file.starts);
    assert!(files.len() > 4, "{}", files.len());
    let (mut last, mut seen, mut tagged, mut groups) = (i64::MIN, BTreeSet::new(), 0, Vec::new());
    for file in files {
        let bytes = table.store().get(&file.path).await.unwrap().bytes().await.unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        for group in reader.metadata().row_groups() {
            let column =
                group.columns().iter().find(|column| column.column_path().string() == "ChargePeriodStart").unwrap();
            let Some(Statistics::Int64(found)) = column.statistics() else { panic!("no statistics") };
            groups.push((*found.min_opt().unwrap(), *found.max_opt().unwrap()));
        }
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let starts =
                batch.column_by_name("ChargePeriodStart").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
            let ids = batch.column_by_name("x_LineItemId").unwrap().as_string::<i32>().clone();
            let resources = batch.column_by_name("ResourceId").unwrap().as_string::<i32>().clone();
            let tags = batch.column_by_name("Tags").unwrap().as_map().clone();
            for row in 0..batch.num_rows() {
                assert!(starts.value(row) >= last);
                last = starts.value(row);
                assert!(seen.insert(ids.value(row).to_owned()), "twice");
                let number: u64 = ids.value(row).rsplit('-').next().unwrap().parse().unwrap();
                assert_eq!(
                    resources.is_valid(row).then(|| resources.value(row).to_owned()),
                    (!number.is_multiple_of(5)).then(|| format!("r-{number}"))
                );
                tagged += tags.value(row).len();
            }
        }
    }
    assert_eq!((seen.len(), tagged), (24 * 700, 24 * 700));
    assert!(groups.len() > 20 && groups.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{groups:?}");
}

#[test]
fn a_start_of_very_many_rows_is_a_span_of_its_own() {
    let all: Vec<_> = (0..500).map(|_| (7, 7, PIECE_ROWS)).chain([(1, 20, PIECE_ROWS)]).collect();
    let spans: Vec<Span> = stretches(pieces(&all).iter()).into_iter().flatten().collect();
    assert!(spans.contains(&Span { first: 7, last: 7 }), "{spans:?}");
}
