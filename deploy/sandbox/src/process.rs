//! A child in a process group of its own, with its output in a file: started, watched, asked to end, killed with all its descendants.

use std::{
    fs::OpenOptions,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{
    error::{Result, SandboxError},
    reaper,
};

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A running or ended child. Dropping it kills the group and waits.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Process {
    /// Starts `command`; its output is appended to `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let cannot = |what: &str| SandboxError::io(format!("{what} {name}"));
        let out = OpenOptions::new().create(true).append(true).open(log).map_err(cannot("write the log of"))?;
        let errors = out.try_clone().map_err(cannot("write the log of"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(cannot("start"))?;
        reaper::watch_group(child.id());
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: false })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().map_err(SandboxError::io(format!("look after {}", self.name)))?;
        if status.is_some() {
            self.bury();
        }
        Ok(status)
    }

    /// Waits until it ends by itself.
    pub(crate) async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if start.elapsed() > within {
                return Err(SandboxError::StillRunning { name: self.name.clone(), within });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks at `ready` until it is, the child has ended, or the time is over.
    pub(crate) async fn wait_until(&mut self, within: Duration, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.status()? {
                return Err(SandboxError::Ended { name: self.name.clone(), status, log: self.log_end() });
            }
            if ready().await {
                return Ok(());
            }
            if start.elapsed() > within {
                return Err(SandboxError::NotReady { name: self.name.clone(), within, log: self.log_end() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends a signal to the child alone, not to its descendants.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.ended
            && let Ok(id) = i32::try_from(self.child.id())
        {
            // The only possible refusal is that it has just ended, which whoever waits will see.
            let _ = signal::kill(Pid::from_raw(id), signal);
        }
    }

    /// Kills the child and all in its group, and waits. Does nothing to one that has ended.
    pub(crate) fn kill(&mut self) {
        if self.ended {
            return;
        }
        self.kill_group();
        let _ = self.child.wait();
        self.bury();
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    fn kill_group(&self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = signal::killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }

    /// After the child was waited for: what it left in its group goes too, and the group's number is given up.
    fn bury(&mut self) {
        if !self.ended {
            self.ended = true;
            self.kill_group();
            reaper::forget_group(self.child.id());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reaper::Scratch;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn descendants_end_with_the_child() {
        let scratch = Scratch::new().expect("a folder");
        let log = scratch.join("log");
        let mut process = Process::spawn("a parent", shell("sleep 1000 & echo $!; wait"), &log).expect("starts");
        process.wait_until(Duration::from_secs(10), async || log_has_line(&log)).await.expect("tells its child");
        let grandchild: i32 = process.log_text().trim().parse().expect("a number");
        assert!(signal::kill(Pid::from_raw(grandchild), None).is_ok());
        process.kill();
        assert!(is_gone(grandchild).await, "the grandchild still runs");
    }

    #[tokio::test]
    async fn one_that_ends_while_awaited_tells_why() {
        let scratch = Scratch::new().expect("a folder");
        let mut process =
            Process::spawn("a failure", shell("echo no luck >&2; exit 3"), &scratch.join("log")).expect("starts");
        let error = process.wait_until(Duration::from_secs(10), async || false).await.expect_err("it ended");
        assert!(error.to_string().contains("no luck"), "{error}");
        assert!(matches!(error, SandboxError::Ended { status, .. } if status.code() == Some(3)));
    }

    /// Nothing by itself: the test below runs it in a process of its own, and kills that.
    #[tokio::test]
    async fn victim() {
        let Ok(report) = std::env::var("ROLEBRIDGE_TEST_VICTIM") else { return };
        let scratch = Scratch::new().expect("a folder");
        let process = Process::spawn("a child", shell("sleep 1000"), &scratch.join("log")).expect("starts");
        let ended =
            Process::spawn("an ended one", shell("true"), &scratch.join("log2")).map(|mut process| process.kill());
        ended.expect("starts");
        let text = format!("{} {}\n", process.id(), scratch.path().display());
        std::fs::write(report, text).expect("reported");
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn nothing_stays_behind_when_the_program_is_killed() {
        let scratch = Scratch::new().expect("a folder");
        let report = scratch.join("report");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "process::tests::victim"]).env("ROLEBRIDGE_TEST_VICTIM", &report);
        let mut victim = Process::spawn("the victim", command, &scratch.join("log")).expect("starts");
        victim.wait_until(Duration::from_secs(30), async || log_has_line(&report)).await.expect("reports");
        let text = std::fs::read_to_string(&report).expect("a report");
        let (child, folder) = text.trim().split_once(' ').expect("two words");
        let child = child.parse().expect("a number");
        assert!(signal::kill(Pid::from_raw(child), None).is_ok() && Path::new(folder).is_dir());
        victim.signal(Signal::SIGKILL);
        assert!(is_gone(child).await, "the child of the killed program still runs");
        let start = Instant::now();
        while Path::new(folder).exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "the folder of the killed program is still there");
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_has_line(path: &Path) -> bool {
        std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
    }

    async fn is_gone(id: i32) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            // An orphan may stay a zombie for as long as nobody waits for it.
            let zombie = std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "));
            if zombie || signal::kill(Pid::from_raw(id), None).is_err() {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        false
    }
}
