//! A job with one connection, and the programs that it runs: the command line, and clients that are not ours.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use contracts::{ConnectionId, TenantId, costs::ExportLocation};
use sandbox::{Account, NatsUser, REGION, Toolbox};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use super::{PATIENCE, PREFIX, World};

const REQUIREMENTS: &str = include_str!("../../clients/requirements.txt");
const EXPORT: &[u8] = include_bytes!("../../data/three-lines.snappy.parquet");

pub(crate) struct Job {
    pub(crate) tenant: TenantId,
    pub(crate) connection: ConnectionId,
    pub(crate) account: Account,
    pub(crate) bucket: String,
    /// `rolebridge`.
    pub(crate) program: PathBuf,
    pub(crate) sealing_key: String,
    /// What every program finds: the bus, the emulator, a home without AWS files.
    environment: BTreeMap<String, String>,
    pub(crate) home: tempfile::TempDir,
}

impl Job {
    /// With a new tenant's new account, which has a cost export.
    pub(crate) async fn connect(world: &mut World) -> Self {
        let tenant = world.tenant("Acme").await.tenant;
        let account = world.customer().await;
        let bucket = format!("costs-of-{}", account.id());
        account.create_bucket(&bucket).await.expect("a bucket");
        account.put_object(&bucket, &format!("{PREFIX}/a.snappy.parquet"), EXPORT.to_vec()).await.expect("an export");
        let export = ExportLocation { bucket: bucket.clone(), prefix: PREFIX.to_owned() };
        let offer = world.offer(tenant, Some(export)).await;
        let launched = world.launch(&account, offer).await;
        world.completed(&launched).await;
        let connection = world.only_connection(tenant).await.connection;

        // target/<profile>/deps/<this test>
        let here = std::env::current_exe().expect("this program's path");
        let program = here.parent().and_then(Path::parent).expect("target/debug").join("rolebridge");
        let home = tempfile::tempdir().expect("a folder");
        let system = &world.system;
        let environment = BTreeMap::from([
            ("ROLEBRIDGE_NATS_URL", system.nats.url()),
            ("ROLEBRIDGE_NATS_SEED_FILE", system.nats.seed_file(NatsUser::Job).display().to_string()),
            ("ROLEBRIDGE_NATS_USER", "job".to_owned()),
            ("AWS_ENDPOINT_URL", system.emulator.endpoint()),
            ("HOME", home.path().display().to_string()),
            ("PATH", std::env::var("PATH").expect("PATH")),
        ]);
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let sealing_key = system.sealing_key().to_string();
        Self { tenant, connection, account, bucket, program, sealing_key, environment, home }
    }

    /// A program in the job's environment.
    pub(crate) fn run(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.environment).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The arguments of `rolebridge credentials <way>` for this connection.
    pub(crate) fn arguments(&self, way: &str) -> Vec<String> {
        let (tenant, connection) = (self.tenant.to_string(), self.connection.to_string());
        let all = ["credentials", way, &tenant, &connection, "--sealing-key", &self.sealing_key];
        all.map(ToOwned::to_owned).to_vec()
    }

    /// `rolebridge credentials <way>` with more arguments.
    pub(crate) fn credentials(&self, way: &str, more: &[&str]) -> Command {
        let mut command = self.run(&self.program);
        command.args(self.arguments(way)).args(more);
        command
    }

    /// `rolebridge credentials serve`, and the variables that it printed.
    pub(crate) async fn serve(&self, more: &[&str]) -> (Child, BTreeMap<String, String>) {
        let mut command = self.credentials("serve", &[&["--json"], more].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let line = first_line(child.stdout.take().expect("its output")).await;
        (child, serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    pub(crate) fn region(&self) -> &'static str {
        REGION
    }
}

pub(crate) async fn first_line(out: ChildStdout) -> String {
    let mut lines = BufReader::new(out).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    line.expect("it says nothing").expect("text").unwrap_or_default()
}

/// Runs to the end.
pub(crate) async fn ended(command: &mut Command) -> (Output, String, String) {
    let output = tokio::time::timeout(2 * PATIENCE, command.output()).await.expect("it hangs").expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// The programs of a Python environment with boto3, the AWS CLI, nats-py and PyNaCl.
pub(crate) async fn python_clients() -> PathBuf {
    let fetch = || Toolbox::environment("clients", REQUIREMENTS, |line| eprintln!("{line}"));
    tokio::task::spawn_blocking(fetch).await.expect("no panic").expect("the Python clients are fetched")
}
