//! The programs that are measured beside, fetched once: DuckDB in a Python process that stays, and a nats-server on loopback.

use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(super) type Fault = Box<dyn std::error::Error + Send + Sync>;

const REQUIREMENTS: &str = include_str!("requirements.txt");
const PEER: &str = include_str!("peer.py");

/// A Python environment in `folder` with both packages, pinned and hash-checked; gives its folder of programs.
pub(super) fn fetch(folder: &Path) -> Result<PathBuf, Fault> {
    let (place, list) = (folder.join("peers"), folder.join("requirements.txt"));
    let programs = place.join("bin");
    if std::fs::read_to_string(&list).is_ok_and(|known| known == REQUIREMENTS) {
        return Ok(programs);
    }
    done(Command::new("python3").args(["-I", "-m", "venv"]).arg(&place))?;
    let wanted = folder.join("wanted.txt");
    std::fs::write(&wanted, REQUIREMENTS)?;
    let install = ["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"];
    done(Command::new(programs.join("python")).args(install).arg(&wanted))?;
    std::fs::rename(wanted, list)?;
    Ok(programs)
}

/// Runs a program to its end.
pub(super) fn done(command: &mut Command) -> Result<(), Fault> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// What DuckDB answered, and what it took.
#[derive(Deserialize)]
pub(super) struct Answered {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    pub(super) rows: Vec<Vec<String>>,
}

/// The process that stays.
pub(super) struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub(super) fn start(programs: &Path) -> Result<Self, Fault> {
        let mut child = Command::new(programs.join("python"))
            .args(["-c", PEER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (ask, answers) = (child.stdin.take(), child.stdout.take());
        let (ask, answers) = (ask.ok_or("no way in")?, BufReader::new(answers.ok_or("no way out")?).lines());
        Ok(Self { child, ask, answers })
    }

    pub(super) fn ask(&mut self, sql: &str) -> Result<Answered, Fault> {
        writeln!(self.ask, "{}", serde_json::to_string(sql)?)?;
        let line = self.answers.next().ok_or("DuckDB ended")??;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A nats-server that ends with this.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
}

impl Server {
    pub(super) fn start(programs: &Path) -> Result<Self, Fault> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let child = Command::new(programs.join("nats-server"))
            .args(["-a", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { child, url: format!("nats://127.0.0.1:{port}") };
        for _ in 0..100 {
            if std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("nats-server did not listen within 5 s".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
