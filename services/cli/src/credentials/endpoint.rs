//! The loopback endpoint that AWS SDKs ask for credentials, as their
//! [container credentials provider](https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html) does.
//!
//! Whoever can connect is a stranger: every process of the machine, and every page in a browser that has made its own name point to 127.0.0.1. So the request must name this address as its host, and
//! bear the token; a request that does not learns nothing but that.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use client::{CachedCredentials, CredentialsError, IssueError, Session};
use contracts::{ErrorCode, credentials::SecretText};
use messaging::RequestError;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::environment::{TOKEN, TOKEN_FILE, URI};
use crate::error::CliError;

const PATH: &str = "/credentials";
/// Fewer characters are guessed too easily.
const SHORTEST_TOKEN: usize = 16;
/// How long answers in hand are waited for at the end.
const LAST_ANSWERS: std::time::Duration = std::time::Duration::from_secs(5);

/// What a request must bear in `Authorization`.
#[derive(Debug, Clone)]
pub(super) enum Token {
    /// Made for this run: 244 random bits.
    Random(SecretText),
    /// What stands in the file at the time of the request: SDKs read it each time, too.
    File(PathBuf),
}

impl Token {
    pub(super) fn random() -> Self {
        let half = || Uuid::new_v4().simple().to_string();
        Self::Random(SecretText::new(half() + &half()))
    }

    /// # Errors
    /// When the file cannot be read, or holds what SDKs would refuse to send.
    pub(super) async fn file(path: PathBuf) -> Result<Self, CliError> {
        read(&path).await.map(|_| Self::File(path))
    }

    /// Compares without telling by its time how much was alike.
    async fn is(&self, given: Option<&[u8]>) -> Result<bool, CliError> {
        let Some(given) = given else { return Ok(false) };
        let read;
        let token = match self {
            Self::Random(token) => token,
            Self::File(path) => {
                read = self::read(path).await?;
                &read
            }
        };
        Ok(token.expose().as_bytes().ct_eq(given).into())
    }
}

async fn read(path: &Path) -> Result<SecretText, CliError> {
    let wrong = |problem| CliError::TokenFile { path: path.to_owned(), problem };
    let text =
        tokio::fs::read_to_string(path).await.map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let token = SecretText::new(text);
    let text = token.expose();
    if text.contains(['\n', '\r']) {
        return Err(wrong("has a line end, and AWS SDKs refuse such a token: write it with printf %s"));
    }
    if text.len() < SHORTEST_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong("must hold 16 or more letters, digits and signs, without spaces"));
    }
    Ok(token)
}

/// A bound listener, so that a used port is an error at the start.
#[derive(Debug)]
pub(super) struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
    credentials: CachedCredentials,
}

struct Shared {
    host: String,
    token: Token,
    credentials: CachedCredentials,
}

impl Endpoint {
    /// On 127.0.0.1 at `port`; 0 takes a free one.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub(super) async fn bind(port: u16, token: Token, credentials: CachedCredentials) -> Result<Self, CliError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| CliError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, token, credentials })
    }

    /// The variables that an SDK needs to ask here.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let token = match &self.token {
            Token::Random(token) => (TOKEN, token.expose().to_owned()),
            Token::File(path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                (TOKEN_FILE, path.display().to_string())
            }
        };
        vec![(URI, format!("http://{}{PATH}", self.address)), token]
    }

    /// Serves, and has credentials at hand, until `shutdown`; requests in hand are finished.
    ///
    /// # Errors
    /// When the listener fails.
    pub(super) async fn serve(self, shutdown: CancellationToken) -> Result<(), CliError> {
        let Self { listener, address, token, credentials } = self;
        let shared = Arc::new(Shared { host: address.to_string(), token, credentials: credentials.clone() });
        let routes = Router::new().fallback(answer).with_state(shared);
        let ending = shutdown.clone();
        let server = axum::serve(listener, routes).with_graceful_shutdown(ending.cancelled_owned());
        let abandoned = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = server.into_future() => served.map_err(|source| CliError::Serve { address, source }),
            () = abandoned => Ok(()),
            () = credentials.keep_fresh() => Ok(()),
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // What it has in its body does not matter.
    let (asked, _) = request.into_parts();
    if let Err(refused) = check(&shared, &asked).await {
        return refused;
    }
    match shared.credentials.get().await {
        Ok(session) => reply(StatusCode::OK, &given(&session)),
        Err(error) => failure(&error),
    }
}

/// The address first, then the token: to whoever has none, every path looks alike.
async fn check(shared: &Shared, asked: &Parts) -> Result<(), Response> {
    let header = |name| single(&asked.headers, name);
    if header(header::HOST) != Some(shared.host.as_bytes()) {
        let message = "ask at the address that stands in AWS_CONTAINER_CREDENTIALS_FULL_URI";
        return Err(error(StatusCode::FORBIDDEN, "denied", message));
    }
    match shared.token.is(header(header::AUTHORIZATION)).await {
        Ok(true) => {}
        Ok(false) => {
            let message = "the token in the header Authorization is not this endpoint's: set AWS_CONTAINER_AUTHORIZATION_TOKEN as it was printed";
            return Err(error(StatusCode::UNAUTHORIZED, "denied", message));
        }
        Err(problem) => {
            complain(&problem);
            let message = "the endpoint cannot read its token file: see what it says of it";
            return Err(error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message));
        }
    }
    if asked.uri.path() != PATH {
        return Err(error(StatusCode::NOT_FOUND, "not-found", "credentials are at /credentials alone"));
    }
    if asked.method != Method::GET {
        let mut refused =
            error(StatusCode::METHOD_NOT_ALLOWED, "invalid-request", "credentials are asked for with GET");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
        return Err(refused);
    }
    Ok(())
}

/// The value of a header that stands there once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

fn given(session: &Session) -> Value {
    let credentials = &session.credentials;
    json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.expose(),
        "Token": credentials.session_token.expose(),
        "Expiration": credentials.expires_at,
        "RoleArn": session.about.role_arn,
    })
}

/// What an SDK shows to its user. The status tells it whether trying again may help.
fn failure(problem: &CredentialsError) -> Response {
    complain(problem);
    let (code, message) = match problem.issue() {
        Some(IssueError::Request(RequestError::Refused(reply))) => (reply.code, reply.message.clone()),
        Some(IssueError::Request(RequestError::Denied { .. })) => (ErrorCode::Denied, problem.to_string()),
        Some(IssueError::Request(RequestError::Malformed { .. })) => (ErrorCode::Internal, problem.to_string()),
        Some(IssueError::Request(_)) => (ErrorCode::Unavailable, problem.to_string()),
        Some(_) | None => (ErrorCode::Internal, problem.to_string()),
    };
    let status = u16::try_from(code.number()).ok().and_then(|number| StatusCode::from_u16(number).ok());
    error(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), code.as_str(), &message)
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    reply(status, &json!({ "code": code, "message": message }))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

/// For whoever started the endpoint: SDKs show little of what they are told.
#[allow(clippy::print_stderr, reason = "standard output holds the variables, and there is no log")]
fn complain(problem: &dyn std::error::Error) {
    eprintln!("rolebridge: credentials were not given: {problem}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_itself_and_nothing_else() {
        let token = Token::random();
        let Token::Random(text) = &token else { unreachable!("it was made just now") };
        let text = text.expose().to_owned();
        assert_eq!(text.len(), 64);
        assert!(token.is(Some(text.as_bytes())).await.unwrap());
        for wrong in
            [None, Some(""), Some(&text[1..]), Some("x"), Some(&*format!("{text} ")), Some(&*text.to_uppercase())]
        {
            assert_eq!(wrong == Some(&text), token.is(wrong.map(str::as_bytes)).await.unwrap(), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains(&text));
    }

    #[tokio::test]
    async fn a_token_file_that_sdks_would_refuse_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, said) in
            [("0123456789abcdef\n", "printf"), ("short", "16 or more"), ("0123456789 abcdefg", "spaces")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Token::file(path.clone()).await.unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains(text.trim()), "{error}");
        }
        std::fs::write(&path, "0123456789abcdef").unwrap();
        let token = Token::file(path.clone()).await.unwrap();
        assert!(token.is(Some(b"0123456789abcdef")).await.unwrap());
        std::fs::write(&path, "another-token-of-later").unwrap();
        assert!(token.is(Some(b"another-token-of-later")).await.unwrap(), "it is read anew");
        std::fs::remove_file(&path).unwrap();
        assert!(token.is(Some(b"another-token-of-later")).await.is_err());
    }
}
