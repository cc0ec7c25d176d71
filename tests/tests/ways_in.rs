//! The ways to credentials beside raw NATS, as a job takes them: the command line's get, serve and exec, and Python with nothing of ours.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, path::Path, process::Stdio};

use common::{
    PATIENCE, World,
    job::{Job, ended, first_line, python_clients},
};
use contracts::credentials::{IssueRequest, SealedCredentials, SecretText};
use futures::StreamExt as _;
use messaging::seal::SealSeed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, StatusCode, header};
use sandbox::{NatsUser, REGION, Service};
use serde_json::{Value, json};
use tokio::process::Child;

const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_at_the_command_line() {
    let mut world = World::start().await;
    let job = Job::connect(&mut world).await;
    get_prints_credentials_only_when_asked_and_to_no_terminal(&job).await;
    serve_answers_whoever_has_the_token_and_nobody_else(&world, &job).await;
    serve_takes_its_token_from_a_file(&job).await;
    exec_leaves_one_way_to_credentials(&job).await;
    exec_is_transparent(&job).await;
    a_refusal_is_a_sentence_everywhere(&world, &job).await;
    world.system.stop().await.expect("it stops");
}

async fn get_prints_credentials_only_when_asked_and_to_no_terminal(job: &Job) {
    let (output, out, err) = ended(&mut job.credentials("get", &[])).await;
    assert!(output.status.success(), "{err}");
    for expected in [job.account.id(), "cost-read", REGION, "ASIA", &job.connection.to_string(), &job.sealing_key] {
        assert!(out.contains(expected), "{expected} is not in:\n{out}");
    }
    let (_, out, _) = ended(&mut job.credentials("get", &["--format", "json"])).await;
    let given: Value = serde_json::from_str(&out).expect("JSON");
    let secret = given["SecretAccessKey"].as_str().expect("a secret").to_owned();
    let (_, out, _) = ended(&mut job.credentials("get", &["--format", "env"])).await;
    assert!(out.lines().any(|line| line == format!("AWS_SECRET_ACCESS_KEY={secret}")), "the cached session");
    let (_, shown, _) = ended(&mut job.credentials("get", &["--json"])).await;
    assert!(!shown.contains(&secret) && shown.contains("remaining_s"));
    let (_, out, _) = ended(&mut job.credentials("get", &["--format", "shell-export"])).await;
    let script = format!("{out}\nprintf %s \"$AWS_SECRET_ACCESS_KEY\"");
    assert_eq!(ended(job.run("sh").args(["-c", &script])).await.1, secret);

    // On a terminal: Python makes one.
    let pty = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let at_terminal = async |way, more: &[&str]| {
        let mut command = job.run("python3");
        command.args(["-c", pty]).arg(&job.program).args(job.arguments(way)).args(more);
        let (output, out, _) = ended(&mut command).await;
        (output.status.code(), out)
    };
    for (way, more) in [("process", &[][..]), ("get", &["--format", "env"])] {
        let (status, out) = at_terminal(way, more).await;
        assert_eq!(status, Some(1), "{out}");
        assert!(out.contains("not printed to a terminal") && !out.contains(&secret), "{out}");
    }
    let (status, out) = at_terminal("get", &["--format", "env", "--show"]).await;
    assert!(status == Some(0) && out.contains(&secret), "{out}");
}

/// What the endpoint says to a request with these headers.
async fn ask(method: Method, uri: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request =
        headers.iter().fold(client.request(method, uri), |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let status = answer.status();
    (status, serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

async fn serve_answers_whoever_has_the_token_and_nobody_else(world: &World, job: &Job) {
    let (mut child, variables) = job.serve(&[]).await;
    let (uri, token) = (&*variables[URI], &*variables[TOKEN]);
    assert!(uri.starts_with("http://127.0.0.1:") && token.len() == 64);

    let (status, given) = ask(Method::GET, uri, &[("Authorization", token)]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(given["RoleArn"].as_str().expect("a role").contains(job.account.id()));
    let text = |name: &str| given[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
    let keys = aws_credential_types::Credentials::new(
        text("AccessKeyId"),
        text("SecretAccessKey"),
        Some(text("Token")),
        None,
        "served",
    );
    let identity = world.system.emulator.caller_identity(REGION, keys).await.expect("they are good");
    assert_eq!(identity.account, job.account.id());
    let (_, again) = ask(Method::GET, uri, &[("Authorization", token)]).await;
    assert_eq!((&again, !text("Expiration").is_empty()), (&given, true));

    // Whoever has no token learns nothing, not even which paths there are.
    let nearly = format!("{}{}", &token[..63], if token.ends_with('0') { '1' } else { '0' });
    let mut refusals = Vec::new();
    for (path, headers) in [
        ("", vec![]),
        ("", vec![("Authorization", "")]),
        ("", vec![("Authorization", &*nearly)]),
        ("", vec![("Authorization", &token[..63])]),
        ("", vec![("Authorization", token), ("Authorization", token)]),
        ("/elsewhere", vec![("Authorization", "x")]),
    ] {
        let (status, said) = ask(Method::GET, &format!("{uri}{path}"), &headers).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{headers:?}");
        refusals.push(said);
    }
    refusals.dedup();
    assert!(
        refusals.len() == 1 && refusals[0]["message"].as_str().expect("a sentence").contains(TOKEN),
        "{refusals:?}"
    );

    // A page whose name was made to point here still sends its own name.
    for host in ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1"] {
        let (status, _) = ask(Method::GET, uri, &[("Authorization", token), ("Host", host)]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host}");
    }
    for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::PUT] {
        let (status, _) = ask(method, uri, &[("Authorization", token)]).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(ask(Method::GET, &format!("{uri}/x"), &[("Authorization", token)]).await.0, StatusCode::NOT_FOUND);

    signal(&child, Signal::SIGTERM);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs").expect("its status");
    assert!(ended.success(), "{ended}");
    let address = uri.trim_start_matches("http://").trim_end_matches("/credentials");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
}

async fn serve_takes_its_token_from_a_file(job: &Job) {
    let file = job.home.path().join("token");
    std::fs::write(&file, "a-token-of-my-own").expect("a file");
    let path = file.display().to_string();
    let (child, variables) = job.serve(&["--token-file", &path]).await;
    assert_eq!(variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"], path);
    assert!(!variables.contains_key(TOKEN));
    let status = async |token| ask(Method::GET, &variables[URI], &[("Authorization", token)]).await.0;
    assert_eq!(status("a-token-of-my-own").await, StatusCode::OK);
    std::fs::write(&file, "another-one-of-later").expect("a file");
    assert_eq!(status("a-token-of-my-own").await, StatusCode::UNAUTHORIZED);
    assert_eq!(status("another-one-of-later").await, StatusCode::OK);
    drop(child);

    let (output, _, err) = ended(&mut job.credentials("serve", &["--listen", "0.0.0.0:0"])).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("127.0.0.1:PORT"), "{err}");
}

/// The environment that a program finds.
async fn environment(job: &Job, more: &[&str]) -> (BTreeMap<String, String>, String) {
    let mut command = job.credentials("exec", &[more, &["--", "env"]].concat());
    let poison = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN"];
    command.envs(poison.map(|name| (name, "of-somebody-else"))).env("AWS_DEFAULT_REGION", "us-east-2").env("KEPT", "1");
    let (output, out, err) = ended(&mut command).await;
    assert!(output.status.success(), "{err}");
    let lines = out.lines().filter_map(|line| line.split_once('='));
    (lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), err)
}

async fn exec_leaves_one_way_to_credentials(job: &Job) {
    let (found, said) = environment(job, &[]).await;
    assert!(found.values().all(|value| value != "of-somebody-else"), "{found:?}");
    assert!(found[URI].starts_with("http://127.0.0.1:") && found[TOKEN].len() == 64 && said.is_empty(), "{said}");
    assert!(!found.keys().any(|name| name.starts_with("ROLEBRIDGE_")), "{:?}", found.keys());
    assert_eq!(
        (&*found["AWS_REGION"], &*found["AWS_DEFAULT_REGION"], &*found["KEPT"]),
        ("us-east-2", "us-east-2", "1")
    );
    assert_eq!((&*found["AWS_CONFIG_FILE"], &*found["AWS_EC2_METADATA_DISABLED"]), ("/dev/null", "true"));

    let (found, said) = environment(job, &["--env", "--keep-aws-config", "--keep-rolebridge"]).await;
    assert!(
        found["AWS_ACCESS_KEY_ID"].starts_with("ASIA")
            && !found.contains_key(URI)
            && !found.contains_key("AWS_PROFILE")
    );
    assert!(found.contains_key("ROLEBRIDGE_NATS_SEED_FILE") && !found.contains_key("AWS_CONFIG_FILE"));
    assert!(said.contains("not renewed"), "{said}");
}

async fn exec_is_transparent(job: &Job) {
    let status = async |program: &[&str]| {
        let (output, _, err) = ended(&mut job.credentials("exec", &[&["--"], program].concat())).await;
        (output.status.code().expect("a status"), err)
    };
    assert_eq!(status(&["sh", "-c", "exit 7"]).await.0, 7);
    assert_eq!(status(&["sh", "-c", "kill -KILL $$"]).await.0, 128 + 9);
    let (missing, said) = status(&["no-such-program"]).await;
    assert!(missing == 127 && said.contains("no-such-program"), "{said}");
    assert_eq!(status(&["/dev/null"]).await.0, 126);
    let other_key = SealSeed::generate().expect("a key").public().to_string();
    let mut command = job.run(&job.program);
    command.args(
        job.arguments("exec").into_iter().map(|word| if word == job.sealing_key { other_key.clone() } else { word }),
    );
    let (output, _, err) = ended(command.args(["--", "echo", "it ran"])).await;
    assert!(output.status.code() == Some(125) && output.stdout.is_empty() && err.contains("pinned"), "{err}");

    for (sent, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done");
        let mut command = job.credentials("exec", &["--", "sh", "-c", &script]);
        // Not in the foreground of a terminal that these tests may have been started from.
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().expect("it starts");
        assert_eq!(first_line(child.stdout.take().expect("its output")).await, "ready");
        signal(&child, sent);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs").expect("its status");
        assert_eq!(ended.code(), Some(42), "{name}");
    }

    // At a terminal, with another standard input: the terminal interrupts the program itself, and nobody does so once more.
    let program = r#"n=0; trap 'n=$((n+1)); echo interrupted' INT; trap 'echo "$n times"; exit 42' TERM; echo ready; while :; do sleep 0.05; done"#;
    let mut command = job.run("python3");
    command.args(["-c", AT_TERMINAL]).arg(&job.program).args(job.arguments("exec")).args(["--", "sh", "-c", program]);
    let (output, out, err) = ended(&mut command).await;
    assert_eq!(output.status.code(), Some(42), "{out}{err}");
    assert!(out.contains("1 times"), "{out}");
}

/// Runs a program in the foreground of a terminal, with nothing on standard input; interrupts it from the terminal, and then ends it.
const AT_TERMINAL: &str = r#"
import os, pty, signal, sys
child, terminal = pty.fork()
if child == 0:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
def until(word):
    global said
    while word not in said:
        said += os.read(terminal, 1024)
until(b"ready")
os.write(terminal, b"\x03")
until(b"interrupted")
os.kill(child, signal.SIGTERM)
until(b"times")
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(said.decode())
sys.exit(status)
"#;

async fn a_refusal_is_a_sentence_everywhere(world: &World, job: &Job) {
    let (child, variables) = job.serve(&[]).await;
    let revoke = contracts::connection::RevokeConnection::subject(job.tenant, job.connection);
    let request = serde_json::from_value(json!({ "reason": "the contract ended" })).expect("a request");
    let revoked = world.bus.request::<contracts::connection::RevokeConnection>(revoke, &request, PATIENCE).await;
    revoked.expect("it is revoked");
    world.quiet().await;
    drop(child);
    drop(variables);
    let (_child, variables) = job.serve(&[]).await;
    let refused = common::until(PATIENCE, async || {
        let (status, said) = ask(Method::GET, &variables[URI], &[("Authorization", &variables[TOKEN])]).await;
        let sentence = said["message"].as_str().unwrap_or_default();
        status == StatusCode::PRECONDITION_FAILED
            && said["code"] == "not-verified"
            && sentence.contains("offer a new enrollment")
    });
    assert!(refused.await, "credentials are served after the revocation");
    for way in ["get", "process"] {
        let (output, out, err) = ended(&mut job.credentials(way, &[])).await;
        assert_eq!((output.status.code(), &*out, err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.contains("not-verified"), "{err}");
    }
    let (output, _, err) = ended(&mut job.credentials("exec", &["--", "echo", "it ran"])).await;
    assert!(output.status.code() == Some(125) && output.stdout.is_empty() && err.contains("not-verified"), "{err}");
}

/// The example for readers in other languages, run as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn python_needs_nothing_of_ours_but_the_contract() {
    let python = python_clients().await.join("python");
    let mut world = World::start().await;
    let job = Job::connect(&mut world).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/credentials.py");
    let seed = world.system.nats.seed_file(NatsUser::Job);
    let url = world.system.nats.url();
    let run = async |keys: &str, connection: &str| {
        let mut command = job.run(&python);
        command.arg(&example).args([&*url, "job"]).arg(&seed).args([keys, &job.tenant.to_string(), connection]);
        let (output, out, err) = ended(&mut command).await;
        (output.status.success(), out, err)
    };
    let (connection, key) = (job.connection.to_string(), &job.sealing_key);
    let (fine, out, err) = run(key, &connection).await;
    assert!(fine && out.starts_with(&format!("account {}: ASIA", job.account.id())), "{out}{err}");

    let other = SealSeed::generate().expect("a key");
    let (fine, out, err) = run(other.public().as_str(), &connection).await;
    assert!(!fine && out.is_empty() && err.contains("not pinned"), "{out}{err}");
    let (fine, _, err) = run(key, &job.tenant.to_string()).await;
    assert!(!fine && err.starts_with("not-found: "), "{err}");

    // A broker of a later version, with a new key that is pinned already beside the old one.
    world.system.service(Service::RoleChainBroker).expect("a service").terminate(PATIENCE).await.expect("it ends");
    let both = format!("{key},{}", other.public());
    let standing_in =
        tokio::spawn(later_broker(world.system.bus(NatsUser::RoleChainBroker).await.expect("a bus"), other));
    let answered = common::until(PATIENCE, async || run(&both, &connection).await.1.contains("ASIALATER"));
    assert!(answered.await, "fields of a later version are not passed over");
    standing_in.abort();
}

/// Answers by the contract, and with fields that it does not know yet, outside the box and in it.
async fn later_broker(bus: messaging::Bus, seed: SealSeed) {
    let mut asked = bus.client().subscribe("rolebridge.rpc.v1.credentials.issue.*.*.*").await.expect("it may");
    while let Some(message) = asked.next().await {
        let words: Vec<&str> = message.subject.split('.').collect();
        let (tenant, connection) = (words[6], words[7]);
        let request: IssueRequest = serde_json::from_slice(&message.payload).expect("a request of the contract");
        let expires_at = contracts::Timestamp::now().plus(std::time::Duration::from_secs(900));
        let inside = SealedCredentials {
            tenant: tenant.parse().expect("a tenant"),
            connection: connection.parse().expect("a connection"),
            purpose: contracts::credentials::Purpose::CostRead,
            access_key_id: "ASIALATER".to_owned(),
            secret_access_key: SecretText::new("secret".to_owned()),
            session_token: SecretText::new("token".to_owned()),
            expires_at,
            account: None,
            role_arn: None,
            region: None,
        };
        let mut inside = serde_json::to_value(&inside).expect("JSON");
        inside["scope_of_later"] = json!({ "regions": ["eu-central-1"] });
        let sealed = seed.seal(&request.requester_key, inside.to_string().as_bytes()).expect("a box");
        let answer = json!({
            "tenant": tenant, "connection": connection, "purpose": "cost-read", "account": "222222222222",
            "role_arn": "arn:aws:iam::222222222222:role/rolebridge/rolebridge-a", "region": "eu-central-1",
            "expires_at": expires_at, "broker_key": seed.public(), "sealed": sealed, "audit_of_later": ["x"],
        });
        let reply = message.reply.expect("a reply subject");
        bus.client().publish(reply, answer.to_string().into()).await.expect("it is sent");
    }
}
