"""The same job in DuckDB, Polars and DataFusion: a CUR 2.0 export read, mapped to the table's columns, sorted by charge period, written as Parquet by billing period.

    peers.py ENGINE parquet|csv-gz SOURCE-FOLDER OUTPUT-FOLDER

Started by `run`, one process for each measurement. The mapping follows `src/source/mappings/cur-2.0.mapping`. Where a peer would need something that it has no good
function for (tags renamed, maps made of JSON), it does less than we do, never more: tags stay as they are, and one key of a map in JSON is found as text.
"""

import pathlib
import sys

MAPPINGS = pathlib.Path(__file__).parent.parent / "src" / "source" / "mappings"

AMOUNTS = """line_item_unblended_cost line_item_usage_amount pricing_public_on_demand_cost reservation_effective_cost
    reservation_unused_amortized_upfront_fee_for_billing_period reservation_unused_recurring_fee savings_plan_savings_plan_effective_cost
    savings_plan_total_commitment_to_date savings_plan_used_commitment line_item_unblended_rate pricing_public_on_demand_rate""".split()
INSTANTS = "bill_billing_period_end_date bill_billing_period_start_date line_item_usage_end_date line_item_usage_start_date".split()
USES = ("Usage", "DiscountedUsage", "SavingsPlanCoveredUsage")
PRICED = (*USES, "RIFee", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee", "Fee")


def table(name):
    lines = (MAPPINGS / f"{name}.table").read_text().splitlines()
    return dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))


def header(source):
    import gzip

    first = sorted(pathlib.Path(source).glob("*.csv.gz"))[0]
    with gzip.open(first, "rt") as lines:
        return next(lines).strip().split(",")


# --- SQL, for DuckDB and DataFusion ---

COLUMNS = {
    "AvailabilityZone": "line_item_availability_zone",
    "BilledCost": "MONEY(line_item_unblended_cost)",
    "BillingAccountId": "bill_payer_account_id",
    "BillingAccountName": "bill_payer_account_name",
    "BillingAccountType": "'Payer Account'",
    "BillingCurrency": "line_item_currency_code",
    "BillingPeriodEnd": "bill_billing_period_end_date",
    "BillingPeriodStart": "bill_billing_period_start_date",
    "CapacityReservationId": "TEXT_NULL",
    "CapacityReservationStatus": "TEXT_NULL",
    "ChargeCategory": """CASE WHEN kind IN ('Usage', 'DiscountedUsage', 'SavingsPlanCoveredUsage', 'SavingsPlanNegation') THEN 'Usage'
        WHEN kind IN ('Fee', 'RIFee', 'SavingsPlanRecurringFee', 'SavingsPlanUpfrontFee') THEN 'Purchase'
        WHEN kind = 'Tax' THEN 'Tax' WHEN kind = 'Credit' THEN 'Credit' ELSE 'Adjustment' END""",
    "ChargeClass": "CASE WHEN kind = 'Refund' THEN 'Correction' END",
    "ChargeDescription": "line_item_line_item_description",
    "ChargeFrequency": """CASE WHEN kind IN ('Usage', 'DiscountedUsage', 'SavingsPlanCoveredUsage', 'SavingsPlanNegation') THEN 'Usage-Based'
        WHEN kind IN ('RIFee', 'SavingsPlanRecurringFee') THEN 'Recurring' ELSE 'One-Time' END""",
    "ChargePeriodEnd": "line_item_usage_end_date",
    "ChargePeriodStart": "line_item_usage_start_date",
    "CommitmentDiscountCategory": "CASE WHEN reservation_reservation_a_r_n IS NOT NULL THEN 'Usage' WHEN savings_plan_savings_plan_a_r_n IS NOT NULL THEN 'Spend' END",
    "CommitmentDiscountId": "commitment",
    "CommitmentDiscountName": "TEXT_NULL",
    "CommitmentDiscountQuantity": """MONEY(CASE WHEN commitment IS NULL OR kind = 'SavingsPlanNegation' THEN NULL WHEN kind = 'DiscountedUsage' THEN line_item_usage_amount
        WHEN kind = 'SavingsPlanCoveredUsage' THEN savings_plan_savings_plan_effective_cost WHEN kind IN ('RIFee', 'Fee') THEN line_item_usage_amount
        WHEN kind = 'SavingsPlanRecurringFee' THEN savings_plan_total_commitment_to_date END)""",
    "CommitmentDiscountStatus": """CASE WHEN commitment IS NULL THEN NULL
        WHEN kind IN ('Usage', 'DiscountedUsage', 'SavingsPlanCoveredUsage', 'SavingsPlanNegation') THEN 'Used' END""",
    "CommitmentDiscountType": "CASE WHEN reservation_reservation_a_r_n IS NOT NULL THEN 'Reserved Instance' WHEN savings_plan_savings_plan_a_r_n IS NOT NULL THEN 'Savings Plan' END",
    "CommitmentDiscountUnit": """CASE WHEN commitment IS NULL OR kind = 'SavingsPlanNegation' THEN NULL
        WHEN kind IN ('DiscountedUsage', 'RIFee', 'Fee') AND line_item_usage_amount IS NOT NULL THEN pricing_unit
        WHEN kind = 'SavingsPlanCoveredUsage' AND savings_plan_savings_plan_effective_cost IS NOT NULL THEN line_item_currency_code
        WHEN kind = 'SavingsPlanRecurringFee' AND savings_plan_total_commitment_to_date IS NOT NULL THEN line_item_currency_code END""",
    "ConsumedQuantity": "MONEY(CASE WHEN is_use THEN line_item_usage_amount END)",
    "ConsumedUnit": "CASE WHEN is_use AND line_item_usage_amount IS NOT NULL THEN pricing_unit END",
    "ContractedCost": "MONEY(CASE WHEN kind = 'DiscountedUsage' THEN public WHEN kind = 'SavingsPlanNegation' THEN 0 ELSE line_item_unblended_cost END)",
    "ContractedUnitPrice": "MONEY(CASE WHEN kind = 'Usage' THEN line_item_unblended_rate END)",
    "EffectiveCost": """MONEY(CASE WHEN kind = 'DiscountedUsage' THEN coalesce(reservation_effective_cost, line_item_unblended_cost)
        WHEN kind = 'SavingsPlanCoveredUsage' THEN coalesce(savings_plan_savings_plan_effective_cost, line_item_unblended_cost)
        WHEN kind = 'RIFee' THEN coalesce(reservation_unused_recurring_fee + reservation_unused_amortized_upfront_fee_for_billing_period, line_item_unblended_cost)
        WHEN kind = 'SavingsPlanRecurringFee' THEN coalesce(savings_plan_total_commitment_to_date - savings_plan_used_commitment, line_item_unblended_cost)
        WHEN kind IN ('SavingsPlanNegation', 'SavingsPlanUpfrontFee') THEN 0
        WHEN kind = 'Fee' AND reservation_reservation_a_r_n IS NOT NULL THEN 0 ELSE line_item_unblended_cost END)""",
    "InvoiceId": "bill_invoice_id",
    "InvoiceIssuerName": "coalesce(bill_invoicing_entity, line_item_legal_entity, 'Amazon Web Services, Inc.')",
    "ListCost": """MONEY(CASE WHEN is_use THEN public WHEN kind = 'SavingsPlanNegation' THEN 0 ELSE line_item_unblended_cost END)""",
    "ListUnitPrice": "MONEY(pricing_public_on_demand_rate)",
    "PricingCategory": """CASE WHEN kind IN ('DiscountedUsage', 'SavingsPlanCoveredUsage') THEN 'Committed'
        WHEN kind = 'Usage' AND line_item_usage_type LIKE '%SpotUsage%' THEN 'Dynamic'
        WHEN kind = 'Usage' AND pricing_term = 'OnDemand' THEN 'Standard' WHEN kind = 'Usage' THEN 'Other' END""",
    "PricingCurrency": "pricing_currency",
    "PricingCurrencyContractedUnitPrice": "MONEY(NULL)",
    "PricingCurrencyEffectiveCost": "MONEY(NULL)",
    "PricingCurrencyListUnitPrice": "MONEY(NULL)",
    "PricingQuantity": "MONEY(CASE WHEN is_priced THEN line_item_usage_amount END)",
    "PricingUnit": "CASE WHEN is_priced THEN pricing_unit END",
    "ProviderName": "'AWS'",
    "PublisherName": "CASE WHEN bill_billing_entity = 'AWS Marketplace' THEN coalesce(line_item_legal_entity, 'AWS') ELSE 'AWS' END",
    "RegionId": "product_region_code",
    "RegionName": "region_name",
    "ResourceId": "line_item_resource_id",
    "ResourceName": "TEXT_NULL",
    "ResourceType": "TEXT_NULL",
    "ServiceCategory": "coalesce(category, 'Other')",
    "ServiceName": "coalesce(PRODUCT_NAME, line_item_product_code)",
    "ServiceSubcategory": "concat('Other (', coalesce(category, 'Other'), ')')",
    "SkuId": "CASE WHEN kind <> 'Tax' THEN product_sku END",
    "SkuMeter": "CASE WHEN kind <> 'Tax' AND product_sku IS NOT NULL THEN line_item_usage_type END",
    "SkuPriceDetails": "TEXT_NULL",
    "SkuPriceId": "CASE WHEN kind <> 'Tax' THEN pricing_rate_code END",
    "SubAccountId": "line_item_usage_account_id",
    "SubAccountName": "line_item_usage_account_name",
    "SubAccountType": "CASE WHEN line_item_usage_account_id IS NOT NULL THEN 'Usage Account' END",
    "Tags": "resource_tags",
    "x_LineItemId": "identity_line_item_id",
    "x_LineItemType": "kind",
    "x_Operation": "line_item_operation",
    "x_ServiceCode": "line_item_product_code",
    "x_UsageType": "line_item_usage_type",
}


def literals(words):
    return ", ".join("'" + word.replace("'", "''") + "'" for word in words)


def values(name):
    return ", ".join(f"({literals(pair)})" for pair in table(name).items())


def query(month, product_name, money="CAST({} AS DECIMAL(38, 18))"):
    """The whole mapping as one SELECT over `source`. `month` makes the partition's value, `product_name` reads the product map."""
    import re

    def column(name, text):
        text = text.replace("TEXT_NULL", "CAST(NULL AS VARCHAR)").replace("PRODUCT_NAME", product_name)
        text = re.sub(r"^MONEY\((.*)\)$", lambda found: money.format(found[1]), text, flags=re.S)
        return f'{text} AS "{name}"'

    columns = ",\n    ".join(column(name, text) for name, text in COLUMNS.items())
    return f"""WITH category_of(code, category) AS (VALUES {values("service-category")}),
    region_of(region, region_name) AS (VALUES {values("region-name")}),
    line AS (SELECT source.*, coalesce(line_item_line_item_type, 'Usage') AS kind,
        coalesce(line_item_line_item_type, 'Usage') IN ({literals(USES)}) AS is_use,
        coalesce(line_item_line_item_type, 'Usage') IN ({literals(PRICED)}) AND line_item_usage_amount IS NOT NULL AS is_priced,
        coalesce(reservation_reservation_a_r_n, savings_plan_savings_plan_a_r_n) AS commitment,
        coalesce(pricing_public_on_demand_cost, line_item_unblended_cost) AS public, category, region_name
        FROM source LEFT JOIN category_of ON line_item_product_code = category_of.code LEFT JOIN region_of ON product_region_code = region_of.region)
    SELECT {columns},
    {month} AS x_billing_period FROM line ORDER BY line_item_usage_start_date"""


def duckdb(packing, source, out):
    import duckdb

    db = duckdb.connect()
    db.execute("SET preserve_insertion_order = false")
    db.execute("SET TimeZone = 'UTC'")
    if packing == "parquet":
        db.execute(f"CREATE VIEW source AS SELECT * FROM read_parquet('{source}/*.parquet')")
        name = "product['product_name']"
    else:
        types = {column: "VARCHAR" for column in header(source)}
        types |= {column: "DOUBLE" for column in AMOUNTS} | {column: "TIMESTAMPTZ" for column in INSTANTS}
        listed = ", ".join(f"'{column}': '{kind}'" for column, kind in types.items())
        db.execute(f"CREATE VIEW source AS SELECT * FROM read_csv('{source}/*.csv.gz', header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', columns = {{{listed}}})")
        name = "regexp_extract(product, '\"product_name\":\"([^\"]*)\"', 1)"
    for column in ("line_item_unblended_rate", "pricing_public_on_demand_rate"):
        if packing == "parquet":
            COLUMNS.update({key: text.replace(column, f"CAST({column} AS DOUBLE)") for key, text in COLUMNS.items()})
    sql = query("strftime(bill_billing_period_start_date, '%Y-%m')", name)
    db.execute(f"COPY ({sql}) TO '{out}' (FORMAT parquet, PARTITION_BY (x_billing_period), COMPRESSION zstd, COMPRESSION_LEVEL 1)")


def datafusion(packing, source, out):
    import datafusion as df
    import pyarrow as pa

    context = df.SessionContext()
    if packing == "parquet":
        context.register_parquet("source", source, file_extension=".parquet")
        name = "product['product_name']"
        for column in ("line_item_unblended_rate", "pricing_public_on_demand_rate"):
            COLUMNS.update({key: text.replace(column, f"CAST({column} AS DOUBLE)") for key, text in COLUMNS.items()})
    else:
        kind = lambda column: pa.float64() if column in AMOUNTS else pa.timestamp("us", "UTC") if column in INSTANTS else pa.string()
        schema = pa.schema([(column, kind(column)) for column in header(source)])
        context.register_csv("raw", source, schema=schema, file_extension=".csv.gz", file_compression_type="gzip")
        # An empty field of text is an empty text here.
        names = ("reservation_reservation_a_r_n", "savings_plan_savings_plan_a_r_n")
        listed = ", ".join(f"nullif({column}, '') AS {column}" if column in names else column for column in header(source))
        context.sql(f"CREATE VIEW source AS SELECT {listed} FROM raw")
        name = "regexp_match(product, '\"product_name\":\"([^\"]*)\"')[1]"
    sql = query("to_char(bill_billing_period_start_date, '%Y-%m')", name)
    context.sql(f"COPY ({sql}) TO '{out}' STORED AS PARQUET PARTITIONED BY (x_billing_period) OPTIONS ('format.compression' 'zstd(1)')").collect()


# --- Polars ---


def polars(packing, source, out):
    import polars as pl

    c, text, none = pl.col, pl.lit, pl.lit(None, dtype=pl.String)
    if packing == "parquet":
        lines = pl.scan_parquet(f"{source}/*.parquet")
        name = c("product").map.get("product_name")
    else:
        schema = {column: pl.Float64 if column in AMOUNTS else pl.String for column in header(source)}
        lines = pl.scan_csv(f"{source}/*.csv.gz", schema=schema, glob=True)
        lines = lines.with_columns(c(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC") for column in INSTANTS)
        name = c("product").str.extract('"product_name":"([^"]*)"')
    money = lambda value: value.cast(pl.Decimal(38, 18))
    when = pl.when
    kind = c("kind")
    use, billed, amount = kind.is_in(USES), c("line_item_unblended_cost"), c("line_item_usage_amount")
    priced = kind.is_in(PRICED) & amount.is_not_null()
    ri, sp = c("reservation_reservation_a_r_n"), c("savings_plan_savings_plan_a_r_n")
    commitment, public = pl.coalesce(ri, sp), pl.coalesce(c("pricing_public_on_demand_cost"), billed)
    category = c("line_item_product_code").replace_strict(table("service-category"), default="Other", return_dtype=pl.String)
    usage = kind.is_in((*USES, "SavingsPlanNegation"))
    sku = when(kind != "Tax").then(c("product_sku"))
    number = lambda name: c(name).cast(pl.Float64)
    made = {
        "AvailabilityZone": c("line_item_availability_zone"),
        "BilledCost": money(billed),
        "BillingAccountId": c("bill_payer_account_id"),
        "BillingAccountName": c("bill_payer_account_name"),
        "BillingAccountType": text("Payer Account"),
        "BillingCurrency": c("line_item_currency_code"),
        "BillingPeriodEnd": c("bill_billing_period_end_date"),
        "BillingPeriodStart": c("bill_billing_period_start_date"),
        "CapacityReservationId": none,
        "CapacityReservationStatus": none,
        "ChargeCategory": when(usage).then(text("Usage")).when(kind.is_in(("Fee", "RIFee", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee"))).then(text("Purchase"))
        .when(kind == "Tax").then(text("Tax")).when(kind == "Credit").then(text("Credit")).otherwise(text("Adjustment")),
        "ChargeClass": when(kind == "Refund").then(text("Correction")),
        "ChargeDescription": c("line_item_line_item_description"),
        "ChargeFrequency": when(usage).then(text("Usage-Based")).when(kind.is_in(("RIFee", "SavingsPlanRecurringFee"))).then(text("Recurring")).otherwise(text("One-Time")),
        "ChargePeriodEnd": c("line_item_usage_end_date"),
        "ChargePeriodStart": c("line_item_usage_start_date"),
        "CommitmentDiscountCategory": when(ri.is_not_null()).then(text("Usage")).when(sp.is_not_null()).then(text("Spend")),
        "CommitmentDiscountId": commitment,
        "CommitmentDiscountName": none,
        "CommitmentDiscountQuantity": money(
            when(commitment.is_null() | (kind == "SavingsPlanNegation")).then(None).when(kind.is_in(("DiscountedUsage", "RIFee", "Fee"))).then(amount)
            .when(kind == "SavingsPlanCoveredUsage").then(c("savings_plan_savings_plan_effective_cost"))
            .when(kind == "SavingsPlanRecurringFee").then(c("savings_plan_total_commitment_to_date"))),
        "CommitmentDiscountStatus": when(commitment.is_not_null() & usage).then(text("Used")),
        "CommitmentDiscountType": when(ri.is_not_null()).then(text("Reserved Instance")).when(sp.is_not_null()).then(text("Savings Plan")),
        "CommitmentDiscountUnit": when(commitment.is_null() | (kind == "SavingsPlanNegation")).then(None)
        .when(kind.is_in(("DiscountedUsage", "RIFee", "Fee")) & amount.is_not_null()).then(c("pricing_unit"))
        .when((kind == "SavingsPlanCoveredUsage") & c("savings_plan_savings_plan_effective_cost").is_not_null()).then(c("line_item_currency_code"))
        .when((kind == "SavingsPlanRecurringFee") & c("savings_plan_total_commitment_to_date").is_not_null()).then(c("line_item_currency_code")),
        "ConsumedQuantity": money(when(use).then(amount)),
        "ConsumedUnit": when(use & amount.is_not_null()).then(c("pricing_unit")),
        "ContractedCost": money(when(kind == "DiscountedUsage").then(public).when(kind == "SavingsPlanNegation").then(0.0).otherwise(billed)),
        "ContractedUnitPrice": money(when(kind == "Usage").then(number("line_item_unblended_rate"))),
        "EffectiveCost": money(
            when(kind == "DiscountedUsage").then(pl.coalesce(c("reservation_effective_cost"), billed))
            .when(kind == "SavingsPlanCoveredUsage").then(pl.coalesce(c("savings_plan_savings_plan_effective_cost"), billed))
            .when(kind == "RIFee").then(pl.coalesce(c("reservation_unused_recurring_fee") + c("reservation_unused_amortized_upfront_fee_for_billing_period"), billed))
            .when(kind == "SavingsPlanRecurringFee").then(pl.coalesce(c("savings_plan_total_commitment_to_date") - c("savings_plan_used_commitment"), billed))
            .when(kind.is_in(("SavingsPlanNegation", "SavingsPlanUpfrontFee")) | ((kind == "Fee") & ri.is_not_null())).then(0.0).otherwise(billed)),
        "InvoiceId": c("bill_invoice_id"),
        "InvoiceIssuerName": pl.coalesce(c("bill_invoicing_entity"), c("line_item_legal_entity"), text("Amazon Web Services, Inc.")),
        "ListCost": money(when(use).then(public).when(kind == "SavingsPlanNegation").then(0.0).otherwise(billed)),
        "ListUnitPrice": money(number("pricing_public_on_demand_rate")),
        "PricingCategory": when(kind.is_in(("DiscountedUsage", "SavingsPlanCoveredUsage"))).then(text("Committed"))
        .when((kind == "Usage") & c("line_item_usage_type").str.contains("SpotUsage", literal=True)).then(text("Dynamic"))
        .when((kind == "Usage") & (c("pricing_term") == "OnDemand")).then(text("Standard")).when(kind == "Usage").then(text("Other")),
        "PricingCurrency": c("pricing_currency"),
        "PricingCurrencyContractedUnitPrice": pl.lit(None, dtype=pl.Decimal(38, 18)),
        "PricingCurrencyEffectiveCost": pl.lit(None, dtype=pl.Decimal(38, 18)),
        "PricingCurrencyListUnitPrice": pl.lit(None, dtype=pl.Decimal(38, 18)),
        "PricingQuantity": money(when(priced).then(amount)),
        "PricingUnit": when(priced).then(c("pricing_unit")),
        "ProviderName": text("AWS"),
        "PublisherName": when(c("bill_billing_entity") == "AWS Marketplace").then(pl.coalesce(c("line_item_legal_entity"), text("AWS"))).otherwise(text("AWS")),
        "RegionId": c("product_region_code"),
        "RegionName": c("product_region_code").replace_strict(table("region-name"), default=None, return_dtype=pl.String),
        "ResourceId": c("line_item_resource_id"),
        "ResourceName": none,
        "ResourceType": none,
        "ServiceCategory": category,
        "ServiceName": pl.coalesce(name, c("line_item_product_code")),
        "ServiceSubcategory": pl.format("Other ({})", category),
        "SkuId": sku,
        "SkuMeter": when(sku.is_not_null()).then(c("line_item_usage_type")),
        "SkuPriceDetails": none,
        "SkuPriceId": when(kind != "Tax").then(c("pricing_rate_code")),
        "SubAccountId": c("line_item_usage_account_id"),
        "SubAccountName": c("line_item_usage_account_name"),
        "SubAccountType": when(c("line_item_usage_account_id").is_not_null()).then(text("Usage Account")),
        "Tags": c("resource_tags"),
        "x_LineItemId": c("identity_line_item_id"),
        "x_LineItemType": kind,
        "x_Operation": c("line_item_operation"),
        "x_ServiceCode": c("line_item_product_code"),
        "x_UsageType": c("line_item_usage_type"),
        "x_billing_period": c("bill_billing_period_start_date").dt.strftime("%Y-%m"),
    }
    assert [*made] == [*COLUMNS, "x_billing_period"], "all peers make the same columns"
    lines = lines.with_columns(kind=pl.coalesce(c("line_item_line_item_type"), text("Usage")))
    lines = lines.select(**made).sort("ChargePeriodStart")
    lines.sink_parquet(pl.PartitionBy(out, key="x_billing_period", include_key=False), compression="zstd", compression_level=1, mkdir=True, engine="streaming")


if __name__ == "__main__":
    engine, packing, source, out = sys.argv[1:]
    {"duckdb": duckdb, "polars": polars, "datafusion": datafusion}[engine](packing, source, out)
