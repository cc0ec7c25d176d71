//! A stand-in for STS that grants everything, up to so many calls a second, and counts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;

/// The broker asks at its start whose credentials it has.
const WHO: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Account>111111111111</Account>\
    <Arn>arn:aws:iam::111111111111:user/bench</Arn><UserId>AIDABENCH</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>";

/// What it has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// When calls came, the refused ones too.
    pub calls: Vec<Instant>,
    pub throttled: usize,
    within: VecDeque<Instant>,
}

/// As AWS does: a bucket of a second's worth of calls, filled at the rate.
struct Sts {
    per_second: usize,
    seen: Arc<Mutex<Seen>>,
}

/// Serves until the runtime ends; gives its URL.
///
/// # Errors
/// No port.
pub async fn serve(per_second: usize, seen: Arc<Mutex<Seen>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new().route("/", post(answer)).with_state(Arc::new(Sts { per_second, seen }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

async fn answer(State(sts): State<Arc<Sts>>, body: String) -> Response {
    if body.contains("Action=GetCallerIdentity") {
        return ([(CONTENT_TYPE, "text/xml")], WHO).into_response();
    }
    let now = Instant::now();
    {
        let mut seen = sts.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.calls.push(now);
        while seen.within.front().is_some_and(|at| now.duration_since(*at) > Duration::from_secs(1)) {
            seen.within.pop_front();
        }
        if seen.within.len() >= sts.per_second {
            seen.throttled += 1;
            let body =
                "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
            return (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "text/xml")], body).into_response();
        }
        seen.within.push_back(now);
    }
    let expiration = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(3600));
    let expiration = expiration.format(&Rfc3339).unwrap_or_default();
    let body = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials><AccessKeyId>ASIABENCH</AccessKeyId>\
         <SecretAccessKey>bench</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{expiration}</Expiration></Credentials></AssumeRoleResult>\
         </AssumeRoleResponse>",
        "t".repeat(400)
    );
    ([(CONTENT_TYPE, "text/xml")], body).into_response()
}
