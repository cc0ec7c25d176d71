//! AWS in trouble: stands between a service and the emulator, and spoils what is asked of STS.
//!
//! It also hears what AWS tells: the search for secrets learns from it which there are.
//!
//! Requests are handed on byte for byte (the Host header is signed), one a connection. Only `AssumeRole` is spoiled by the plan, so that services still start;
//! an outage is all of STS, from when it begins until it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What may become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Throttled,
    ServerError,
    /// The connection ends without a word.
    Reset,
    /// Status 200, and what is no answer of STS.
    Garbage,
    /// STS has done it, and half of its answer arrives.
    CutReply,
}

impl Fault {
    pub const ALL: [Self; 5] = [Self::Throttled, Self::ServerError, Self::Reset, Self::Garbage, Self::CutReply];
}

/// How STS is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Every connection ends without a word.
    Closed,
    /// Whoever asks hears nothing; when it is over, those who still wait are answered.
    Silent,
}

#[derive(Debug, Default)]
struct Plan {
    /// Calls of `AssumeRole` that are still to be spoiled.
    left: usize,
    spoiled: BTreeMap<Fault, usize>,
    /// What stood between the tags of [`SECRETS`] in answers.
    heard: BTreeSet<String>,
    /// Requests that came during an outage.
    turned_away: usize,
}

/// The secrets in the answers of IAM and STS.
const SECRETS: [&str; 2] = ["SecretAccessKey", "SessionToken"];

/// A listening proxy; it ends with the runtime that started it.
#[derive(Debug, Clone)]
pub struct FaultyAws {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    outage: watch::Sender<Option<Outage>>,
    /// Seconds by which AWS's clock is ahead, as its answers have it.
    ahead_s: AtomicI64,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultyAws {
    /// In front of `upstream` (`http://host:port`); the first `spoiled` calls of `AssumeRole` fail, each in the next way of [`Fault::ALL`].
    ///
    /// # Errors
    /// No port, or `upstream` is no such URL.
    pub async fn start(upstream: &str, spoiled: usize) -> Result<Self> {
        let upstream: SocketAddr =
            upstream.strip_prefix("http://").context("an http URL")?.trim_end_matches('/').parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let plan = Mutex::new(Plan { left: spoiled, ..Plan::default() });
        let shared = Arc::new(Shared { plan, outage: watch::Sender::new(None), ahead_s: AtomicI64::new(0) });
        let all = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is what this is for.
                let shared = all.clone();
                tokio::spawn(async move { drop(serve(stream, upstream, &shared).await) });
            }
        });
        Ok(Self { address, shared })
    }

    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Secret access keys and session tokens that AWS has told.
    #[must_use]
    pub fn heard(&self) -> BTreeSet<String> {
        self.shared.plan().heard.clone()
    }

    /// How many calls were spoiled, by how.
    #[must_use]
    pub fn spoiled(&self) -> BTreeMap<Fault, usize> {
        self.shared.plan().spoiled.clone()
    }

    /// Begins an outage, or ends it.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.shared.outage.send_replace(outage);
    }

    /// How many requests came during an outage.
    #[must_use]
    pub fn turned_away(&self) -> usize {
        self.shared.plan().turned_away
    }

    /// From now on the `Date` of every answer is so many seconds ahead.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.ahead_s.store(seconds, Ordering::Relaxed);
    }
}

impl Plan {
    fn hear(&mut self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        for tag in SECRETS {
            let begin = format!("<{tag}>");
            let parts = text.split(&begin).skip(1);
            self.heard.extend(parts.filter_map(|part| part.split_once("</")).map(|(secret, _)| secret.to_owned()));
        }
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, shared: &Shared) -> Result<()> {
    let request = read_request(&mut client).await?;
    let mut outage = shared.outage.subscribe();
    let away = *outage.borrow();
    if let Some(how) = away {
        shared.plan().turned_away += 1;
        match how {
            Outage::Closed => return Ok(()),
            Outage::Silent => drop(outage.wait_for(|now| *now != Some(Outage::Silent)).await?),
        }
    }
    let fault = String::from_utf8_lossy(&request).contains("Action=AssumeRole").then(|| next(&shared.plan)).flatten();
    let answer = match fault {
        None => {
            let answer = forward(&request, upstream).await?;
            shared.plan().hear(&answer);
            answer
        }
        Some(Fault::Reset) => return Ok(()),
        Some(Fault::CutReply) => {
            let whole = forward(&request, upstream).await?;
            whole.get(..whole.len() * 2 / 3).unwrap_or_default().to_vec()
        }
        Some(Fault::Throttled) => error_answer("400 Bad Request", "Throttling", "Rate exceeded"),
        Some(Fault::ServerError) => error_answer("503 Service Unavailable", "ServiceUnavailable", "try later"),
        Some(Fault::Garbage) => plain_answer("200 OK", "<html>It works!</html>"),
    };
    let ahead = shared.ahead_s.load(Ordering::Relaxed);
    let answer = if ahead == 0 { answer } else { dated(&answer, ahead)? };
    client.write_all(&answer).await?;
    Ok(client.shutdown().await?)
}

/// The answer with another `Date`, so many seconds from now.
fn dated(answer: &[u8], ahead_s: i64) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer")?;
    let (head, rest) = answer.split_at(end);
    let head = String::from_utf8(head.to_vec())?;
    let kept = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
    let date = (OffsetDateTime::now_utc() + time::Duration::seconds(ahead_s)).format(&Rfc2822)?.replace("+0000", "GMT");
    let date = format!("Date: {date}");
    let head = kept.chain([date.as_str()]).collect::<Vec<_>>().join("\r\n");
    Ok([head.as_bytes(), rest].concat())
}

fn next(plan: &Mutex<Plan>) -> Option<Fault> {
    let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
    plan.left = plan.left.checked_sub(1)?;
    let done: usize = plan.spoiled.values().sum();
    let fault = *Fault::ALL.get(done % Fault::ALL.len())?;
    *plan.spoiled.entry(fault).or_default() += 1;
    Some(fault)
}

/// One request, with a body of the length that it names.
async fn read_request(client: &mut TcpStream) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = client.read(&mut part).await?;
        anyhow::ensure!(read > 0, "the client left");
        request.extend_from_slice(part.get(..read).unwrap_or_default());
        let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(request.get(..head).unwrap_or_default()).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if request.len() >= head + 4 + length.unwrap_or_default() {
            return Ok(request);
        }
    }
}

/// Asks upstream on a connection of its own, which ends with the answer.
async fn forward(request: &[u8], upstream: SocketAddr) -> Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let line = request.windows(2).position(|window| window == b"\r\n").context("a request line")? + 2;
    let (first, rest) = request.split_at(line);
    // Not among the signed headers.
    server.write_all(&[first, b"Connection: close\r\n", rest].concat()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn error_answer(status: &str, code: &str, message: &str) -> Vec<u8> {
    let body = format!(
        r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>spoiled</RequestId></ErrorResponse>"#
    );
    plain_answer(status, &body)
}

fn plain_answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
