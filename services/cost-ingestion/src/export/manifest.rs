//! Manifests of the legacy CUR (`<report>-Manifest.json`): which files make the current version of one billing period.
//!
//! <https://docs.aws.amazon.com/cur/latest/userguide/cur-data-warehouse.html>. Parsed with bounds, and believed in nothing: paths must stay
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

/// What is taken from a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) period: BillingPeriod,
    /// In the manifest's order; each is under the export's prefix.
    pub(super) files: Vec<Path>,
}

/// Reads the manifest that was found at `path`.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    location: &ExportLocation,
    account: &AccountId,
) -> Result<Manifest, ExportError> {
    let bad = |why: &str| ExportError::BadManifest { path: path.clone(), why: why.to_owned() };
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|_| bad("it is not the JSON of a Cost and Usage Report's manifest"))?;
    if raw.account != account.as_str() {
        return Err(bad("its account is not the connection's; the report belongs to somebody else"));
    }
    if raw.bucket.is_some_and(|bucket| bucket != location.bucket) {
        return Err(bad("it names another bucket than the one it lies in"));
    }
    if raw.compression != "Parquet" {
        return Err(bad("the report is not in Parquet; set the report's compression type to Parquet"));
    }
    if raw.report_keys.is_empty() || raw.report_keys.len() > MAX_KEYS {
        return Err(bad("it names no files, or more than 10,000"));
    }
    let period = period(&raw.billing_period.start).ok_or_else(|| bad("its billing period is no month"))?;
    let files = raw.report_keys.iter().map(|key| file(key, &location.prefix)).collect::<Option<Vec<_>>>();
    let files =
        files.ok_or_else(|| bad("a report key leaves the export's prefix or is no plain path of a Parquet file"))?;
    let distinct: std::collections::BTreeSet<_> = files.iter().collect();
    if distinct.len() != files.len() {
        return Err(bad("it names a file twice, whose costs would count twice"));
    }
    Ok(Manifest { period, files })
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
    if key.len() > MAX_KEY || !key.split('/').all(plain) || !key.ends_with(".parquet") {
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
        parse(&path, value.to_string().as_bytes(), &location(), &ACCOUNT.parse().unwrap())
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
            "cur/daily/a.csv",
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
        assert!(with("compression", "GZIP".into()).contains("set the report's compression type to Parquet"));
        assert!(with("billingPeriod", serde_json::json!({"start": "20181301T000000.000Z"})).contains("no month"));
        assert!(with("billingPeriod", serde_json::json!({"start": "2018-11"})).contains("no month"));
        assert!(with("reportKeys", serde_json::json!([])).contains("names no files"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&Path::from("x-Manifest.json"), &bytes, &location(), &ACCOUNT.parse().unwrap());
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
