//! The command line, run as a person or a job runs it.

use std::{path::PathBuf, time::Duration};

use sandbox::{NatsUser, System};
use serde_json::Value;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Shell {
    program: PathBuf,
    url: String,
    operator: PathBuf,
    job: PathBuf,
}

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    pub(crate) fn new(system: &System) -> Self {
        // target/<profile>/deps/<this test>
        let here = std::env::current_exe().unwrap();
        let program = here.parent().unwrap().parent().unwrap().join("rolebridge");
        let (operator, job) = (system.nats.seed_file(NatsUser::Operator), system.nats.seed_file(NatsUser::Job));
        Self { program, url: system.nats.url(), operator, job }
    }

    pub(crate) async fn run(&self, user: &str, arguments: &[&str]) -> Said {
        let seed = if user == "job" { &self.job } else { &self.operator };
        let output = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("ROLEBRIDGE_NATS_URL", &self.url)
            .env("ROLEBRIDGE_NATS_SEED_FILE", seed)
            .env("ROLEBRIDGE_NATS_USER", user)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("the command line hangs").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// What an operator reads.
    pub(crate) async fn says(&self, arguments: &[&str]) -> String {
        let said = self.run("operator", arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        said.out
    }

    /// The JSON answer to an operator.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let out = self.says(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&out).unwrap()
    }

    /// The one line that an operator reads when it does not work.
    pub(crate) async fn refuses(&self, arguments: &[&str]) -> String {
        let said = self.run("operator", arguments).await;
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{arguments:?}");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        said.err
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
