use super::*;
use crate::focus;
use crate::money::Amount;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema};
use std::sync::Arc;

const PERIOD_START: &str = "bill_billing_period_start_date";
const KIND: &str = "line_item_line_item_type";
const UNBLENDED: &str = "line_item_unblended_cost";
const RI_ARN: &str = "reservation_reservation_a_r_n";
const SP_ARN: &str = "savings_plan_savings_plan_a_r_n";

fn source(name: &str) -> &'static Mapping {
    SOURCES.iter().find(|source| source.name() == name).unwrap()
}

fn mapped(name: &str, rows: &RecordBatch) -> Result<Mapped, SourceError> {
    let layout = Layout::new(rows.schema_ref());
    source(name).check(&layout)?;
    source(name).map(rows, &layout)
}

fn legacy(rows: &RecordBatch) -> Result<Mapped, SourceError> {
    mapped("legacy-cur", rows)
}

fn made<'m>(mapped: &'m Mapped, name: &str) -> &'m Made {
    &mapped.columns[focus::COLUMNS.iter().position(|column| column.name == name).unwrap()]
}

const START: i64 = 1_541_030_400_000;

/// Rows of text columns; amounts as text are as good as doubles.
fn rows(columns: &[(&str, Vec<&str>)]) -> RecordBatch {
    let count = columns[0].1.len();
    let instants =
        |at: i64| Arc::new(TimestampMillisecondArray::from(vec![at; count]).with_timezone("UTC")) as ArrayRef;
    let texts = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let mut all: Vec<(String, ArrayRef)> = vec![
        (PERIOD_START.into(), instants(START)),
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

fn amounts(mapped: &Mapped, column: &str) -> Vec<String> {
    let Made::Amounts(amounts) = made(mapped, column) else { panic!("{column} has no amounts") };
    let text =
        |units| if units == i128::NONE { "-".to_owned() } else { Amount::from_units(units).unwrap().to_string() };
    (0..mapped.rows).map(|row| text(amounts.at(row).unwrap())).collect()
}

fn texts(mapped: &Mapped, column: &str) -> Vec<String> {
    let Made::Text(text) = made(mapped, column) else { panic!("{column} has no text") };
    (0..mapped.rows).map(|row| text.at(row).unwrap_or("-").to_owned()).collect()
}

fn tags(mapped: &Mapped, row: usize) -> Pairs {
    let Made::Tags(maps) = made(mapped, "Tags") else { panic!() };
    maps.sets.get(maps.keys.at(row).unwrap() as usize).cloned().unwrap_or_default()
}

fn instant(mapped: &Mapped, column: &str) -> i64 {
    let Made::Instants(instants) = made(mapped, column) else { panic!("{column} has no instants") };
    instants.at(0).unwrap()
}

#[test]
fn every_mapping_file_is_read_and_every_absence_has_its_reason() {
    check().unwrap();
    assert_eq!(SOURCES.len(), FILES.len());
    for text in FILES {
        for line in text.lines().filter(|line| line.split('#').next().unwrap().trim_end().ends_with("= null")) {
            assert!(line.split_once('#').is_some_and(|(_, why)| why.len() > 10), "{line}");
        }
    }
}

#[test]
fn mistakes_in_a_mapping_file_are_named_with_their_line() {
    let whole = FILES[0];
    for (from, to, why) in [
        ("InvoiceId = bill_invoice_id\n", "", "InvoiceId has no line"),
        (
            "InvoiceId = bill_invoice_id\n",
            "InvoiceId = bill_invoice_id\nInvoiceNumber = 'x'\n",
            "InvoiceNumber is no column",
        ),
        ("InvoiceId = bill_invoice_id", "InvoiceId = first(bill_invoice_id", ") is expected"),
        ("InvoiceId = bill_invoice_id", "InvoiceId = $nobody", "$nobody is not named before"),
        ("InvoiceId = bill_invoice_id", "InvoiceId = shout(bill_invoice_id)", "no function shout"),
        ("InvoiceId = bill_invoice_id", "InvoiceId = 'open", "a quote is not closed"),
    ] {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole);
        let error = Mapping::parse(&changed).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_ne!(Mapping::parse(&whole.replacen("'AWS'", "'Aws'", 1)).unwrap().digest(), source("legacy-cur").digest());
    assert_eq!(Mapping::parse(&format!("# why\n{whole}")).unwrap().digest(), source("legacy-cur").digest());
}

#[test]
fn commitments_are_amortised_in_decimals() {
    let batch = rows(&[
        (
            KIND,
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
        (UNBLENDED, vec!["0.3", "0", "21.6", "100", "0.5", "-0.5", "24", "500", "1.1", "-3", "-2", "-0.07"]),
        (RI_ARN, vec!["", "arn:ri", "arn:ri", "arn:ri", "", "", "", "", "", "", "", ""]),
        (SP_ARN, vec!["", "", "", "", "arn:sp", "arn:sp", "arn:sp", "arn:sp", "", "", "", ""]),
        ("reservation_effective_cost", vec!["", "0.05145662", "", "", "", "", "", "", "", "", "", ""]),
        ("reservation_unused_recurring_fee", vec!["", "", "0.1", "", "", "", "", "", "", "", "", ""]),
        (
            "reservation_unused_amortized_upfront_fee_for_billing_period",
            vec!["", "", "0.2", "", "", "", "", "", "", "", "", ""],
        ),
        ("savings_plan_savings_plan_effective_cost", vec!["", "", "", "", "0.36", "", "", "", "", "", "", ""]),
        ("savings_plan_total_commitment_to_date", vec!["", "", "", "", "", "", "24", "", "", "", "", ""]),
        ("savings_plan_used_commitment", vec!["", "", "", "", "", "", "23.9", "", "", "", "", ""]),
        ("pricing_public_on_demand_cost", vec!["0.4", "0.09", "0", "", "0.5", "", "", "", "", "", "", ""]),
    ]);
    let rows = legacy(&batch).unwrap();
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
    assert_eq!(texts(&rows, "CommitmentDiscountStatus")[..6], ["-", "Used", "-", "-", "Used", "Used"]);
}

#[test]
fn absent_columns_are_null_and_needed_ones_are_asked_for() {
    let batch = rows(&[(KIND, vec!["RIFee", "DiscountedUsage"]), (UNBLENDED, vec!["1", "2"])]);
    let mapped = legacy(&batch).unwrap();
    assert_eq!(amounts(&mapped, "EffectiveCost"), ["1", "2"], "without the columns for it, what was billed");
    assert_eq!(texts(&mapped, "ServiceName"), ["AmazonEC2", "AmazonEC2"], "the code stands in for the name");
    assert_eq!(texts(&mapped, "ResourceId"), ["-", "-"]);
    let batch = rows(&[(KIND, vec!["Usage"])]);
    assert!(matches!(legacy(&batch), Err(SourceError::MissingColumn { column }) if column == UNBLENDED));
    let batch = rows(&[(KIND, vec!["Usage"]), (UNBLENDED, vec![""])]);
    assert!(matches!(legacy(&batch), Err(SourceError::Empty { column: "BilledCost" })));
}

#[test]
fn values_are_typed_and_empty_text_is_null() {
    let batch = rows(&[
        (KIND, vec!["Usage", "Usage"]),
        (UNBLENDED, vec!["1", "2"]),
        ("line_item_resource_id", vec!["i-1", ""]),
        ("line_item_usage_type", vec!["EUC1-SpotUsage:m5.large", "BoxUsage"]),
        ("pricing_term", vec!["", "OnDemand"]),
        ("product_region", vec!["eu-central-1", ""]),
        ("product_product_name", vec!["", "Amazon Elastic Compute Cloud"]),
        ("resource_tags_user_cost_center", vec!["red", ""]),
        ("resource_tags_aws_created_by", vec!["me", ""]),
    ]);
    let rows = legacy(&batch).unwrap();
    assert_eq!(texts(&rows, "ResourceId"), ["i-1", "-"]);
    assert_eq!(texts(&rows, "RegionId"), ["eu-central-1", "-"]);
    assert_eq!(texts(&rows, "PricingCategory"), ["Dynamic", "Standard"]);
    assert_eq!(texts(&rows, "ServiceName"), ["AmazonEC2", "Amazon Elastic Compute Cloud"]);
    assert_eq!(texts(&rows, "ServiceCategory"), ["Compute", "Compute"]);
    assert_eq!(instant(&rows, "ChargePeriodEnd"), (START + 86_400_000) * 1000, "23:59:59 is midnight, as an open end");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(tags(&rows, 0), [pair("aws:created_by", "me"), pair("cost_center", "red")]);
    assert_eq!(tags(&rows, 1), []);
}

#[test]
fn doubles_are_the_decimals_that_were_meant_and_wrong_types_are_refused() {
    let doubles = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let base = rows(&[(KIND, vec!["Usage"; 10])]);
    let with = |column: ArrayRef| {
        let fields = base.schema_ref().fields().iter().map(|f| f.name().clone()).zip(base.columns().iter().cloned());
        RecordBatch::try_from_iter(fields.chain([(UNBLENDED.to_owned(), column)])).unwrap()
    };
    let mapped = legacy(&with(doubles(vec![0.1; 10]))).unwrap();
    assert_eq!(amounts(&mapped, "BilledCost"), ["0.1"; 10]);
    assert_eq!(mapped.rounded, 0);
    let mapped = legacy(&with(doubles(vec![0.001_000_000_000_000_000_2; 10]))).unwrap();
    assert_eq!(mapped.rounded, 1, "each value once");
    let wrong = legacy(&with(Arc::new(arrow_array::BooleanArray::from(vec![true; 10])))).unwrap_err();
    assert!(matches!(wrong, SourceError::WrongType { .. }), "{wrong}");
}

#[test]
fn formats_are_told_apart_by_their_columns() {
    let of = |names: &[&str]| {
        let fields = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>();
        recognise(&Layout::new(&Schema::new(fields))).map(Mapping::name)
    };
    let parquet = ["line_item_unblended_cost", PERIOD_START, "identity_line_item_id", "line_item_usage_start_date"];
    assert_eq!(of(&parquet).unwrap(), "legacy-cur");
    let csv = ["identity/LineItemId", "bill/BillingPeriodStartDate", "lineItem/UnblendedCost", "resourceTags/user:a"];
    assert_eq!(of(&csv).unwrap(), "legacy-cur");
    assert_eq!(of(&[&parquet[..], &["resource_tags"]].concat()).unwrap(), "cur-2.0");
    assert_eq!(of(&["line_item_unblended_cost", "line_item_usage_start_date"]).unwrap(), "cur-2.0");
    let focus = ["BilledCost", "EffectiveCost", "BillingAccountId", "BillingPeriodStart", "ChargePeriodStart"];
    assert_eq!(of(&focus).unwrap(), "focus-1.0");
    assert_eq!(of(&[&focus[..], &["InvoiceId"]].concat()).unwrap(), "focus-1.2");
    assert!(matches!(of(&["a", "b"]), Err(SourceError::UnknownFormat)));
}

#[test]
fn the_names_of_csv_are_those_of_parquet() {
    for (label, name) in [
        ("lineItem/UnblendedCost", "line_item_unblended_cost"),
        ("reservation/ReservationARN", "reservation_reservation_a_r_n"),
        ("savingsPlan/SavingsPlanARN", "savings_plan_savings_plan_a_r_n"),
        ("resourceTags/user:Cost Center", "resource_tags_user_cost_center"),
        ("bill/BillingPeriodStartDate", PERIOD_START),
        ("BilledCost", "BilledCost"),
    ] {
        assert_eq!(plain_name(label), name);
    }
}

#[test]
fn cur_2_reads_maps_in_json_and_columns_that_were_chosen() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value, value])) as ArrayRef;
    let with = |product: &str| {
        RecordBatch::try_from_iter([
            ("bill_payer_account_id", text("1")),
            ("line_item_product_code", text("AmazonEC2")),
            ("line_item_unblended_cost", Arc::new(StringArray::from(vec!["0.1", "-0.02"])) as ArrayRef),
            ("line_item_usage_start_date", text("2025-01-31T23:00:00Z")),
            ("line_item_usage_end_date", text("2025-02-01T00:00:00.000Z")),
            ("product", text(product)),
            (
                "resource_tags",
                Arc::new(StringArray::from(vec![r#"{"user_team":"red","aws_created_by":"me"}"#, "{}"])) as ArrayRef,
            ),
        ])
        .unwrap()
    };
    let product = r#"{"product_name":"Amazon Elastic Compute Cloud","region":"eu-west-1","vcpu":2}"#;
    let rows = mapped("cur-2.0", &with(product)).unwrap();
    assert_eq!(amounts(&rows, "BilledCost"), ["0.1", "-0.02"]);
    assert_eq!(texts(&rows, "BillingCurrency"), ["USD", "USD"], "the export leaves the column out");
    assert_eq!(instant(&rows, "BillingPeriodStart"), 1_735_689_600_000_000);
    assert_eq!(instant(&rows, "BillingPeriodEnd"), 1_738_368_000_000_000);
    assert_eq!(texts(&rows, "ServiceName")[0], "Amazon Elastic Compute Cloud");
    assert_eq!(
        (texts(&rows, "RegionId")[0].as_str(), texts(&rows, "RegionName")[0].as_str()),
        ("eu-west-1", "EU (Ireland)")
    );
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(tags(&rows, 0), [pair("aws:created_by", "me"), pair("team", "red")]);
    assert_eq!(tags(&rows, 1), []);
    for bad in ["[1]", "{", "red"] {
        assert!(matches!(mapped("cur-2.0", &with(bad)), Err(SourceError::BadMap { .. })), "{bad}");
    }
}
