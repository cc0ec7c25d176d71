//! The account's APIs of costs as AWS describes them: Cost Explorer, report definitions, Data Exports. Answers in pages, counts, refuses and throttles as it
//! is told, and adds up what it has answered. It knows one access key, and looks that the signature is made for the service that is asked.

use super::yard::ACCOUNT;
use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use cost_ingestion::api::{Apis, Retries};
use cost_ingestion::credentials::{CredentialError, CredentialSource, Credentials, Scope};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use url::Url;

const KEY: &str = "ASIABUREAU";

/// A cost: day, account, service, region, unblended, amortized.
pub type Cost = (String, String, &'static str, &'static str, &'static str, &'static str);

pub struct State {
    pub costs: Vec<Cost>,
    /// (bucket, prefix, name) of legacy reports, and of Data Exports.
    pub reports: Vec<(String, String, String)>,
    pub exports: Vec<(String, String, String)>,
    /// Names of exports that tell no costs.
    pub recommendations: BTreeSet<String>,
    /// Groups of one answer.
    pub page: usize,
    /// Reports, or exports, of one answer.
    pub list_page: usize,
    /// How many requests are throttled first.
    pub throttled: usize,
    /// Permissions that are refused.
    pub denied: BTreeSet<&'static str>,
    /// What was asked, throttled and refused requests among it.
    pub asked: Vec<(String, Value)>,
}

/// A running one. It ends with the test's runtime.
#[derive(Clone)]
pub struct Bureau {
    pub state: Arc<Mutex<State>>,
    pub url: Url,
}

/// Credentials that the bureau knows, for everybody.
struct Known;

#[async_trait]
impl CredentialSource for Known {
    async fn credentials(&self, _: Scope) -> Result<Credentials, CredentialError> {
        Ok(Credentials {
            access_key_id: KEY.to_owned(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            expires_at: OffsetDateTime::now_utc() + Duration::from_secs(3600),
        })
    }
}

impl Bureau {
    pub async fn start(costs: Vec<Cost>) -> Self {
        let state = State {
            costs,
            reports: Vec::new(),
            exports: Vec::new(),
            recommendations: BTreeSet::new(),
            page: 1000,
            list_page: 1000,
            throttled: 0,
            denied: BTreeSet::new(),
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::clone(&state);
        let app = axum::Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
            let (code, answer) = asked.lock().unwrap().answer(&headers, &body);
            async move { (code, answer.to_string()) }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { state, url }
    }

    pub fn apis(&self) -> Arc<Apis> {
        let retries = Retries { tries: 3, first: Duration::from_millis(1) };
        Arc::new(Apis::new(Arc::new(Known), Some(self.url.clone()), retries).unwrap())
    }

    /// Requests of this operation.
    pub fn asked(&self, operation: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|(asked, _)| asked == operation).map(|(_, body)| body.clone()).collect()
    }

    /// What the costs of a month (`2026-11`) are: unblended, amortized.
    pub fn total(&self, month: &str) -> (Decimal, Decimal) {
        let state = self.state.lock().unwrap();
        let of_month = state.costs.iter().filter(|cost| cost.0.starts_with(month));
        of_month.fold((Decimal::ZERO, Decimal::ZERO), |(a, b), cost| (a + decimal(cost.4), b + decimal(cost.5)))
    }
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

type Answer = (StatusCode, Value);

fn fault(code: &str) -> Answer {
    (StatusCode::BAD_REQUEST, json!({ "__type": format!("com.amazonaws#{code}"), "Message": "words of AWS" }))
}

impl State {
    fn answer(&mut self, headers: &HeaderMap, body: &[u8]) -> Answer {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let (target, signed) = (header("x-amz-target").to_owned(), header("authorization").to_owned());
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return fault("SerializationException") };
        self.asked.push((operation.clone(), body.clone()));
        let (service, permission) = match target.as_str() {
            "AWSInsightsIndexService.GetCostAndUsage" => ("ce", "ce:GetCostAndUsage"),
            "AWSOrigamiServiceGatewayService.DescribeReportDefinitions" => ("cur", "cur:DescribeReportDefinitions"),
            "AWSBillingAndCostManagementDataExports.ListExports" => {
                ("bcm-data-exports", "bcm-data-exports:ListExports")
            }
            "AWSBillingAndCostManagementDataExports.GetExport" => ("bcm-data-exports", "bcm-data-exports:GetExport"),
            _ => return fault("UnknownOperationException"),
        };
        let scope = format!("/us-east-1/{service}/aws4_request,");
        let known = signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={KEY}/")) && signed.contains(&scope);
        if !known || header("x-amz-security-token") != "token" {
            return fault("UnrecognizedClientException");
        }
        if self.denied.contains(permission) {
            return fault("AccessDeniedException");
        }
        if self.throttled > 0 {
            self.throttled -= 1;
            return fault("ThrottlingException");
        }
        match operation.as_str() {
            "GetCostAndUsage" => self.costs(&body),
            "DescribeReportDefinitions" => self.definitions(&body),
            "ListExports" => {
                let arns = self.exports.iter().map(|(_, _, name)| json!({ "ExportArn": name, "ExportName": name }));
                let (arns, next) = self.listed(&body, arns.collect());
                (StatusCode::OK, json!({ "Exports": arns, "NextToken": next }))
            }
            _ => self.export(&body),
        }
    }

    /// A page of a list, and the mark of the next one.
    fn listed(&self, body: &Value, all: Vec<Value>) -> (Vec<Value>, Option<String>) {
        let from = body["NextToken"].as_str().map_or(0, |token| token.strip_prefix("list-").unwrap().parse().unwrap());
        let next = (from + self.list_page < all.len()).then(|| format!("list-{}", from + self.list_page));
        (all.into_iter().skip(from).take(self.list_page).collect(), next)
    }

    fn definitions(&self, body: &Value) -> Answer {
        let definition = |(bucket, prefix, name): &(String, String, String)| {
            json!({ "ReportName": name, "TimeUnit": "DAILY", "Format": "Parquet", "Compression": "Parquet",
                "S3Bucket": bucket, "S3Prefix": prefix, "S3Region": "eu-west-1", "AdditionalSchemaElements": [] })
        };
        let (reports, next) = self.listed(body, self.reports.iter().map(definition).collect());
        (StatusCode::OK, json!({ "ReportDefinitions": reports, "NextToken": next }))
    }

    fn export(&self, body: &Value) -> Answer {
        let found = self.exports.iter().find(|(_, _, name)| body["ExportArn"] == name.as_str());
        let Some((bucket, prefix, name)) = found else { return fault("ResourceNotFoundException") };
        let output = json!({ "Format": "PARQUET", "Compression": "PARQUET", "OutputType": "CUSTOM" });
        let s3 = json!({ "S3Bucket": bucket, "S3Prefix": prefix, "S3Region": "eu-west-1", "S3OutputConfigurations": output });
        let table = if self.recommendations.contains(name) {
            "COST_OPTIMIZATION_RECOMMENDATIONS"
        } else {
            "COST_AND_USAGE_REPORT"
        };
        let query = json!({ "QueryStatement": format!("SELECT a, b\nFROM {table}") });
        let export = json!({ "Name": name, "DataQuery": query, "DestinationConfigurations": { "S3Destination": s3 } });
        (StatusCode::OK, json!({ "Export": export }))
    }

    /// Groups of all times in one row, of which a page shows so many.
    fn costs(&self, body: &Value) -> Answer {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (start, end) = (text(&body["TimePeriod"]["Start"]), text(&body["TimePeriod"]["End"]));
        let by: Vec<String> = body["GroupBy"].as_array().unwrap().iter().map(|by| text(&by["Key"])).collect();
        if by.len() > 2 || body["Metrics"].as_array().unwrap().len() != 3 {
            return fault("ValidationException");
        }
        let account = body["Filter"]["Dimensions"]["Values"][0].as_str();
        let daily = body["Granularity"] == "DAILY";
        let mut groups: BTreeMap<(String, Vec<String>), (Decimal, Decimal)> = BTreeMap::new();
        for (day, linked, service, region, unblended, amortized) in &self.costs {
            if *day < start || *day >= end || account.is_some_and(|account| account != linked) {
                continue;
            }
            let key = |by: &String| match by.as_str() {
                "SERVICE" => (*service).to_owned(),
                "REGION" => (*region).to_owned(),
                _ => linked.clone(),
            };
            let time = if daily { day.clone() } else { format!("{}-01", &day[..7]) };
            let sum = groups.entry((time, by.iter().map(key).collect())).or_default();
            *sum = (sum.0 + decimal(unblended), sum.1 + decimal(amortized));
        }
        let from = body["NextPageToken"].as_str().map_or(0, |token| token.parse::<usize>().unwrap());
        let mut times: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for ((time, keys), (unblended, amortized)) in groups.iter().skip(from).take(self.page) {
            let usd = |amount: &Decimal| json!({ "Amount": amount.to_string(), "Unit": "USD" });
            let quantity = json!({ "Amount": "24", "Unit": "N/A" });
            times.entry(time.clone()).or_default().push(json!({ "Keys": keys,
                "Metrics": { "UnblendedCost": usd(unblended), "AmortizedCost": usd(amortized), "UsageQuantity": quantity } }));
        }
        let next = (from + self.page < groups.len()).then(|| (from + self.page).to_string());
        let times = times.into_iter().map(|(time, groups)| {
            json!({ "TimePeriod": { "Start": time, "End": day_after(&time) }, "Total": {}, "Groups": groups, "Estimated": true })
        });
        let times: Vec<_> = times.collect();
        (StatusCode::OK, json!({ "ResultsByTime": times, "NextPageToken": next, "DimensionValueAttributes": [] }))
    }
}

fn day_after(day: &str) -> String {
    let date = time::Date::parse(day, &time::format_description::well_known::Iso8601::DATE).unwrap();
    date.next_day().unwrap().to_string()
}

/// The first day of this month, and of the one before.
pub fn months() -> [String; 2] {
    let first = OffsetDateTime::now_utc().date().replace_day(1).unwrap();
    [first, first.previous_day().unwrap().replace_day(1).unwrap()].map(|day| day.to_string())
}

/// Costs of the connection's account in this month and the last, with all the digits that AWS gives.
pub fn costs() -> Vec<Cost> {
    let [this, last] = months();
    let cost = |day: &String, service, region, unblended, amortized| {
        (day.clone(), ACCOUNT.to_owned(), service, region, unblended, amortized)
    };
    vec![
        cost(&this, "Amazon Elastic Compute Cloud - Compute", "eu-central-1", "12.3456789012", "10.0000000001"),
        cost(&this, "Amazon Elastic Compute Cloud - Compute", "us-east-1", "0.0000000003", "0.0000000003"),
        cost(&this, "Amazon Simple Storage Service", "NoRegion", "0.0734", "0.0734"),
        cost(&this, "A \"quoted\", company's service", "global", "-1.5", "-1.5"),
        cost(&this, "Tax", "NoRegion", "0.19", "0.19"),
        cost(&last, "Amazon Simple Storage Service", "eu-central-1", "3.3333333333", "3.3333333333"),
        cost(&last, "AWS Key Management Service", "eu-central-1", "1", "1"),
    ]
}
