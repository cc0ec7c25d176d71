//! Every step of a broker's that is about one principal goes through here, is written down, and can be held: calls to AWS, and writes on the bus.
//!
//! A step is held before it has an effect, or after it, with its answer, until the gate lets go of it. Everything else of the broker goes on meanwhile, other
//! requests about the same principal too.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use contracts::TenantId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::trouble::{forward, read_request};

/// When a step is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Nothing of it has happened.
    Before,
    /// It is done, and nobody was told.
    After,
}

/// Steps that change something: AWS's actions, a write into the principal's record, an event about it.
pub(crate) fn has_effect(step: &str) -> bool {
    !["Get", "List", "Decrypt", "Encrypt", "AssumeRole"].iter().any(|reading| step.starts_with(reading))
}

/// Which step is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Counted from nought, over all steps.
    Number(usize),
    /// The so-manieth of this name, counted from nought.
    Named(&'static str, usize),
}

#[derive(Debug, Default)]
struct State {
    steps: Vec<String>,
    held: Option<(Which, When)>,
}

#[derive(Debug)]
struct Inner {
    tenant: TenantId,
    state: Mutex<State>,
    /// Whether the step to be held has come.
    reached: watch::Sender<bool>,
    /// How often what was held was let go of, and whether it goes on then.
    let_go: watch::Sender<(u64, bool)>,
}

/// Two doors, to AWS and to the bus. They end with the test's runtime.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    inner: Arc<Inner>,
    aws: SocketAddr,
    nats: SocketAddr,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Gate {
    /// In front of `aws` (`http://host:port`) and `nats` (`nats://host:port`), for what is about `tenant`.
    pub(crate) async fn before(aws: &str, nats: &str, tenant: TenantId) -> Self {
        let inner = Inner {
            tenant,
            state: Mutex::default(),
            reached: watch::Sender::new(false),
            let_go: watch::Sender::new((0, true)),
        };
        let inner = Arc::new(inner);
        let ((to_aws, aws_address), (to_nats, nats_address)) = (listen().await, listen().await);
        let target = aws.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let all = inner.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = to_aws.accept().await {
                let (all, target) = (all.clone(), target.clone());
                // Either side may hang up: it may be killed.
                tokio::spawn(async move { drop(all.aws(connection, &target).await) });
            }
        });
        let target = nats.trim_start_matches("nats://").to_owned();
        let all = inner.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = to_nats.accept().await {
                let (all, target) = (all.clone(), target.clone());
                tokio::spawn(async move { drop(all.nats(connection, &target).await) });
            }
        });
        Self { inner, aws: aws_address, nats: nats_address }
    }

    /// What a broker is told so that it goes through here.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [("AWS_ENDPOINT_URL", format!("http://{}", self.aws)), ("ROLEBRIDGE_NATS_URL", format!("nats://{}", self.nats))]
    }

    /// Forgets the steps so far, and holds this one of those to come.
    pub(crate) fn hold(&self, held: Option<(Which, When)>) {
        *self.inner.state.lock().unwrap() = State { steps: Vec::new(), held };
        self.inner.reached.send_replace(false);
    }

    /// Holds nothing any more. What was held goes on, or is dropped with whoever had asked.
    pub(crate) fn let_go(&self, goes_on: bool) {
        self.inner.state.lock().unwrap().held = None;
        self.inner.let_go.send_modify(|(times, on)| (*times, *on) = (*times + 1, goes_on));
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.inner.state.lock().unwrap().steps.clone()
    }

    /// Whether the step came within the time.
    pub(crate) async fn reached(&self, within: Duration) -> bool {
        let mut reached = self.inner.reached.subscribe();
        tokio::time::timeout(within, reached.wait_for(|reached| *reached)).await.is_ok()
    }
}

impl Inner {
    /// Writes the step down; says whether it is to be held.
    fn comes(&self, step: String) -> Option<When> {
        let mut state = self.state.lock().unwrap();
        let named = state.steps.iter().filter(|before| **before == step).count();
        let is_it = |which| match which {
            Which::Number(number) => number == state.steps.len(),
            Which::Named(name, number) => name == step && number == named,
        };
        let held = state.held.filter(|(which, _)| is_it(*which)).map(|(_, when)| when);
        state.steps.push(step);
        held
    }

    /// Until it is let go of.
    async fn is_held(&self) -> std::io::Result<()> {
        let mut let_go = self.let_go.subscribe();
        let_go.mark_unchanged();
        self.reached.send_replace(true);
        let_go.changed().await.map_err(std::io::Error::other)?;
        let (_, goes_on) = *let_go.borrow();
        if goes_on { Ok(()) } else { Err(std::io::ErrorKind::ConnectionAborted.into()) }
    }

    async fn aws(&self, mut connection: TcpStream, target: &str) -> std::io::Result<()> {
        let Some((request, head)) = read_request(&mut connection).await? else { return Ok(()) };
        let held = self.action(&request, head).and_then(|action| self.comes(action));
        if held == Some(When::Before) {
            self.is_held().await?;
        }
        let answer = forward(&request, head, target).await?;
        if held == Some(When::After) {
            self.is_held().await?;
        }
        connection.write_all(&answer).await?;
        connection.shutdown().await
    }

    /// What is asked, if it is about the tenant: in the form of IAM and STS, or in the headers of KMS.
    fn action(&self, request: &[u8], head: usize) -> Option<String> {
        let (head, body) = (String::from_utf8_lossy(&request[..head]), String::from_utf8_lossy(&request[head..]));
        if !body.contains(&self.tenant.to_string()) {
            return None;
        }
        let form = body.split('&').find_map(|part| part.trim().strip_prefix("Action="));
        let header = head.lines().find_map(|line| line.split_once("TrentService.").map(|(_, action)| action.trim()));
        form.or(header).map(ToOwned::to_owned)
    }

    async fn nats(self: Arc<Self>, client: TcpStream, target: &str) -> std::io::Result<()> {
        let server = TcpStream::connect(target).await?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let (acknowledgement, awaited) = watch::channel(None);
        let down = tokio::spawn(answers(self.clone(), from_server, to_client, awaited));
        let up = self.publications(from_client, to_server, acknowledgement).await;
        down.abort();
        up
    }

    /// From the client to the server. What is held is held by itself: the others of this connection overtake it.
    async fn publications(
        self: &Arc<Self>,
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        acknowledgement: watch::Sender<Option<String>>,
    ) -> std::io::Result<()> {
        let (mut from, to) = (BufReader::new(from), Arc::new(tokio::sync::Mutex::new(to)));
        while let Some((line, bytes)) = operation(&mut from).await? {
            let held = self.write(&line).and_then(|step| self.comes(step));
            match held {
                Some(When::Before) => {
                    let (this, to) = (self.clone(), to.clone());
                    tokio::spawn(async move {
                        this.is_held().await?;
                        to.lock().await.write_all(&bytes).await
                    });
                    continue;
                }
                Some(When::After) => drop(acknowledgement.send_replace(words(&line).nth(2).map(str::to_owned))),
                None => {}
            }
            to.lock().await.write_all(&bytes).await?;
        }
        Ok(())
    }

    /// What is written, if it is about the tenant.
    fn write(&self, line: &str) -> Option<String> {
        let mut words = words(line);
        let publishes = matches!(words.next()?, "PUB" | "HPUB");
        let subject = words.next().filter(|_| publishes)?;
        if subject == format!("$KV.rolebridge-principals.{}", self.tenant) {
            return Some("record".to_owned());
        }
        let (about, tenant) = subject.strip_prefix("rolebridge.events.v1.")?.rsplit_once('.')?;
        (tenant == self.tenant.to_string()).then(|| format!("event {about}"))
    }
}

/// From the server to the client; the acknowledgement that is `awaited` comes when the gate is opened.
async fn answers(
    gate: Arc<Inner>,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    awaited: watch::Receiver<Option<String>>,
) -> std::io::Result<()> {
    let (mut from, to) = (BufReader::new(from), Arc::new(tokio::sync::Mutex::new(to)));
    while let Some((line, bytes)) = operation(&mut from).await? {
        let subject = words(&line).nth(1).filter(|_| line.starts_with("MSG") || line.starts_with("HMSG"));
        if subject.is_some() && subject == awaited.borrow().as_deref() {
            let (gate, to) = (gate.clone(), to.clone());
            tokio::spawn(async move {
                gate.is_held().await?;
                to.lock().await.write_all(&bytes).await
            });
            continue;
        }
        to.lock().await.write_all(&bytes).await?;
    }
    Ok(())
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
}

/// One operation of NATS's protocol: its line, and all its bytes with the payload, whose length is the line's last word.
async fn operation(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    if ["PUB ", "HPUB ", "MSG ", "HMSG "].iter().any(|verb| line.starts_with(verb)) {
        let length: usize = words(&line).last().unwrap().parse().unwrap();
        let head = bytes.len();
        bytes.resize(head + length + 2, 0);
        from.read_exact(&mut bytes[head..]).await?;
    }
    Ok(Some((line, bytes)))
}
