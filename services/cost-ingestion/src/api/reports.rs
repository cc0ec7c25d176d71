//! The account's own lists of exports: report definitions (legacy CUR) and Data Exports (CUR 2.0, FOCUS).
//!
//! An export that is listed lies where the list says, whoever may read it there. Asking costs nothing.
//!
//! <https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_cur_DescribeReportDefinitions.html>,
//! <https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_DataExports_ListExports.html>

use super::{ApiError, Caller, MAX_PAGES, Operation};
use crate::export::ExportError;
use contracts::costs::ExportLocation;
use serde::Deserialize;
use serde_json::json;

/// The host of Data Exports.
pub(super) const DATA_EXPORTS: &str = "bcm-data-exports";

static DESCRIBE_REPORT_DEFINITIONS: Operation = Operation {
    permission: "cur:DescribeReportDefinitions",
    service: "cur",
    host: "cur",
    target: "AWSOrigamiServiceGatewayService.DescribeReportDefinitions",
};
static LIST_EXPORTS: Operation = Operation {
    permission: "bcm-data-exports:ListExports",
    service: DATA_EXPORTS,
    host: DATA_EXPORTS,
    target: "AWSBillingAndCostManagementDataExports.ListExports",
};
static GET_EXPORT: Operation = Operation {
    permission: "bcm-data-exports:GetExport",
    service: DATA_EXPORTS,
    host: DATA_EXPORTS,
    target: "AWSBillingAndCostManagementDataExports.GetExport",
};

/// Where an export is delivered to. Its format and compression are told by its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The bucket, and the folder of this export alone.
    pub location: ExportLocation,
    /// The bucket's region, as the list has it.
    pub region: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definitions {
    #[serde(default)]
    report_definitions: Vec<Definition>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    report_name: String,
    #[serde(flatten)]
    destination: Destination,
}

#[derive(Deserialize)]
struct Destination {
    #[serde(rename = "S3Bucket")]
    bucket: String,
    #[serde(rename = "S3Prefix", default)]
    prefix: String,
    #[serde(rename = "S3Region")]
    region: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exports {
    #[serde(default)]
    exports: Vec<Reference>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reference {
    export_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Got {
    export: Export,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Export {
    name: String,
    destination_configurations: Destinations,
    data_query: Option<DataQuery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DataQuery {
    query_statement: String,
}

impl Export {
    /// Data Exports also delivers recommendations, emissions and dashboards, which are no costs
    /// (<https://docs.aws.amazon.com/cur/latest/userguide/dataexports-table-dictionary.html>).
    fn tells_costs(&self) -> bool {
        let Some(DataQuery { query_statement }) = &self.data_query else { return true };
        let words: Vec<_> = query_statement.split_whitespace().map(str::to_ascii_uppercase).collect();
        let tables = words.windows(2).filter_map(|pair| pair.strip_prefix(["FROM".to_owned()].as_slice())?.first());
        let mut tables = tables.map(|table| table.trim_matches(['"', '`', ';']));
        tables.any(|table| table == "COST_AND_USAGE_REPORT" || table.starts_with("FOCUS"))
    }
}

#[derive(Deserialize)]
struct Destinations {
    #[serde(rename = "S3Destination")]
    s3: Destination,
}

/// The legacy reports of an account.
///
/// # Errors
/// When they could not be listed.
pub async fn definitions(caller: &Caller<'_>) -> Result<Vec<Listed>, ExportError> {
    let (mut found, mut token) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page: Definitions = caller.call(&DESCRIBE_REPORT_DEFINITIONS, &page(token.as_deref())).await?;
        found.extend(page.report_definitions.into_iter().map(|report| listed(report.destination, &report.report_name)));
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
    Err(too_many(&DESCRIBE_REPORT_DEFINITIONS))
}

/// The Data Exports of an account that tell costs.
///
/// # Errors
/// When they could not be listed.
pub async fn data_exports(caller: &Caller<'_>) -> Result<Vec<Listed>, ExportError> {
    let (mut found, mut token) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page: Exports = caller.call(&LIST_EXPORTS, &page(token.as_deref())).await?;
        for Reference { export_arn } in page.exports {
            let Got { export } = caller.call(&GET_EXPORT, &json!({ "ExportArn": export_arn })).await?;
            if export.tells_costs() {
                found.push(listed(export.destination_configurations.s3, &export.name));
            }
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
    Err(too_many(&LIST_EXPORTS))
}

fn page(token: Option<&str>) -> serde_json::Value {
    token.map_or_else(|| json!({}), |token| json!({ "NextToken": token }))
}

fn too_many(operation: &'static Operation) -> ExportError {
    let why = format!("it has more than {MAX_PAGES} pages");
    ApiError::BadAnswer { permission: operation.permission, why }.into()
}

fn listed(destination: Destination, name: &str) -> Listed {
    let prefix = destination.prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    Listed { location: ExportLocation { bucket: destination.bucket, prefix }, region: destination.region }
}
