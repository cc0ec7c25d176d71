//! Harmless reads, signed and sent without an SDK of their own: two requests do not pay for the code of two services.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws::{Failure, FailureKind, SdkConfig, Unclear, traced};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use contracts::Region;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, redirect};

use super::Reads;
use crate::{
    purpose::Read,
    sts::{Answer, Keys},
};

const TIMEOUT: Duration = Duration::from_secs(4);
/// Of an answer that says no; a listing of one name is not read at all.
const MOST_BODY: usize = 64 * 1024;
/// What a query keeps as it is in a signature of version 4.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// There is no HTTP client to be had: no TLS roots on this machine.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client could be made")]
pub struct UnusableHttp(#[source] reqwest::Error);

/// S3 and the cost reports themselves, or what `AWS_ENDPOINT_URL` names.
#[derive(Debug, Clone)]
pub struct RealReads {
    http: reqwest::Client,
    endpoint: Option<String>,
}

/// One request before it is signed.
struct Unsigned {
    method: Method,
    url: String,
    service: &'static str,
    region: String,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
}

impl RealReads {
    /// # Errors
    /// When this machine has no TLS roots.
    pub fn new(sdk: &SdkConfig) -> Result<Self, UnusableHttp> {
        // An answer that points elsewhere is none: the keys of a customer go nowhere else.
        let http = reqwest::Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT).build();
        let endpoint = sdk.endpoint_url().map(|url| url.trim_end_matches('/').to_owned());
        Ok(Self { http: http.map_err(UnusableHttp)?, endpoint })
    }

    fn request(&self, read: &Read, region: &Region) -> Option<Unsigned> {
        let suffix = match region.partition().as_str() {
            "aws-cn" => "amazonaws.com.cn",
            _ => "amazonaws.com",
        };
        match read {
            Read::ListObjects { bucket, prefix } => {
                let host = format!("https://s3.{region}.{suffix}");
                let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                let prefix = utf8_percent_encode(&folder, QUERY);
                let query = if folder.is_empty() { String::new() } else { format!("&prefix={prefix}") };
                Some(Unsigned {
                    method: Method::GET,
                    // With the bucket in the path: a name with dots would not fit the certificate.
                    url: format!("{}/{bucket}?list-type=2&max-keys=1{query}", self.endpoint.as_ref().unwrap_or(&host)),
                    service: "s3",
                    region: region.to_string(),
                    headers: Vec::new(),
                    body: "",
                })
            }
            Read::ReportDefinitions => {
                // One endpoint for each partition that has the service.
                let home = match region.partition().as_str() {
                    "aws" => "us-east-1",
                    "aws-cn" => "cn-northwest-1",
                    _ => return None,
                };
                let host = format!("https://cur.{home}.{suffix}");
                Some(Unsigned {
                    method: Method::POST,
                    url: format!("{}/", self.endpoint.as_ref().unwrap_or(&host)),
                    service: "cur",
                    region: home.to_owned(),
                    headers: vec![
                        ("content-type", "application/x-amz-json-1.1"),
                        ("x-amz-target", "AWSOrigamiServiceGatewayService.DescribeReportDefinitions"),
                    ],
                    body: r#"{"MaxResults":5}"#,
                })
            }
        }
    }

    async fn send(&self, keys: &Keys, request: &Unsigned) -> Result<Response, Failure> {
        let not_sent = || Failure::new(FailureKind::Indeterminate(Unclear::NotSent), None);
        let signed = self.signed(keys, request).ok_or_else(not_sent)?;
        signed.send().await.map_err(|error| {
            let why = if error.is_timeout() { Unclear::TimedOut } else { Unclear::Unreachable };
            Failure::new(FailureKind::Indeterminate(why), None)
        })
    }

    fn signed(&self, keys: &Keys, request: &Unsigned) -> Option<RequestBuilder> {
        let mut settings = SigningSettings::default();
        if request.service == "s3" {
            // S3 signs paths as they are, and wants the body's hash in a header.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let identity = Identity::from(keys.for_sdk());
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&request.region)
            .name(request.service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .ok()?
            .into();
        let body = SignableBody::Bytes(request.body.as_bytes());
        let headers = request.headers.iter().copied();
        let signable = SignableRequest::new(request.method.as_str(), request.url.as_str(), headers, body).ok()?;
        let (signature, _) = sign(signable, &params).ok()?.into_parts();
        let mut builder = self.http.request(request.method.clone(), &request.url).body(request.body);
        for (name, value) in request.headers.iter().copied().chain(signature.headers()) {
            builder = builder.header(name, value);
        }
        Some(builder)
    }
}

#[async_trait]
impl Reads for RealReads {
    async fn read(&self, keys: &Keys, region: &Region, read: &Read) -> Result<Answer<()>, Failure> {
        let operation = match read {
            Read::ListObjects { .. } => ("S3", "ListObjectsV2"),
            Read::ReportDefinitions => ("CostAndUsageReport", "DescribeReportDefinitions"),
        };
        traced(operation.0, operation.1, async {
            let nowhere = || Failure::new(FailureKind::Indeterminate(Unclear::NotSent), None);
            let mut response = self.send(keys, &self.request(read, region).ok_or_else(nowhere)?).await?;
            // A bucket may lie in another region than the stack: S3 says where, once.
            if let Some(home) = header(&response, "x-amz-bucket-region").and_then(|text| Region::parse(&text).ok())
                && !response.status().is_success()
                && home != *region
                && home.partition() == region.partition()
            {
                response = self.send(keys, &self.request(read, &home).ok_or_else(nowhere)?).await?;
            }
            judge(response).await
        })
        .await
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn judge(mut response: Response) -> Result<Answer<()>, Failure> {
    let request_id = header(&response, "x-amz-request-id").or_else(|| header(&response, "x-amzn-requestid"));
    if response.status().is_success() {
        return Ok(Answer { value: (), request_id });
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BODY {
            break;
        }
    }
    let code = error_code(&String::from_utf8_lossy(&body));
    Err(Failure::answered(response.status().as_u16(), code, request_id))
}

/// S3 says it in XML, and the cost reports in JSON, where a code may have a namespace before it and its refusals another name.
fn error_code(body: &str) -> Option<String> {
    let in_xml =
        body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.to_owned());
    let in_json = || {
        let json: serde_json::Value = serde_json::from_str(body).ok()?;
        let text = json.get("__type")?.as_str()?;
        Some(text.rsplit('#').next().unwrap_or(text).to_owned())
    };
    let code = in_xml.or_else(in_json)?;
    let plain = !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    plain.then(|| if code == "AccessDeniedException" { "AccessDenied".to_owned() } else { code })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
