use super::*;
use crate::money::Amount;
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType};
use arrow_array::{Float64Array, StringArray, TimestampMillisecondArray};

const START: i64 = 1_541_030_400_000;

/// Rows of text columns; amounts as text are as good as doubles.
fn rows(columns: &[(&str, Vec<&str>)]) -> RecordBatch {
    let count = columns[0].1.len();
    let instants =
        |at: i64| Arc::new(TimestampMillisecondArray::from(vec![at; count]).with_timezone("UTC")) as ArrayRef;
    let texts = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let mut all: Vec<(String, ArrayRef)> = vec![
        (columns::PERIOD_START.into(), instants(START)),
        ("bill_billing_period_end_date".into(), instants(START + 30 * 86_400_000)),
        ("line_item_usage_start_date".into(), instants(START)),
        ("line_item_usage_end_date".into(), instants(START + 86_400_000 - 1000)),
    ];
    for (name, value) in
        [("bill_payer_account_id", "1"), ("line_item_currency_code", "USD"), ("line_item_product_code", "AmazonEC2")]
    {
        if !columns.iter().any(|(column, _)| *column == name) {
            all.push((name.into(), texts(vec![value; count])));
        }
    }
    all.extend(columns.iter().map(|(name, values)| ((*name).to_owned(), texts(values.clone()))));
    RecordBatch::try_from_iter(all).unwrap()
}

fn amounts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let column = rows.column_by_name(column).unwrap().as_primitive::<Decimal128Type>();
    column.iter().map(|v| v.map_or("-".to_owned(), |v| Amount::from_units(v).unwrap().to_string())).collect()
}

fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    rows.column_by_name(column).unwrap().as_string_view().iter().map(|v| v.unwrap_or("-").to_owned()).collect()
}

#[test]
fn every_focus_column_has_its_line_and_every_absence_its_reason() {
    assert_eq!(
        MAPPING.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        focus::COLUMNS.iter().map(|c| c.name).collect::<Vec<_>>()
    );
    for (name, from) in MAPPING {
        if let From::Absent(why) = from {
            assert!(why.len() > 10, "{name}");
        }
    }
    for column in columns::REQUIRED {
        assert!(LegacyCur.wants(column), "{column} is required and not read");
    }
}

#[test]
fn commitments_are_amortised_in_decimals() {
    let batch = rows(&[
        (
            columns::KIND,
            vec![
                "Usage",
                "DiscountedUsage",
                "RIFee",
                "Fee",
                "SavingsPlanCoveredUsage",
                "SavingsPlanNegation",
                "SavingsPlanRecurringFee",
                "SavingsPlanUpfrontFee",
                "Tax",
                "Credit",
                "Refund",
                "EdpDiscount",
            ],
        ),
        (columns::UNBLENDED, vec!["0.3", "0", "21.6", "100", "0.5", "-0.5", "24", "500", "1.1", "-3", "-2", "-0.07"]),
        (rules::RI_ARN, vec!["", "arn:ri", "arn:ri", "arn:ri", "", "", "", "", "", "", "", ""]),
        (rules::SP_ARN, vec!["", "", "", "", "arn:sp", "arn:sp", "arn:sp", "arn:sp", "", "", "", ""]),
        (rules::RI_EFFECTIVE, vec!["", "0.05145662", "", "", "", "", "", "", "", "", "", ""]),
        (rules::RI_UNUSED_FEE, vec!["", "", "0.1", "", "", "", "", "", "", "", "", ""]),
        (rules::RI_UNUSED_UPFRONT, vec!["", "", "0.2", "", "", "", "", "", "", "", "", ""]),
        (rules::SP_EFFECTIVE, vec!["", "", "", "", "0.36", "", "", "", "", "", "", ""]),
        (rules::SP_TOTAL, vec!["", "", "", "", "", "", "24", "", "", "", "", ""]),
        (rules::SP_USED, vec!["", "", "", "", "", "", "23.9", "", "", "", "", ""]),
        ("pricing_public_on_demand_cost", vec!["0.4", "0.09", "0", "", "0.5", "", "", "", "", "", "", ""]),
    ]);
    let rows = LegacyCur.map(&batch).unwrap().rows;
    assert_eq!(
        amounts(&rows, "BilledCost"),
        ["0.3", "0", "21.6", "100", "0.5", "-0.5", "24", "500", "1.1", "-3", "-2", "-0.07"]
    );
    assert_eq!(
        amounts(&rows, "EffectiveCost"),
        ["0.3", "0.05145662", "0.3", "0", "0.36", "0", "0.1", "0", "1.1", "-3", "-2", "-0.07"]
    );
    assert_eq!(
        amounts(&rows, "ListCost"),
        ["0.4", "0.09", "21.6", "100", "0.5", "0", "24", "500", "1.1", "-3", "-2", "-0.07"]
    );
    assert_eq!(
        amounts(&rows, "ContractedCost"),
        ["0.3", "0.09", "21.6", "100", "0.5", "0", "24", "500", "1.1", "-3", "-2", "-0.07"]
    );
    assert_eq!(
        texts(&rows, "ChargeCategory"),
        [
            "Usage",
            "Usage",
            "Purchase",
            "Purchase",
            "Usage",
            "Usage",
            "Purchase",
            "Purchase",
            "Tax",
            "Credit",
            "Adjustment",
            "Adjustment"
        ]
    );
    assert_eq!(texts(&rows, "ChargeClass")[10], "Correction");
    assert_eq!(
        texts(&rows, "CommitmentDiscountType")[1..6],
        ["Reserved Instance", "Reserved Instance", "Reserved Instance", "Savings Plan", "Savings Plan"]
    );
    assert_eq!(texts(&rows, "CommitmentDiscountStatus")[..5], ["-", "Used", "-", "-", "Used"]);
}

#[test]
fn absent_columns_are_null_and_needed_ones_are_asked_for() {
    let batch = rows(&[(columns::KIND, vec!["RIFee", "DiscountedUsage"]), (columns::UNBLENDED, vec!["1", "2"])]);
    let mapped = LegacyCur.map(&batch).unwrap();
    assert_eq!(amounts(&mapped.rows, "EffectiveCost"), ["1", "2"], "without the columns for it, what was billed");
    assert_eq!(texts(&mapped.rows, "ServiceName"), ["AmazonEC2", "AmazonEC2"], "the code stands in for the name");
    assert_eq!(texts(&mapped.rows, "ResourceId"), ["-", "-"]);
    let batch = rows(&[(columns::KIND, vec!["Usage"])]);
    assert!(matches!(LegacyCur.map(&batch), Err(SourceError::MissingColumn { column: columns::UNBLENDED })));
    let batch = rows(&[(columns::KIND, vec!["Usage"]), (columns::UNBLENDED, vec![""])]);
    assert!(matches!(LegacyCur.map(&batch), Err(SourceError::Empty { column: "BilledCost" })));
}

#[test]
fn values_are_typed_and_empty_text_is_null() {
    let batch = rows(&[
        (columns::KIND, vec!["Usage", "Usage"]),
        (columns::UNBLENDED, vec!["1", "2"]),
        ("line_item_resource_id", vec!["i-1", ""]),
        ("line_item_usage_type", vec!["EUC1-SpotUsage:m5.large", "BoxUsage"]),
        ("pricing_term", vec!["", "OnDemand"]),
        ("product_region", vec!["eu-central-1", ""]),
        ("product_product_name", vec!["", "Amazon Elastic Compute Cloud"]),
        ("resource_tags_user_cost_center", vec!["red", ""]),
        ("resource_tags_aws_created_by", vec!["me", ""]),
    ]);
    let rows = LegacyCur.map(&batch).unwrap().rows;
    assert_eq!(texts(&rows, "ResourceId"), ["i-1", "-"]);
    assert_eq!(texts(&rows, "RegionId"), ["eu-central-1", "-"]);
    assert_eq!(texts(&rows, "PricingCategory"), ["Dynamic", "Standard"]);
    assert_eq!(texts(&rows, "ServiceName"), ["AmazonEC2", "Amazon Elastic Compute Cloud"]);
    assert_eq!(texts(&rows, "ServiceCategory"), ["Compute", "Compute"]);
    let ends = rows.column_by_name("ChargePeriodEnd").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(ends.value(0), (START + 86_400_000) * 1000, "23:59:59 is midnight, as an open end");
    let tags = rows.column_by_name("Tags").unwrap().as_map();
    let first = tags.value(0);
    assert_eq!(
        first.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["cost_center", "aws:created_by"]
    );
    assert_eq!(first.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["red", "me"]);
    assert_eq!(tags.value(1).len(), 0);
}

#[test]
fn doubles_are_the_decimals_that_were_meant_and_wrong_types_are_refused() {
    let doubles = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let base = rows(&[(columns::KIND, vec!["Usage"; 10])]);
    let with = |column: ArrayRef| {
        let fields = base.schema_ref().fields().iter().map(|f| f.name().clone()).zip(base.columns().iter().cloned());
        RecordBatch::try_from_iter(fields.chain([(columns::UNBLENDED.to_owned(), column)])).unwrap()
    };
    let mapped = LegacyCur.map(&with(doubles(vec![0.1; 10]))).unwrap();
    assert_eq!(amounts(&mapped.rows, "BilledCost"), ["0.1"; 10]);
    assert_eq!(mapped.rounded, 0);
    let mapped = LegacyCur.map(&with(doubles(vec![0.001_000_000_000_000_000_2; 10]))).unwrap();
    assert_eq!(mapped.rounded, 10, "each number once");
    let wrong = LegacyCur.map(&with(Arc::new(arrow_array::BooleanArray::from(vec![true; 10])))).unwrap_err();
    assert!(matches!(wrong, SourceError::WrongType { .. }), "{wrong}");
}

#[test]
fn other_formats_are_not_mistaken_for_this_one() {
    use arrow_schema::Field;
    let names = ["line_item_unblended_cost", columns::PERIOD_START, "identity_line_item_id"];
    let fields: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    assert!(LegacyCur.recognises(&Schema::new(fields.clone())));
    let mut cur2 = fields;
    cur2.push(Field::new("product", DataType::Map(focus::tag_entries(), false), true));
    assert!(!LegacyCur.recognises(&Schema::new(cur2)));
    assert!(!LegacyCur.recognises(&focus::SCHEMA));
}
