//! A program of the workspace as a child process: started with a clean environment, killed, restarted, its log kept.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    error::{Result, SandboxError},
    paths,
    port::PortLease,
    process::Process,
    reaper::Scratch,
};

const HTTP_ADDR: &str = "ROLEBRIDGE_HTTP_ADDR";

/// A running or ended service. Dropping it kills it.
#[derive(Debug)]
pub struct ServiceProcess {
    name: String,
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    process: Option<Process>,
    port: PortLease,
    scratch: Scratch,
}

impl ServiceProcess {
    /// Starts the workspace's program `name` with `environment` and, of ours, only `PATH` and `HOME`. `ROLEBRIDGE_HTTP_ADDR` is set to a port
    /// of its own, which stays the same over restarts. Does not wait: see [`ServiceProcess::wait_ready`].
    ///
    /// # Errors
    /// The program is not built, or cannot be started.
    pub fn spawn<K: Into<OsString>, V: Into<OsString>>(
        name: &str,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let program = paths::programs_dir()?.join(name);
        if !program.is_file() {
            return Err(SandboxError::NotBuilt(name.to_owned()));
        }
        let port = PortLease::take()?;
        let mut all: BTreeMap<OsString, OsString> =
            ["PATH", "HOME"].into_iter().filter_map(|key| Some((key.into(), std::env::var_os(key)?))).collect();
        all.insert(HTTP_ADDR.into(), port.address().to_string().into());
        all.extend(environment.into_iter().map(|(key, value)| (key.into(), value.into())));
        let scratch = Scratch::new()?;
        let mut service = Self { name: name.to_owned(), program, environment: all, process: None, port, scratch };
        service.restart()?;
        Ok(service)
    }

    /// Another one with the same environment but for `own`, at an address of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn twin<V: Into<OsString>>(&self, own: impl IntoIterator<Item = (&'static str, V)>) -> Result<Self> {
        let mut environment = self.environment.clone();
        environment.remove(&OsString::from(HTTP_ADDR));
        environment.extend(own.into_iter().map(|(name, value)| (name.into(), value.into())));
        Self::spawn(&self.name, environment)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it serves health and metrics, unless the environment said otherwise.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The process ID, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything it has written to its outputs, over all its starts.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The file behind [`ServiceProcess::log_text`].
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.scratch.join("log")
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// It ended, or the time is over; the error holds the end of its log.
    pub async fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let url = format!("http://{}/readyz", self.http_address());
        let client = reqwest::Client::builder().no_proxy().build().map_err(SandboxError::aws("make an HTTP client"))?;
        let Some(process) = &mut self.process else { return Err(self.not_running()) };
        process
            .wait_until(within, async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()))
            .await
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end (SIGTERM), and waits.
    ///
    /// # Errors
    /// It still runs after `within`.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        let Some(process) = &mut self.process else { return Err(self.not_running()) };
        process.signal(Signal::SIGTERM);
        let status = process.wait(within).await?;
        self.process = None;
        Ok(status)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let Some(process) = &mut self.process else { return Err(self.not_running()) };
        let status = process.wait(within).await?;
        self.process = None;
        Ok(status)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.status(), Ok(None)))
    }

    /// Gives it another variable (or another value) from its next start on.
    pub fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.insert(name.into(), value.into());
    }

    /// Starts it again with the same environment, port and log; one that still runs is killed first.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.environment).current_dir(self.scratch.path());
        self.process = Some(Process::spawn(&self.name, command, &self.log_path())?);
        Ok(())
    }

    fn not_running(&self) -> SandboxError {
        SandboxError::Io { what: format!("wait for {}", self.name), source: std::io::ErrorKind::NotConnected.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_built_is_named() {
        let error = ServiceProcess::spawn("no-such-program", [("A", "b")]).expect_err("it is not built");
        assert!(error.to_string().contains("`no-such-program` is not built"), "{error}");
    }
}
