//! Manifests (`<report>-Manifest.json`): which files make the current version of one billing period.
//!
//! Of the legacy CUR: <https://docs.aws.amazon.com/cur/latest/userguide/cur-data-warehouse.html>; of Data Exports, which name the files as S3 URLs and the
//! period by the folder: <https://docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html>. Parsed with bounds, and believed in nothing: paths must stay
//! under the export's prefix, the account must be the connection's.

use super::ExportError;
use contracts::AccountId;
use contracts::costs::{BillingPeriod, ExportLocation};
use object_store::path::Path;
use serde::Deserialize;

/// Keys of S3 objects are at most this long.
const MAX_KEY: usize = 1024;
/// Files of one period that a manifest may name.
const MAX_KEYS: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    account: String,
    #[serde(default)]
    bucket: Option<String>,
    billing_period: RawPeriod,
    compression: String,
    report_keys: Vec<String>,
}

#[derive(Deserialize)]
struct RawPeriod {
    start: String,
}

/// Of Data Exports. It names no account: each row's payer is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExport {
    data_files: Vec<String>,
}

/// What is taken from a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) period: BillingPeriod,
    /// In the manifest's order; each is under the export's prefix.
    pub(super) files: Vec<Path>,
}

/// Where a manifest was found, which decides what it may say.
pub(super) enum Lies<'a> {
    /// In a customer's bucket: it must be of that bucket and that account, and name files under the prefix alone.
    InBucket { location: &'a ExportLocation, account: &'a AccountId },
    /// In a folder here, whither somebody has copied it.
    Here,
}

impl Lies<'_> {
    fn prefix(&self) -> &str {
        match self {
            Self::InBucket { location, .. } => &location.prefix,
            Self::Here => "",
        }
    }
}

/// Reads the manifest that was found at `path`.
pub(super) fn parse(path: &Path, bytes: &[u8], lies: &Lies<'_>) -> Result<Manifest, ExportError> {
    let bad = |why: &str| ExportError::BadManifest { path: path.clone(), why: why.to_owned() };
    if let Ok(raw) = serde_json::from_slice::<RawExport>(bytes) {
        return data_export(path, raw, lies);
    }
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|_| bad("it is not the JSON of a Cost and Usage Report's manifest"))?;
    if let Lies::InBucket { account, .. } = lies
        && raw.account != account.as_str()
    {
        return Err(bad("its account is not the connection's; the report belongs to somebody else"));
    }
    if let Lies::InBucket { location, .. } = lies
        && raw.bucket.is_some_and(|bucket| bucket != location.bucket)
    {
        return Err(bad("it names another bucket than the one it lies in"));
    }
    if !["Parquet", "GZIP", "ZIP"].contains(&raw.compression.as_str()) {
        return Err(bad("the report is packed in an unknown way; set the report's compression type to Parquet"));
    }
    let period = period(&raw.billing_period.start).ok_or_else(|| bad("its billing period is no month"))?;
    Ok(Manifest { period, files: files(path, raw.report_keys.iter().map(String::as_str), lies.prefix())? })
}

fn data_export(path: &Path, raw: RawExport, lies: &Lies<'_>) -> Result<Manifest, ExportError> {
    let bad = |why: &str| ExportError::BadManifest { path: path.clone(), why: why.to_owned() };
    let period = path.parts().find_map(|part| part.as_ref().strip_prefix("BILLING_PERIOD=")?.parse().ok());
    let period = period.ok_or_else(|| bad("its folder names no billing period"))?;
    let keys = raw.data_files.iter().map(|url| match url.strip_prefix("s3://") {
        None => Some(url.as_str()),
        Some(rest) => match lies {
            Lies::InBucket { location, .. } => rest.strip_prefix(&location.bucket)?.strip_prefix('/'),
            Lies::Here => rest.split_once('/').map(|(_, key)| key),
        },
    });
    let keys =
        keys.collect::<Option<Vec<_>>>().ok_or_else(|| bad("it names another bucket than the one it lies in"))?;
    Ok(Manifest { period, files: files(path, keys.into_iter(), lies.prefix())? })
}

fn files<'k>(
    path: &Path,
    keys: impl ExactSizeIterator<Item = &'k str>,
    prefix: &str,
) -> Result<Vec<Path>, ExportError> {
    let bad = |why: &str| ExportError::BadManifest { path: path.clone(), why: why.to_owned() };
    if keys.len() == 0 || keys.len() > MAX_KEYS {
        return Err(bad("it names no files, or more than 10,000"));
    }
    let files = keys.map(|key| file(key, prefix)).collect::<Option<Vec<_>>>();
    let files =
        files.ok_or_else(|| bad("a report key leaves the export's prefix or is no plain path of a cost file"))?;
    let distinct: std::collections::BTreeSet<_> = files.iter().collect();
    if distinct.len() != files.len() {
        return Err(bad("it names a file twice, whose costs would count twice"));
    }
    Ok(files)
}

/// `20181101T000000.000Z` -> `2018-11`.
fn period(start: &str) -> Option<BillingPeriod> {
    let (year, rest) = start.split_at_checked(4)?;
    let (month, rest) = rest.split_at_checked(2)?;
    rest.starts_with("01T").then(|| format!("{year}-{month}").parse().ok()).flatten()
}

fn file(key: &str, prefix: &str) -> Option<Path> {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.chars().any(|c| c.is_control() || matches!(c, '\\' | '%'))
    };
    if key.len() > MAX_KEY || !key.split('/').all(plain) || !super::discover::is_cost_file(key) {
        return None;
    }
    let path = Path::parse(key).ok()?;
    path.prefix_matches(&Path::parse(prefix).ok()?).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ACCOUNT: &str = "222222222222";

    fn location() -> ExportLocation {
        ExportLocation { bucket: "costs-of-a-customer".into(), prefix: "cur/daily".into() }
    }

    fn json(keys: &[&str]) -> serde_json::Value {
        serde_json::json!({
            "assemblyId": "f6b3e1ba", "account": ACCOUNT, "bucket": "costs-of-a-customer", "compression": "Parquet", "contentType": "Parquet",
            "billingPeriod": {"start": "20181101T000000.000Z", "end": "20181201T000000.000Z"}, "reportName": "daily", "reportKeys": keys,
            "columns": [{"category": "lineItem", "name": "UnblendedCost"}],
        })
    }

    fn read(value: &serde_json::Value) -> Result<Manifest, ExportError> {
        let path = Path::from("cur/daily/20181101-20181201/daily-Manifest.json");
        parse(
            &path,
            value.to_string().as_bytes(),
            &Lies::InBucket { location: &location(), account: &ACCOUNT.parse().unwrap() },
        )
    }

    fn why(value: &serde_json::Value) -> String {
        read(value).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_as_aws_writes_it() {
        let manifest = read(&json(&["cur/daily/daily/year=2018/month=11/daily-00001.snappy.parquet"])).unwrap();
        assert_eq!(manifest.period.as_str(), "2018-11");
        assert_eq!(manifest.files, [Path::from("cur/daily/daily/year=2018/month=11/daily-00001.snappy.parquet")]);
    }

    #[test]
    fn attack_32_paths_out_of_the_prefix_are_refused() {
        let keys = [
            "cur/other/a.parquet",
            "cur/daily/../other/a.parquet",
            "../a.parquet",
            "/cur/daily/a.parquet",
            "cur/daily//a.parquet",
            "cur/daily/./a.parquet",
            "cur/dailyness/a.parquet",
            "cur/daily/..\\a.parquet",
            "cur/daily/%2e%2e/a.parquet",
            "cur/daily/a.txt",
            "s3://elsewhere/cur/daily/a.parquet",
            "cur/daily/\u{0}.parquet",
            "",
        ];
        for key in keys {
            assert!(why(&json(&[key])).contains("leaves the export's prefix"), "{key:?}");
        }
        assert!(why(&json(&["cur/daily/a.parquet", "cur/daily/a.parquet"])).contains("twice"));
    }

    #[test]
    fn attack_32_a_report_of_another_payer_is_refused() {
        let mut value = json(&["cur/daily/a.parquet"]);
        value["account"] = "333333333333".into();
        assert!(why(&value).contains("account is not the connection's"));
        value["account"] = 222_222_222_222_u64.into();
        assert!(why(&value).contains("not the JSON"));
    }

    #[test]
    fn other_unusable_manifests() {
        let with = |field: &str, to: serde_json::Value| {
            let mut value = json(&["cur/daily/a.parquet"]);
            value[field] = to;
            why(&value)
        };
        assert!(with("bucket", "another-bucket".into()).contains("another bucket"));
        assert!(with("compression", "7Z".into()).contains("set the report's compression type to Parquet"));
        assert!(with("billingPeriod", serde_json::json!({"start": "20181301T000000.000Z"})).contains("no month"));
        assert!(with("billingPeriod", serde_json::json!({"start": "2018-11"})).contains("no month"));
        assert!(with("reportKeys", serde_json::json!([])).contains("names no files"));
    }

    #[test]
    fn a_manifest_of_data_exports() {
        let read = |url: &str, folder: &str| {
            let path = Path::from(format!("cur/daily/x/metadata/{folder}/x-Manifest.json"));
            let text = serde_json::json!({"executionId": "1", "dataFiles": [url]}).to_string();
            parse(&path, text.as_bytes(), &Lies::InBucket { location: &location(), account: &ACCOUNT.parse().unwrap() })
        };
        let url = "s3://costs-of-a-customer/cur/daily/x/data/BILLING_PERIOD=2024-09/x-00001.csv.gz";
        let manifest = read(url, "BILLING_PERIOD=2024-09").unwrap();
        assert_eq!(manifest.period.as_str(), "2024-09");
        assert_eq!(manifest.files, [Path::from("cur/daily/x/data/BILLING_PERIOD=2024-09/x-00001.csv.gz")]);
        assert!(read(url, "2024").unwrap_err().to_string().contains("names no billing period"));
        for elsewhere in ["s3://another-bucket/cur/daily/a.parquet", "s3://costs-of-a-customer-too/cur/daily/a.parquet"]
        {
            assert!(read(elsewhere, "BILLING_PERIOD=2024-09").unwrap_err().to_string().contains("another bucket"));
        }
        let out = read("s3://costs-of-a-customer/else/a.parquet", "BILLING_PERIOD=2024-09").unwrap_err();
        assert!(out.to_string().contains("leaves the export's prefix"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&Path::from("x-Manifest.json"), &bytes, &Lies::Here);
        }

        #[test]
        fn an_accepted_key_is_under_the_prefix(key in "[a-z./%\\\\]{0,40}") {
            if let Some(path) = file(&key, "a/b") {
                prop_assert!(path.as_ref().starts_with("a/b/"));
                prop_assert!(!path.as_ref().contains(".."));
            }
        }
    }
}
