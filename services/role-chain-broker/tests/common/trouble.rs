//! A way to STS or KMS that goes wrong where it is told to: between the broker's own HTTP client and the emulator.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// AWS's own "too much", which comes with status 400.
    Throttled,
    ServerFault,
    /// A page of something in between, with a status that says that all is well.
    Garbage,
    /// The same with the status of a refusal.
    ForbiddenPage,
    /// The connection is closed without a word.
    Closed,
    /// No answer, ever.
    Silence,
    /// Done, but half of the reply is lost.
    Cut,
}

pub(crate) const ALL: [Trouble; 7] = [
    Trouble::Throttled,
    Trouble::ServerFault,
    Trouble::Garbage,
    Trouble::ForbiddenPage,
    Trouble::Closed,
    Trouble::Silence,
    Trouble::Cut,
];

/// Which requests meet it: those whose body `meets` says yes to.
struct Rule {
    trouble: Trouble,
    meets: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// The way. Dropping it does not end it: the test's runtime does.
#[derive(Clone)]
pub(crate) struct Way {
    address: SocketAddr,
    rules: Arc<Mutex<Vec<Rule>>>,
}

impl Way {
    /// To `endpoint`, which is `http://host:port`.
    pub(crate) fn to(endpoint: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let way = Self { address: listener.local_addr().unwrap(), rules: Arc::default() };
        let (rules, target) = (way.rules.clone(), endpoint.trim_start_matches("http://").to_owned());
        tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((connection, _)) = listener.accept().await {
                let (rules, target) = (rules.clone(), target.clone());
                // Either side may hang up: that is what this is for.
                tokio::spawn(async move { drop(serve(connection, &rules, &target).await) });
            }
        });
        way
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn when(&self, trouble: Trouble, meets: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.rules.lock().unwrap().push(Rule { trouble, meets: Box::new(meets) });
    }

    pub(crate) fn is_mended(&self) {
        self.rules.lock().unwrap().clear();
    }
}

/// One whole request, and where its head ends; nothing when the client has left.
pub(super) async fn read_request(connection: &mut TcpStream) -> std::io::Result<Option<(Vec<u8>, usize)>> {
    let mut request = Vec::new();
    let (head, length) = loop {
        if connection.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            break (end, length.unwrap_or(0));
        }
    };
    while request.len() < head + 4 + length {
        connection.read_buf(&mut request).await?;
    }
    Ok(Some((request, head)))
}

/// One request, one answer, and the connection ends: each call comes on its own.
async fn serve(mut connection: TcpStream, rules: &Mutex<Vec<Rule>>, target: &str) -> std::io::Result<()> {
    let Some((request, head)) = read_request(&mut connection).await? else { return Ok(()) };
    let body = String::from_utf8_lossy(&request[head + 4..]).into_owned();
    let trouble = rules.lock().unwrap().iter().find(|rule| (rule.meets)(&body)).map(|rule| rule.trouble);
    // KMS is asked, and answers, in JSON.
    let json = String::from_utf8_lossy(&request[..head]).to_lowercase().contains("x-amz-target: trentservice.");
    let error = |code: &str| match json {
        true => format!(r#"{{"__type":"{code}","message":"m"}}"#),
        false => format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>m</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        ),
    };
    let page = "<html><body>Sign in to the network</body></html>".to_owned();
    let (status, body) = match trouble {
        Some(Trouble::Throttled) => (400, error("Throttling")),
        Some(Trouble::ServerFault) => (503, error("AccessDenied")),
        Some(Trouble::Garbage) => (200, page),
        Some(Trouble::ForbiddenPage) => (403, page),
        Some(Trouble::Closed) => return Ok(()),
        Some(Trouble::Silence) => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return Ok(());
        }
        Some(Trouble::Cut) | None => {
            let answer = forward(&request, head, target).await?;
            let sent = if trouble.is_some() { &answer[..answer.len() - 100] } else { &answer[..] };
            connection.write_all(sent).await?;
            return connection.shutdown().await;
        }
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Word\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await
}

/// As it came: the signature covers the host that the client has called.
pub(super) async fn forward(request: &[u8], head: usize, target: &str) -> std::io::Result<Vec<u8>> {
    let mut there = TcpStream::connect(target).await?;
    there.write_all(&request[..head]).await?;
    there.write_all(b"\r\nconnection: close").await?;
    there.write_all(&request[head..]).await?;
    let mut answer = Vec::new();
    there.read_to_end(&mut answer).await?;
    Ok(answer)
}
