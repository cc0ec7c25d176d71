//! The demo, started as a person starts it: what it prints, what it never prints, and that nothing is left of it, however it ends.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// Far longer than a run takes.
const PATIENCE: Duration = Duration::from_secs(180);
/// nats-server, the emulator, the four services.
const PROGRAMS: usize = 6;

/// A running demo, whose folders for what lives for one run are ours: everything that it starts works in one of them.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
    folder: TempDir,
}

impl Demo {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("rolebridge-demo-test.").tempdir().expect("a folder");
        let mut child = Command::new(program())
            .arg("--json")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("the demo starts: is it built (`cargo build --workspace --bins`)?");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines, said: Vec::new(), folder }
    }

    /// Reads what it prints until a line of this stage, or to the end.
    async fn read_until(&mut self, stage: Option<&str>) {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                let here = stage.is_some_and(|stage| line.contains(&format!(" ms  {stage} ")));
                self.said.push(line);
                if here {
                    return true;
                }
            }
            false
        };
        let reached = tokio::time::timeout(PATIENCE, reading).await.expect("in time");
        assert_eq!(reached, stage.is_some(), "{}", self.said.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it runs");
        signal::kill(Pid::from_raw(id.try_into().expect("an ID")), signal).expect("it runs");
    }

    async fn end(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("an end")
    }

    /// All processes, but the demo itself, that work in its folders or were told of them.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("Linux").flatten() {
            let path = entry.path();
            let works_here = fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            let told = fs::read(path.join("environ")).is_ok_and(|environment| mentions(&environment, folder));
            let own = self.child.id().is_some_and(|id| path.ends_with(id.to_string()));
            if (works_here || told) && !own {
                let command = fs::read(path.join("cmdline")).unwrap_or_default();
                found.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&command).replace('\0', " ")));
            }
        }
        found
    }

    async fn assert_nothing_is_left(&self) {
        let start = Instant::now();
        loop {
            let (processes, folders) = (self.processes(), folders(self.folder.path()));
            if processes.is_empty() && folders.is_empty() {
                return;
            }
            // How fast is not asked: after a SIGKILL a shell tidies up.
            assert!(start.elapsed() < Duration::from_secs(20), "left behind: {processes:#?} {folders:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn mentions(environment: &[u8], folder: &Path) -> bool {
    environment.windows(folder.as_os_str().len()).any(|window| window == folder.as_os_str().as_encoded_bytes())
}

fn folders(of: &Path) -> Vec<PathBuf> {
    fs::read_dir(of).expect("a folder").flatten().map(|entry| entry.path()).collect()
}

/// Beside the tests' own folder.
fn program() -> PathBuf {
    let exe = std::env::current_exe().expect("a program");
    exe.ancestors().nth(2).expect("a folder").join("rolebridge-sandbox")
}

fn has(report: &Value, path: &str, fits: impl Fn(&Value) -> bool) {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = report.pointer(&pointer).unwrap_or_else(|| panic!("{path} is missing: {report}"));
    assert!(fits(value), "{path} is {value}");
}

fn is(expected: &'static str) -> impl Fn(&Value) -> bool {
    move |value| value == expected
}

#[tokio::test]
async fn the_demo_does_its_job_prints_its_report_and_no_secret_and_leaves_nothing() {
    let mut demo = Demo::start();
    demo.read_until(Some("launch")).await;
    let running = demo.processes();
    assert!(running.len() >= PROGRAMS, "what runs is seen: {running:#?}");
    demo.read_until(None).await;
    assert!(demo.end().await.success(), "{}", demo.said.join("\n"));
    demo.assert_nothing_is_left().await;

    let last = demo.said.last().expect("a last line");
    let report: Value = serde_json::from_str(last).expect("one JSON object on the last line");
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    has(&report, "tenant", text);
    has(&report, "connection.account_id", is("222222222222"));
    has(&report, "connection.state", is("verified"));
    has(&report, "connection.verified_ms", |value| value.as_u64().is_some_and(|ms| ms > 0));
    has(&report, "stack_status", is("CREATE_COMPLETE"));
    has(&report, "credentials.arn", |value| {
        value.as_str().is_some_and(|arn| arn.contains(":222222222222:assumed-role/"))
    });
    has(&report, "credentials.expires_at", text);
    has(&report, "costs.rows", |value| value == 124_340);
    has(&report, "costs.total", is("3505.3269681268"));
    has(&report, "costs.currency", is("USD"));
    has(&report, "costs.periods", |value| *value == serde_json::json!(["2018-11"]));
    has(&report, "costs.by_service", |value| value.as_array().is_some_and(|services| services.len() == 17));
    has(&report, "attack.state", is("rejected"));
    has(&report, "attack.stack_status", is("ROLLBACK_COMPLETE"));
    has(&report, "attack.reason", text);
    has(&report, "after_delete.state", is("revoked"));
    has(&report, "after_delete.credentials_error", is("not-verified"));
    let stages = report["stages"].as_array().expect("stages");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    let wanted = [
        "start",
        "tenant",
        "enrollment",
        "customer",
        "launch",
        "verified",
        "stack",
        "credentials",
        "costs",
        "attack",
        "leave",
    ];
    assert_eq!(names, wanted);
    assert!(stages.iter().all(|stage| stage["ms"].is_u64()));
    assert_no_secret(&demo.said);
}

/// The callback token is in the offer, where the customer needs it, and nowhere else; keys and session tokens are nowhere.
fn assert_no_secret(said: &[String]) {
    let (mut offers, mut long) = (0, Vec::new());
    for line in said {
        let offer = ["callback token ", "or "].iter().any(|start| line.trim_start().starts_with(start));
        if offer && line.contains("rbt_") {
            offers += 1;
            continue;
        }
        assert!(!line.contains("rbt_"), "a callback token outside of the offer: {line}");
        assert!(!line.contains("cfn-response"), "a ResponseURL: {line}");
        // Access key IDs, and anything as long and as random as a secret key (40 characters of base 64).
        for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || "+=".contains(c))) {
            let key_id = ["AKIA", "ASIA"].iter().any(|kind| word.starts_with(kind)) && word.len() >= 16;
            assert!(!key_id, "an access key ID: {line}");
            if word.len() >= 40 {
                long.push(word);
            }
        }
    }
    assert_eq!(offers, 2, "token and command");
    assert!(long.is_empty(), "what is as long as a secret: {long:?}");
}

#[tokio::test]
async fn ctrl_c_in_the_middle_ends_everything_with_status_130() {
    let mut demo = Demo::start();
    demo.read_until(Some("launch")).await;
    assert!(demo.processes().len() >= PROGRAMS);
    demo.signal(Signal::SIGINT);
    assert_eq!(demo.end().await.code(), Some(130));
    demo.read_until(None).await;
    assert!(demo.said.iter().any(|line| line == "interrupted: everything is ended"), "{:?}", demo.said);
    demo.assert_nothing_is_left().await;
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing() {
    let mut demo = Demo::start();
    demo.read_until(Some("launch")).await;
    assert!(demo.processes().len() >= PROGRAMS);
    demo.signal(Signal::SIGKILL);
    assert!(!demo.end().await.success());
    demo.assert_nothing_is_left().await;
}
