"""Writes cost files as AWS, other providers and other people's tools write them, and says what a plain DuckDB query on the raw file sums them to.

Read by wild.rs: wild.py FOLDER makes one folder for each case, and cases.json. Whoever meets a new habit adds a case here.
"""

import csv, datetime, decimal, gzip, io, json, os, pathlib, random, sys, zipfile

import duckdb, polars
import pyarrow as pa
import pyarrow.parquet as pq

OUT = pathlib.Path(sys.argv[1])
CASES = []
DB = duckdb.connect()
DB.sql("set timezone = 'UTC'")
DB.sql("set enable_progress_bar = false")
PAYER, MEMBER = "222222222222", "033333333333"
UTC = datetime.timezone.utc
OCTOBER, NOVEMBER = datetime.datetime(2026, 10, 1, tzinfo=UTC), datetime.datetime(2026, 11, 1, tzinfo=UTC)
DECEMBER = datetime.datetime(2026, 12, 1, tzinfo=UTC)


def write(path, data):
    path = OUT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def sums(source, service, cost):
    """Rows, and billed by service, as DuckDB reads the raw files."""
    found = DB.sql(
        f"select coalesce({service}, 'Other'), count(*), coalesce(sum(nullif({cost}::varchar, '')::decimal(38, 18)), 0) from {source} group by 1 order by 1"
    ).fetchall()
    return sum(row[1] for row in found), {name: format(total, "f") for name, _, total in found}


def case(name, source, service, cost, files=None):
    rows, services = sums(source, service, cost)
    CASES.append({"name": name, "files": [str(OUT / (files or name))], "rows": rows, "services": services, "refused": []})


def refused(name, *reasons, files=None, rows=0, services=None):
    CASES.append({"name": name, "files": [str(OUT / (files or name))], "rows": rows, "services": services or {}, "refused": reasons})


def raw_csv(*paths):
    listed = ", ".join(f"'{path}'" for path in paths)
    return f"read_csv([{listed}], all_varchar=true, header=true, delim=',', quote='\"', escape='\"', union_by_name=true)"


def raw_parquet(*paths):
    listed = ", ".join(f"'{path}'" for path in paths)
    return f"read_parquet([{listed}], union_by_name=true, hive_partitioning=false)"


# === lines of a Cost and Usage Report, by the names of the legacy CSV ===

KINDS = ["Usage"] * 12 + [
    "Tax", "Credit", "Refund", "Fee", "RIFee", "DiscountedUsage", "SavingsPlanCoveredUsage", "SavingsPlanNegation",
    "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee", "EdpDiscount", "PrivateRateDiscount", "BundledDiscount",
]
PRODUCTS = [
    ("AmazonEC2", "Amazon Elastic Compute Cloud"), ("AmazonS3", "Amazon Simple Storage Service"),
    ("AWSLambda", "AWS Lambda"), ("AmazonRDS", "Amazon Relational Database Service"),
    ("8dp6gk1yl3j4example", "A \"quoted\", foreign product"), ("ComputeSavingsPlans", "Savings Plans for AWS Compute usage"),
]


def amount(dice, kind):
    if kind == "Usage" and dice.random() < 0.05:
        return dice.choice(["0", "0.0", "1.2E-7", "4.0E-10", "1e-10", "0.0000000001", "123456.0000000001"])
    value = decimal.Decimal(dice.randrange(1, 10**12)).scaleb(-dice.choice([2, 6, 10]))
    return format(-value if kind in ("Credit", "Refund", "SavingsPlanNegation") or "Discount" in kind else value, "f")


def stamp(at):
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def lines(month, count, seed=1, **more):
    dice, end, made = random.Random(seed), NOVEMBER if month == OCTOBER else DECEMBER, []
    for number in range(count):
        kind, (code, product) = dice.choice(KINDS), dice.choice(PRODUCTS)
        start = month + datetime.timedelta(hours=dice.randrange(24 * 30))
        line = {
            "identity/LineItemId": f"{seed:04}{number:08}", "identity/TimeInterval": f"{stamp(start)}/{stamp(start + datetime.timedelta(hours=1))}",
            "bill/InvoiceId": "", "bill/InvoicingEntity": "Amazon Web Services, Inc.", "bill/BillingEntity": "AWS", "bill/BillType": "Anniversary",
            "bill/PayerAccountId": PAYER, "bill/BillingPeriodStartDate": stamp(month), "bill/BillingPeriodEndDate": stamp(end),
            "lineItem/UsageAccountId": MEMBER, "lineItem/LineItemType": kind, "lineItem/UsageStartDate": stamp(start),
            "lineItem/UsageEndDate": stamp(start + datetime.timedelta(hours=1)), "lineItem/ProductCode": code, "lineItem/UsageType": "EUC1-BoxUsage:t3.micro",
            "lineItem/Operation": "RunInstances", "lineItem/AvailabilityZone": "", "lineItem/ResourceId": f"i-{number % 50:017}",
            "lineItem/UsageAmount": "1.0000000000", "lineItem/CurrencyCode": "USD", "lineItem/UnblendedRate": "0.0104000000",
            "lineItem/UnblendedCost": amount(dice, kind), "lineItem/BlendedCost": "0.01", "lineItem/LineItemDescription": dice.choice(["$0.0104 per hour", "two\nlines, \"quoted\"", "ünïcode – 東京"]),
            "product/ProductName": product, "product/region": "eu-central-1", "product/sku": "ABC", "pricing/publicOnDemandCost": "0.0104", "pricing/term": "OnDemand", "pricing/unit": "Hrs",
            "reservation/ReservationARN": "arn:aws:ec2:eu-central-1:222222222222:reserved-instances/x" if kind in ("RIFee", "DiscountedUsage") else "",
            "reservation/EffectiveCost": "0.005" if kind == "DiscountedUsage" else "",
            "savingsPlan/SavingsPlanARN": "arn:aws:savingsplans::222222222222:savingsplan/x" if kind.startswith("SavingsPlan") else "",
            "savingsPlan/SavingsPlanEffectiveCost": "0.004" if kind == "SavingsPlanCoveredUsage" else "",
        }
        line.update(more)
        made.append(line)
    return made


def text(made, newline="\n", columns=None, header=True, **options):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns or list(made[0]), lineterminator=newline, extrasaction="ignore", restval="", **options)
    if header:
        writer.writeheader()
    writer.writerows(made)
    return out.getvalue()


def athena(label):
    """The name that the legacy report has in Parquet."""
    name = ""
    for c in label:
        if c.isupper():
            name += ("" if name.endswith("_") or not name else "_") + c.lower()
        elif c.isalnum():
            name += c
        elif not name.endswith("_"):
            name += "_"
    return name


def manifest(month, keys, compression, assembly="a1"):
    end = NOVEMBER if month == OCTOBER else DECEMBER
    day = lambda at: at.strftime("%Y%m%dT000000.000Z")
    return json.dumps({
        "assemblyId": assembly, "account": PAYER, "columns": [{"category": "identity", "name": "LineItemId"}], "charset": "UTF-8", "compression": compression,
        "contentType": "text/csv", "reportId": "x", "reportName": "daily", "billingPeriod": {"start": day(month), "end": day(end)}, "bucket": "their-bucket",
        "reportKeys": keys, "additionalArtifactKeys": [],
    })


def zipped(name, data, stream):
    class Stream(io.RawIOBase):
        """What cannot be sought in: sizes then stand behind the data, as AWS writes them."""
        def __init__(self): self.all = b""
        def writable(self): return True
        def write(self, data): self.all += bytes(data); return len(data)
    out = Stream() if stream else io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.all if stream else out.getvalue()


LEGACY = ('coalesce(nullif("product/ProductName", \'\'), "lineItem/ProductCode")', '"lineItem/UnblendedCost"')
PLAIN = ("coalesce(product_product_name, line_item_product_code)", "line_item_unblended_cost")


def legacy_csv():
    for name, ending, compression in [("legacy-gzip", "gz", "GZIP"), ("legacy-zip", "zip", "ZIP"), ("legacy-zip-stream", "zip", "ZIP")]:
        raw, newest = [], 2_000_000_000
        for month, folder in [(OCTOBER, "20261001-20261101"), (NOVEMBER, "20261101-20261201")]:
            for at, assembly in enumerate(["new-one", "old-one"]):
                parts = [lines(month, 150, seed=10 + at), lines(month, 90, seed=20 + at)]
                keys = []
                for number, part in enumerate(parts, 1):
                    # Columns come and go from month to month.
                    if month == NOVEMBER:
                        part = [{**line, "resourceTags/user:Team": "red", "splitLineItem/ParentResourceId": "", "product/new": "x"} for line in part]
                    data = text(part)
                    key = f"reports/daily/{folder}/{assembly}/daily-{number}.csv.{ending}"
                    packed = gzip.compress(data.encode()) if ending == "gz" else zipped(f"daily-{number}.csv", data, "stream" in name)
                    write(f"{name}/{key}", packed)
                    keys.append(key)
                    if assembly == "new-one":
                        raw.append(write(f"raw/{name}-{folder}-{number}.csv", data))
                said = manifest(month, keys, compression, assembly)
                path = write(f"{name}/reports/daily/{folder}/{assembly}/daily-Manifest.json", said)
                # Whoever copied it has given it another time: the older one looks newer.
                os.utime(path, (newest + at, newest + at))
                if assembly == "new-one":
                    write(f"{name}/reports/daily/{folder}/daily-Manifest.json", said)
        case(name, raw_csv(*raw), *LEGACY)


def as_table(made, names=athena, kinds=None):
    """As AWS types the Parquet: instants, doubles, texts."""
    columns, kinds = {}, kinds or {}
    for label in made[0]:
        values = [line[label] or None for line in made]
        if label.endswith("Date"):
            values = [datetime.datetime.fromisoformat(value) for value in values]
            columns[names(label)] = pa.array(values, pa.timestamp("ms", "UTC"))
        elif label.endswith("Cost") or label.endswith("Amount") or label.endswith("Rate"):
            if names(label) in kinds:
                columns[names(label)] = pa.array([decimal.Decimal(value) if value else None for value in values]).cast(kinds[names(label)])
            else:
                columns[names(label)] = pa.array([float(value) if value else None for value in values], pa.float64())
        else:
            columns[names(label)] = pa.array(values, pa.string())
    return pa.table(columns)


def parquet(path, table, **options):
    path = OUT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **{"compression": "snappy", **options})
    return path


def legacy_parquet():
    for name in ["legacy-parquet", "legacy-parquet-no-manifest"]:
        raw = []
        for month, folder, number in [(OCTOBER, "20261001-20261101", 10), (NOVEMBER, "20261101-20261201", 11)]:
            made = lines(month, 300, seed=number)
            if number == 11:
                made = [{**line, "resourceTags/user:Team": "red"} for line in made]
            key = f"reports/daily/daily/year=2026/month={number}/daily-00001.snappy.parquet"
            raw.append(parquet(f"{name}/{key}", as_table(made)))
            if name == "legacy-parquet":
                write(f"{name}/reports/daily/{folder}/daily-Manifest.json", manifest(month, [key], "Parquet"))
                write(f"{name}/reports/daily/{folder}/daily-create-table.sql", "create table x")
        parquet(f"{name}/reports/daily/cost_and_usage_data_status/cost_and_usage_data_status.parquet", pa.table({"status": ["READY"]}))
        write(f"{name}/reports/daily/crawler-cfn.yml", "x")
        case(name, raw_parquet(*raw), *PLAIN)


def encodings():
    made = as_table(lines(OCTOBER, 3000, seed=31))
    texts = [field.name for field in made.schema if field.type == pa.string()]
    times = [field.name for field in made.schema if pa.types.is_timestamp(field.type)]
    doubles = [field.name for field in made.schema if field.type == pa.float64()]
    plain = {"use_dictionary": False}
    each = {
        "plain": plain, "dictionary": {"use_dictionary": True}, "pages-2": {"data_page_version": "2.0"}, "pages-2-plain": {**plain, "data_page_version": "2.0"},
        "delta-texts": {**plain, "column_encoding": {name: "DELTA_BYTE_ARRAY" for name in texts}},
        "delta-lengths": {**plain, "column_encoding": {name: "DELTA_LENGTH_BYTE_ARRAY" for name in texts}},
        "delta-numbers": {**plain, "column_encoding": {name: "DELTA_BINARY_PACKED" for name in times}},
        "split-doubles": {**plain, "column_encoding": {name: "BYTE_STREAM_SPLIT" for name in doubles}},
        "small-groups": {"row_group_size": 100}, "small-pages": {"data_page_size": 512, "write_batch_size": 64}, "page-index": {"write_page_index": True},
        "uncompressed": {"compression": "none"}, "zstd": {"compression": "zstd"}, "int96": {"use_deprecated_int96_timestamps": True}, "version-1": {"version": "1.0"},
    }
    for name, options in each.items():
        case(f"parquet-{name}", raw_parquet(parquet(f"parquet-{name}/daily-00001.parquet", made, **options)), *PLAIN)
    # Writers that do not say that bytes are text.
    binary = made.cast(pa.schema([field.with_type(pa.binary()) if field.type == pa.string() else field for field in made.schema]))
    path = parquet("parquet-binary/a.parquet", binary)
    case("parquet-binary", f"(select * replace (decode(product_product_name) as product_product_name) from {raw_parquet(path)})", "product_product_name", PLAIN[1])
    # One row group of very many rows, by another writer.
    many = as_table(lines(OCTOBER, 4000, seed=32))
    DB.register("many", many)
    path = OUT / "parquet-duckdb/a.parquet"
    path.parent.mkdir(parents=True)
    DB.sql(f"copy (select many.* from many, range(75)) to '{path}' (format parquet, row_group_size 1000000)")
    case("parquet-duckdb", raw_parquet(path), *PLAIN)


def types():
    made = lines(OCTOBER, 400, seed=41)
    table = as_table(made)
    for name, kind in [("decimal", pa.decimal128(22, 10)), ("decimal-wide", pa.decimal128(38, 12)), ("decimal-256", pa.decimal256(50, 12)), ("float32", pa.float32()), ("text", pa.string())]:
        if name == "text":
            costs = pa.array([line["lineItem/UnblendedCost"] for line in made], pa.string())
        elif name == "float32":
            # Within the seven digits that it has.
            costs = pa.array([round(float(line["lineItem/UnblendedCost"]) % 100, 2) for line in made], pa.float32())
        else:
            costs = pa.array([decimal.Decimal(line["lineItem/UnblendedCost"]) for line in made]).cast(kind)
        at = table.schema.get_field_index("line_item_unblended_cost")
        path = parquet(f"cost-{name}/a.parquet", table.set_column(at, "line_item_unblended_cost", costs))
        # DuckDB reads as many digits as that as doubles.
        case(f"cost-{name}", raw_parquet(OUT / "cost-decimal/a.parquet" if name == "decimal-256" else path), *PLAIN)
    for name, factor in [("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]:
        numbers = table
        for at, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type):
                values = [int(value.timestamp()) * factor for value in table.column(at).to_pylist()]
                numbers = numbers.set_column(at, field.name, pa.array(values, pa.int64()))
        case(f"instants-{name}", raw_parquet(parquet(f"instants-{name}/a.parquet", numbers)), *PLAIN)
        texts = [{**line, **{label: str(int(datetime.datetime.fromisoformat(line[label]).timestamp()) * factor) for label in line if label.endswith("Date")}} for line in made]
        case(f"instants-text-{name}", raw_csv(write(f"instants-text-{name}/a.csv", text(texts))), *LEGACY)
    for name, kind in [("second", pa.timestamp("s")), ("micro", pa.timestamp("us")), ("nano", pa.timestamp("ns"))]:
        cast = table.cast(pa.schema([field.with_type(kind) if pa.types.is_timestamp(field.type) else field for field in table.schema]))
        case(f"instants-{name}", raw_parquet(parquet(f"instants-{name}/a.parquet", cast)), *PLAIN)
    forms = {"minutes": "%Y-%m-%dT%H:%MZ", "blank": "%Y-%m-%d %H:%M:%S", "blank-minutes": "%Y-%m-%d %H:%M", "zone": "%Y-%m-%d %H:%M:%S UTC", "fraction": "%Y-%m-%dT%H:%M:%S.000Z", "offset": "%Y-%m-%dT%H:%M:%S+00:00", "short-offset": "%Y-%m-%d %H:%M:%S+00"}
    for name, form in forms.items():
        texts = [{**line, **{label: datetime.datetime.fromisoformat(line[label]).strftime(form) for label in line if label.endswith("Date")}} for line in made]
        case(f"instants-{name}", raw_csv(write(f"instants-{name}/a.csv", text(texts))), *LEGACY)


def headers():
    made = lines(OCTOBER, 200, seed=51)
    plain = [{athena(label): value for label, value in line.items()} for line in made]
    for name, change in [("upper", str.upper), ("title", str.title), ("snake", str), ("blanks", lambda label: f" {label} ")]:
        changed = [{change(label): value for label, value in line.items()} for line in plain]
        write(f"header-{name}/a.csv", text(changed))
        case(f"header-{name}", raw_csv(write(f"raw/header-{name}.csv", text(plain))), *PLAIN)
    upper = as_table(made, lambda label: athena(label).upper())
    case("header-upper-parquet", raw_parquet(parquet("header-upper-parquet/a.parquet", upper)), *PLAIN)


# === CUR 2.0 ===

def cur2(count, seed, month=OCTOBER):
    made = []
    for number, line in enumerate(lines(month, count, seed)):
        line = {athena(label): value for label, value in line.items() if not label.startswith(("product/", "identity/TimeInterval"))}
        line["product"] = {"product_name": dict(PRODUCTS)[line["line_item_product_code"]], "region": "eu-central-1", "sku": "ABC"}
        line["resource_tags"] = {"user_team": ["red", "blue"][number % 2], "aws_created_by": "x"} if number % 3 else {}
        line["cost_category"] = {"a": "b"}
        line["discount"] = {}
        line["bill_payer_account_name"] = "payer"
        made.append(line)
    return made


MAPS = ["product", "resource_tags", "cost_category", "discount"]


def cur2_table(made):
    columns = {}
    for name in made[0]:
        values = [line[name] if line[name] != "" else None for line in made]
        if name in MAPS:
            columns[name] = pa.array([list(value.items()) for value in values], pa.map_(pa.string(), pa.string()))
        elif name.endswith("_date"):
            columns[name] = pa.array([datetime.datetime.fromisoformat(value) for value in values], pa.timestamp("us"))
        elif name.endswith(("_cost", "_amount", "_rate")):
            columns[name] = pa.array([float(value) if value is not None else None for value in values], pa.float64())
        else:
            columns[name] = pa.array(values, pa.string())
    return pa.table(columns)


def cur2_csv(made):
    return text([{name: json.dumps(value) if name in MAPS else value for name, value in line.items()} for line in made])


NAME2 = ("product['product_name']", "line_item_unblended_cost")
JSON2 = ("json_extract_string(product, '$.product_name')", "line_item_unblended_cost")


def cur_2():
    # Each delivery in a folder of its own, as Data Exports keeps versions: the last one counts.
    raw = []
    for month, period in [(OCTOBER, "2026-10"), (NOVEMBER, "2026-11")]:
        for at, execution in enumerate(["2026-11-02T03:04:05.678Z-0f1e", "2026-11-01T23:04:05.678Z-ffff"]):
            data = cur2_csv(cur2(120, 60 + at, month))
            key = f"exports/costs/data/BILLING_PERIOD={period}/{execution}/costs-00001.csv.gz"
            write(f"cur2-versions/{key}", gzip.compress(data.encode()))
            write(f"cur2-versions/exports/costs/metadata/BILLING_PERIOD={period}/{execution}/costs-Manifest.json", json.dumps({"executionId": execution, "dataFiles": [f"s3://their-bucket/{key}"]}))
            if at == 0:
                raw.append(write(f"raw/cur2-versions-{period}.csv", data))
    case("cur2-versions", raw_csv(*raw), *JSON2)
    made = cur2(500, 62)
    whole = cur2_table(made)
    path = parquet("cur2-maps/data/BILLING_PERIOD=2026-10/costs-00001.snappy.parquet", whole)
    case("cur2-maps", raw_parquet(path), *NAME2)
    # Engines without maps.
    path = OUT / "cur2-polars/a.parquet"
    path.parent.mkdir(parents=True)
    frame = polars.from_arrow(whole.drop_columns(MAPS))
    pairs = {name: [[{"key": key, "value": value} for key, value in line[name].items()] for line in made] for name in MAPS}
    kind = polars.List(polars.Struct({"key": polars.String, "value": polars.String}))
    frame.with_columns([polars.Series(name, values, dtype=kind) for name, values in pairs.items()]).write_parquet(path)
    case("cur2-polars", raw_parquet(path), "list_filter(product, pair -> pair.key = 'product_name')[1].value", NAME2[1])
    # The fewest columns that an export can do with.
    least = ["bill_payer_account_id", "line_item_product_code", "line_item_unblended_cost", "line_item_usage_start_date", "line_item_usage_end_date"]
    case("cur2-least", raw_csv(write("cur2-least/a.csv", text(made, columns=least))), "line_item_product_code", NAME2[1])
    case("cur2-least-parquet", raw_parquet(parquet("cur2-least-parquet/a.parquet", whole.select(least))), "line_item_product_code", NAME2[1])
    # Shares of split cost allocation bill nothing themselves.
    split = [{**line, "split_line_item_parent_resource_id": ""} for line in made]
    split += [{**line, "split_line_item_parent_resource_id": "i-1", "line_item_unblended_cost": "", "line_item_line_item_type": "Usage"} for line in made[:50]]
    case("cur2-split", raw_csv(write("cur2-split/a.csv", cur2_csv(split))), *JSON2)
    # Columns come and go from file to file of one period.
    raw = [parquet("cur2-drift/a.parquet", whole), parquet("cur2-drift/b.parquet", cur2_table(cur2(90, 63)).drop_columns(["product", "resource_tags", "bill_payer_account_name", "pricing_term"]))]
    case("cur2-drift", f"(select * from {raw_parquet(*raw)})", "coalesce(product['product_name'], line_item_product_code)", NAME2[1])
    monthly = [{**line, "line_item_usage_start_date": stamp(OCTOBER), "line_item_usage_end_date": stamp(NOVEMBER)} for line in made]
    case("cur2-monthly", raw_csv(write("cur2-monthly/a.csv", cur2_csv(monthly))), *JSON2)
    # As pandas, DuckDB and Polars write it anew.
    frame.write_csv(OUT / "raw/polars.csv")
    case("cur2-polars-csv", raw_csv(write("cur2-polars-csv/a.csv", (OUT / "raw/polars.csv").read_bytes())), "line_item_product_code", NAME2[1])
    frame.to_pandas().to_csv(OUT / "raw/pandas.csv", index=False)
    case("cur2-pandas-csv", raw_csv(write("cur2-pandas-csv/a.csv", (OUT / "raw/pandas.csv").read_bytes())), "line_item_product_code", NAME2[1])


# === FOCUS ===

def focus(count, seed, style="aws", month=OCTOBER):
    dice, end, made = random.Random(seed), NOVEMBER if month == OCTOBER else DECEMBER, []
    short = lambda at: at.strftime("%Y-%m-%dT%H:%MZ") if style == "azure" else at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    for number in range(count):
        start = month + datetime.timedelta(hours=dice.randrange(24 * 30))
        cost = decimal.Decimal(dice.randrange(1, 10**14)).scaleb(-dice.choice([6, 10, 15, 18]))
        cost = dice.choice([format(cost, "f"), format(cost, "E"), "0", "0E-18", "1.2E-7", format(-cost, "f")]) if style == "azure" else format(cost, "f")
        line = {
            "AvailabilityZone": "", "BilledCost": cost, "BillingAccountId": PAYER if style == "aws" else "/providers/Microsoft.Billing/billingAccounts/1", "BillingAccountName": "payer",
            "BillingCurrency": "USD", "BillingPeriodEnd": short(end), "BillingPeriodStart": short(month), "ChargeCategory": dice.choice(["Usage", "Usage", "Purchase", "Tax", "Credit"]),
            "ChargeClass": "", "ChargeDescription": dice.choice(["plain", "a, \"b\"\nc"]), "ChargeFrequency": "Usage-Based", "ChargePeriodEnd": short(start + datetime.timedelta(hours=1)),
            "ChargePeriodStart": short(start), "ConsumedQuantity": "1", "ConsumedUnit": "Hours", "ContractedCost": cost, "EffectiveCost": cost, "InvoiceIssuerName": "Issuer",
            "ListCost": cost, "PricingCategory": "Standard", "PricingQuantity": "1", "PricingUnit": "Hours", "ProviderName": "AWS" if style == "aws" else "Microsoft", "PublisherName": "Publisher",
            "RegionId": "eu-central-1", "RegionName": "EU (Frankfurt)", "ResourceId": f"r{number % 20}", "ResourceName": "", "ResourceType": "", "ServiceCategory": "Compute",
            "ServiceName": dice.choice(["Virtual Machines", "Storage", "A \"quoted\", service"]), "SkuId": "S", "SkuPriceId": "P", "SubAccountId": MEMBER, "SubAccountName": "member",
            "Tags": json.dumps({"team": "red", "n": number % 3}) if number % 2 else "",
        }
        if style == "aws":
            line.update({"x_CostCategories": "{}", "x_Discounts": "{}", "x_Operation": "RunInstances", "x_ServiceCode": "AmazonEC2", "x_UsageType": "BoxUsage"})
        else:
            line.update({"x_BillingProfileId": "b", "x_SkuMeterName": "m", "x_ResourceGroupName": "g"})
            if number % 17 == 0:
                line["ServiceName"] = ""
        made.append(line)
    return made


FOCUS = ("ServiceName", "BilledCost")


def focus_table(made, decimals=False):
    columns = {}
    for name in made[0]:
        values = [line[name] or None for line in made]
        if name in ("Tags", "x_CostCategories", "x_Discounts", "SkuPriceDetails"):
            pairs = [[(key, str(value)) for key, value in json.loads(value).items()] if value else None for value in values]
            columns[name] = pa.array(pairs, pa.map_(pa.string(), pa.string()))
        elif name.endswith(("PeriodStart", "PeriodEnd")):
            columns[name] = pa.array([datetime.datetime.fromisoformat(value) for value in values], pa.timestamp("ms", "UTC"))
        elif name.endswith(("Cost", "Quantity")):
            columns[name] = pa.array([decimal.Decimal(value) for value in values], pa.decimal128(38, 18)) if decimals else pa.array([float(value) for value in values], pa.float64())
        else:
            columns[name] = pa.array(values, pa.string())
    return pa.table(columns)


def focus_all():
    aws = focus(400, 71)
    data = text(aws)
    key = "exports/focus/data/BILLING_PERIOD=2026-10/focus-00001.csv.gz"
    cut = data.index("\n", len(data) // 2) + 1
    # Two members, one stream: what parallel packers make.
    write(f"focus-csv/{key}", gzip.compress(data[:cut].encode()) + gzip.compress(data[cut:].encode()))
    write("focus-csv/exports/focus/metadata/BILLING_PERIOD=2026-10/focus-Manifest.json", json.dumps({"dataFiles": [f"s3://b/{key}"]}))
    case("focus-csv", raw_csv(write("raw/focus.csv", data)), *FOCUS)
    case("focus-parquet", raw_parquet(parquet("focus-parquet/BILLING_PERIOD=2026-10/focus-00001.snappy.parquet", focus_table(aws))), *FOCUS)
    case("focus-decimals", raw_parquet(parquet("focus-decimals/a.parquet", focus_table(aws, True))), *FOCUS)
    newer = [{**line, "BillingAccountType": "Payer", "InvoiceId": "1", "PricingCurrency": "USD", "SkuMeter": "m", "SkuPriceDetails": json.dumps({"CoreCount": 2}), "SubAccountType": "Member", "ServiceSubcategory": "Virtual Machines", "CapacityReservationId": ""} for line in aws]
    case("focus-1.2-parquet", raw_parquet(parquet("focus-1.2-parquet/a.parquet", focus_table(newer))), *FOCUS)
    case("focus-1.2-csv", raw_csv(write("focus-1.2-csv/a.csv", text(newer))), *FOCUS)
    newest = [{("ServiceProviderName" if name == "ProviderName" else name): value for name, value in line.items()} for line in newer]
    case("focus-1.3-csv", raw_csv(write("focus-1.3-csv/a.csv", text(newest))), *FOCUS)
    azure = focus(400, 72, "azure")
    other = "coalesce(nullif(ServiceName, ''), 'Publisher')"
    path = write("focus-azure/a.csv", b"\xef\xbb\xbf" + text(azure, newline="\r\n", quoting=csv.QUOTE_ALL).encode())
    case("focus-azure", raw_csv(path), other, FOCUS[1])
    for name, change in [("lower", str.lower), ("upper", str.upper)]:
        changed = [{change(label): value for label, value in line.items()} for line in aws]
        case(f"focus-{name}", raw_csv(write(f"focus-{name}/a.csv", text(changed))), *FOCUS)
    snake = lambda label: "".join(("_" + c.lower() if c.isupper() and at else c.lower()) for at, c in enumerate(label))
    changed = [{snake(label): value for label, value in line.items()} for line in aws]
    case("focus-snake", raw_csv(write("focus-snake/a.csv", text(changed))), "service_name", "billed_cost")
    listed = [{**line, "Tags": json.dumps([{"key": "team", "value": "red"}])} for line in aws]
    case("focus-listed-tags", raw_csv(write("focus-listed-tags/a.csv", text(listed))), *FOCUS)
    # Put together by hand, each with its header; and blank lines at the end.
    write("focus-twice/a.csv", text(aws[:100]) + text(aws[100:]) + "\n\n")
    case("focus-twice", raw_csv(write("raw/twice.csv", text(aws))), *FOCUS)
    # A month in which nothing was charged yet lies beside one with costs.
    write("focus-empty-month/BILLING_PERIOD=2026-11/a.csv", text(aws[:1], columns=list(aws[0])).split("\n")[0] + "\n")
    path = write("focus-empty-month/BILLING_PERIOD=2026-10/a.csv", data)
    case("focus-empty-month", raw_csv(path), *FOCUS)
    parquet("focus-empty-file/a.parquet", focus_table(aws).slice(0, 0))
    case("focus-empty-file", raw_parquet(parquet("focus-empty-file/b.parquet", focus_table(aws))), *FOCUS)
    long = [{**line, "BilledCost": line["BilledCost"] + "0" * 30} for line in aws if "." in line["BilledCost"]]
    path = write("focus-long-numbers/a.csv", text(long))
    case("focus-long-numbers", f"(select * replace (rtrim(BilledCost, '0') || '0' as BilledCost) from {raw_csv(path)})", *FOCUS)
    nothing = [{**line, "AvailabilityZone": "NULL", "ResourceName": "NULL"} for line in aws]
    case("focus-null-words", raw_csv(write("focus-null-words/a.csv", text(nothing))), *FOCUS)


# === what is refused, with a word on what to do ===

def refusals():
    aws, october = focus(50, 81), lines(OCTOBER, 50, 82)
    write("empty/a.csv", b"")
    refused("empty", "not even a header")
    write("header-only/a.csv", text(aws).split("\n")[0] + "\n")
    refused("header-only", "it has no rows")
    packed = gzip.compress(text(focus(3000, 83)).encode())
    write("cut-gzip/a.csv.gz", packed[: len(packed) * 2 // 3])
    refused("cut-gzip", "damaged or cut off")
    whole = parquet("raw/whole.parquet", focus_table(aws)).read_bytes()
    write("cut-parquet/a.parquet", whole[: len(whole) * 2 // 3])
    refused("cut-parquet", "not a complete Parquet file")
    parquet("gzip-parquet/a.parquet", focus_table(aws), compression="gzip")
    refused("gzip-parquet", "write it with Snappy or Zstandard")
    write("recommendations/a.csv", "account_id,recommendation_id,estimated_monthly_savings_before_discount,action_type\n1,2,3,4\n")
    refused("recommendations", "fit no known cost export", "move it out")
    write("semicolons/a.csv", text(aws, delimiter=";"))
    refused("semicolons", "fit no known cost export", "commas")
    write("utf-16/a.csv", text(aws).encode("utf-16"))
    refused("utf-16", "save it as UTF-8")
    write("no-payer/a.csv", text([{name: value for name, value in line.items() if name != "bill_payer_account_id"} for line in cur2(5, 84)], columns=["line_item_product_code", "line_item_unblended_cost", "line_item_usage_start_date", "line_item_usage_end_date"]))
    refused("no-payer", "column bill_payer_account_id is missing", "add it to the columns of the export")
    write("two-formats/a.csv", text(aws))
    write("two-formats/b.csv", text(october))
    refused("two-formats", "several formats (Cost and Usage Report, FOCUS)", "a folder of its own")
    for assembly in ["a1", "a2"]:
        write(f"side-by-side/daily/20261001-20261101/{assembly}/daily-1.csv", text(october))
    refused("side-by-side", "20261001-20261101 holds several versions of one period", "manifests")
    write("executions/data/BILLING_PERIOD=2026-10/x1/a.csv", text(aws))
    write("executions/data/BILLING_PERIOD=2026-10/x2/a.csv", text(aws))
    refused("executions", "BILLING_PERIOD=2026-10 holds several versions of one period")
    no_cost = [{**line, "lineItem/UnblendedCost": ""} if number == 7 else line for number, line in enumerate(october)]
    write("no-cost/a.csv", text(no_cost))
    refused("no-cost", "BilledCost is empty in a row")
    # One month's file is gone: the other month is read.
    path = write("gone/daily/20261001-20261101/daily-1.csv", text(october))
    write("gone/daily/20261001-20261101/daily-Manifest.json", manifest(OCTOBER, ["r/daily/20261001-20261101/daily-1.csv"], "GZIP"))
    write("gone/daily/20261101-20261201/daily-Manifest.json", manifest(NOVEMBER, ["r/daily/20261101-20261201/daily-9.csv"], "GZIP"))
    rows, services = sums(raw_csv(path), *LEGACY)
    refused("gone", "names a file that is not in the bucket (report key number 1)", rows=rows, services=services)


for make in [legacy_csv, legacy_parquet, encodings, types, headers, cur_2, focus_all, refusals]:
    make()
(OUT / "cases.json").write_text(json.dumps(CASES))
print(len(CASES))
