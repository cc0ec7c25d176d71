//! Real AWS SDKs, through the end of a session: boto3, the AWS CLI, the SDK for JavaScript and the SDK for Rust get credentials by each of the ways in, use them, and go on by themselves when AWS
//! refuses what they held.
//!
//! The emulator gives sessions of seconds to customers' roles, whatever is asked for; everything else is as it always is. SDKs want more time left than such a session has and ask at each call, which is
//! their own answer to credentials that are about to end.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command as Blocking, Stdio},
    time::Duration,
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use client::Wanted;
use common::{
    PATIENCE, World,
    job::{Job, ended, python_clients},
    until,
};
use contracts::credentials::{Purpose, SealedCredentials};
use sandbox::{REGION, SystemOptions};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// How long sessions last: long enough for one call on a slow machine, once they are given out with this much left.
const SESSION_S: u32 = 10;
const LEFT_S: &str = "6";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Process,
    Serve,
    Exec,
}

/// How a client is started by one of the ways.
struct Start<'a> {
    job: &'a Job,
    way: Way,
    /// The endpoint, while it is served.
    served: Option<(Child, Vec<(String, String)>)>,
}

impl<'a> Start<'a> {
    async fn new(job: &'a Job, way: Way) -> Self {
        let served = match way {
            Way::Serve => {
                let (child, variables) = job.serve(&["--min-remaining", LEFT_S]).await;
                Some((child, variables.into_iter().collect()))
            }
            Way::Process | Way::Exec => None,
        };
        Self { job, way, served }
    }

    fn client(&self, program: &Path) -> Command {
        let job = self.job;
        match (&self.served, self.way) {
            (Some((_, variables)), _) => {
                let mut command = job.run(program);
                command.envs(variables.iter().cloned()).env("AWS_REGION", REGION).env("AWS_DEFAULT_REGION", REGION);
                command
            }
            (None, Way::Exec) => {
                // What would win, if the program saw it.
                let home = job.home.path();
                std::fs::create_dir_all(home.join(".aws")).expect("a folder");
                let other = "[default]\naws_access_key_id = AKIAOFANOTHER\naws_secret_access_key = x\n";
                std::fs::write(home.join(".aws/credentials"), other).expect("a file");
                let mut command = job.credentials("exec", &["--min-remaining", LEFT_S, "--"]);
                command.arg(program).env("AWS_ACCESS_KEY_ID", "AKIAOFANOTHER").env("AWS_SECRET_ACCESS_KEY", "x");
                command
            }
            (None, _) => {
                let config = job.home.path().join("config");
                let words = [job.program.display().to_string()].into_iter().chain(job.arguments("process"));
                let line = words.collect::<Vec<_>>().join(" ");
                let text =
                    format!("[default]\nregion = {REGION}\ncredential_process = {line} --min-remaining {LEFT_S}\n");
                std::fs::write(&config, text).expect("a file");
                let mut command = job.run(program);
                command.env("AWS_CONFIG_FILE", config);
                command
            }
        }
    }
}

/// What a client of `tests/clients` saw.
async fn through_expiry(mut command: Command, name: &str, way: Way, job: &Job) {
    let (output, out, err) = ended(&mut command).await;
    assert!(output.status.success(), "{name} by {way:?}: {err}");
    let saw: Value =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name} by {way:?}: {error}: {out}{err}"));
    for arn in ["arn", "again"] {
        let arn = saw[arn].as_str().expect("an ARN");
        assert!(arn.contains(":assumed-role/") && arn.contains(job.account.id()), "{name} by {way:?}: {saw}");
    }
    // The emulator forgets a session that is over when it makes the next one: from then on it does not know the key.
    let refused = saw["refused"].as_str().expect("a code");
    let is_over = ["ExpiredToken", "InvalidClientTokenId"].iter().any(|code| refused.contains(code));
    assert!(is_over, "{name} by {way:?}: {saw}");
    assert_ne!(saw["first"], saw["second"], "{name} by {way:?}");
    let source = saw["way"].as_str().expect("a way");
    let expected = match (name, way) {
        ("boto3", Way::Process) => "custom-process",
        ("boto3", _) => "container-role",
        (_, Way::Process) => "CREDENTIALS_PROCESS",
        (_, _) => "CREDENTIALS_HTTP",
    };
    assert!(source.contains(expected), "{name} by {way:?}: {saw}");
}

/// One run of the AWS CLI that outlives its first session: it waits for an object that comes only after that.
async fn aws_cli(start: &Start<'_>, aws: &Path, world: &World) {
    let (job, way) = (start.job, start.way);
    let key = format!("cur/late-{way:?}");
    let mut command = start.client(aws);
    command.args(["s3api", "wait", "object-exists", "--bucket", &job.bucket, "--key", &key, "--debug"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the AWS CLI starts");
    let mut said = Said { lines: BufReader::new(child.stderr.take().expect("its output")).lines(), all: String::new() };
    said.until_it_looked().await;
    // Begun after that one's first session, and just as long: when this one is over, that one is.
    let wanted = Wanted { min_remaining_s: Some(0), ..Wanted::from(Purpose::CostRead) };
    let own = common::looks::job(world).await.issue(job.tenant, job.connection, wanted).await.expect("a session").1;
    over(world, &own).await;
    said.until_it_looked().await;
    job.account.put_object(&job.bucket, &key, b"late".to_vec()).await.expect("an object");
    said.rest().await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it hangs").expect("its status");
    assert!(status.success(), "the AWS CLI by {way:?}: {}", said.all);
    let keys: BTreeSet<&str> =
        said.all.split("Credential=").skip(1).filter_map(|rest| rest.split('/').next()).collect();
    assert!(keys.len() > 1 && keys.iter().all(|key| key.starts_with("ASIA")), "the AWS CLI by {way:?}: {keys:?}");
}

/// What a program says on its standard error.
struct Said {
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    all: String,
}

impl Said {
    async fn next(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("it says nothing more: {}", self.all)).expect("text")?;
        self.all.push_str(&line);
        self.all.push('\n');
        Some(line)
    }

    /// Until the object was not there.
    async fn until_it_looked(&mut self) {
        while let Some(line) = self.next().await {
            if line.contains("\"HEAD /") && line.contains(" 404 ") {
                return;
            }
        }
        panic!("it ended before it looked: {}", self.all);
    }

    async fn rest(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// Until AWS refuses these.
async fn over(world: &World, held: &SealedCredentials) {
    let token = held.session_token.expose().to_owned();
    let keys = Credentials::new(&held.access_key_id, held.secret_access_key.expose(), Some(token), None, "held");
    let ended = until(PATIENCE, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.system.emulator.caller_identity(REGION, keys.clone()).await.is_err()
    });
    assert!(ended.await, "the session does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_go_on_through_the_end_of_a_session() {
    let (python, javascript) = (python_clients().await, sdk_for_javascript());
    let options = SystemOptions { longest_session_s: Some(SESSION_S), ..SystemOptions::default() };
    let mut world = World::with(options).await;
    let job = Job::connect(&mut world).await;
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let aws = python.join("aws");
    for way in [Way::Process, Way::Serve, Way::Exec] {
        let start = Start::new(&job, way).await;
        let mut boto3 = start.client(&python.join("python"));
        boto3.arg(clients.join("through_expiry.py")).arg(&job.bucket);
        let in_javascript = async {
            if let Some(folder) = &javascript {
                let mut node = start.client(Path::new("node"));
                node.arg(folder.join("through-expiry.mjs"));
                through_expiry(node, "the SDK for JavaScript", way, &job).await;
            }
        };
        tokio::join!(through_expiry(boto3, "boto3", way, &job), in_javascript, aws_cli(&start, &aws, &world));
    }
    sdk_for_rust(&world, &job).await;
    world.system.stop().await.expect("it stops");
}

async fn sdk_for_rust(world: &World, job: &Job) {
    let wanted = Wanted { min_remaining_s: Some(6), ..Wanted::from(Purpose::CostRead) };
    let cached = common::looks::job(world).await.cached(job.tenant, job.connection, wanted);
    let emulator = world.system.emulator.sdk_config(REGION, Credentials::new("none", "none", None, None, "replaced"));
    let config = emulator.into_builder().credentials_provider(SharedCredentialsProvider::new(cached.clone())).build();
    let sts = aws_sdk_sts::Client::new(&config);
    let whoami =
        async || sts.get_caller_identity().send().await.expect("good credentials").account.expect("an account");
    assert_eq!(whoami().await, job.account.id());
    let held = cached.get().await.expect("a session");
    over(world, &held.credentials).await;
    assert_eq!(whoami().await, job.account.id());
    let now = cached.get().await.expect("a session");
    assert_ne!(now.credentials.access_key_id, held.credentials.access_key_id);
}

/// A folder with the SDK for JavaScript and the client, or none where there is no Node.js.
fn sdk_for_javascript() -> Option<PathBuf> {
    let there =
        |program: &str| Blocking::new(program).arg("--version").output().is_ok_and(|said| said.status.success());
    if !there("node") || !there("npm") {
        eprintln!("NOT CHECKED: the AWS SDK for JavaScript needs Node.js 20 or later, with npm");
        assert!(std::env::var_os("CI").is_none(), "CI has no Node.js with npm: the AWS SDK for JavaScript was not run");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/javascript");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-for-javascript");
    std::fs::create_dir_all(&place).expect("a folder");
    for file in [".npmrc", "package.json", "package-lock.json", "through-expiry.mjs"] {
        std::fs::copy(source.join(file), place.join(file)).expect("a copy");
    }
    let (lock, stamp) =
        (std::fs::read_to_string(source.join("package-lock.json")).expect("a lock"), place.join("stamp"));
    if std::fs::read_to_string(&stamp).is_ok_and(|known| known == lock) {
        return Some(place);
    }
    let output = Blocking::new("npm").args(["ci", "--no-progress"]).current_dir(&place).output().expect("npm starts");
    assert!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(stamp, lock).expect("a stamp");
    Some(place)
}
