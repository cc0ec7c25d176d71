//! The programs that the sandbox runs and Rust does not build: fetched once, as hash-checked wheels, into a Python environment in the build folder.
//!
//! A stamp file in the environment holds what it was made from; when that is unchanged, a fetch is two reads. Parallel test programs
//! meet at a file lock, and all but the first find the stamp.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Result, SandboxError},
    paths,
};

const REQUIREMENTS: &str = include_str!("../requirements.txt");
const TEST_REQUIREMENTS: &str = include_str!("../requirements-test.txt");

/// The fetched programs.
#[derive(Debug, Clone)]
pub struct Toolbox {
    venv: PathBuf,
}

impl Toolbox {
    /// Fetches nats-server and the AWS emulator unless they are there, and calls `progress` with a line to show each time there is news
    /// (never, when nothing is to be done). Blocks: the first time for about a minute, later for milliseconds.
    ///
    /// # Errors
    /// No Python 3.10 or later; pip failed (its output is in a file that the error names); the build folder cannot be written.
    pub fn fetch(mut progress: impl FnMut(&str)) -> Result<Self> {
        let dir = paths::sandbox_dir()?;
        let venv = dir.join("tools");
        Step { venv: &venv, requirements: REQUIREMENTS, stamp: "rolebridge-tools", fresh: true }
            .run(&dir, &mut progress)?;
        Ok(Self { venv })
    }

    /// Like [`Toolbox::fetch`], and also what only tests need: PostgreSQL and the fault injector.
    ///
    /// # Errors
    /// As [`Toolbox::fetch`].
    pub fn fetch_test_tools(mut progress: impl FnMut(&str)) -> Result<Self> {
        let tools = Self::fetch(&mut progress)?;
        Step { venv: &tools.venv, requirements: TEST_REQUIREMENTS, stamp: "rolebridge-test-tools", fresh: false }
            .run(&paths::sandbox_dir()?, &mut progress)?;
        Ok(tools)
    }

    /// A Python environment of its own in the build folder, with `requirements` (every file by its SHA-256) and nothing else; its folder of programs. `name` is a file name.
    /// Blocks, as [`Toolbox::fetch`].
    ///
    /// # Errors
    /// As [`Toolbox::fetch`].
    pub fn environment(name: &str, requirements: &str, mut progress: impl FnMut(&str)) -> Result<PathBuf> {
        let dir = paths::sandbox_dir()?.join(name);
        fs::create_dir_all(&dir).map_err(SandboxError::io(format!("make the folder {}", dir.display())))?;
        let venv = dir.join("venv");
        Step { venv: &venv, requirements, stamp: "rolebridge-stamp", fresh: true }.run(&dir, &mut progress)?;
        Ok(venv.join("bin"))
    }

    /// The Python of the environment, which has the emulator and botocore.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.program("python")
    }

    /// The nats-server program itself.
    #[must_use]
    pub fn nats_server(&self) -> PathBuf {
        self.program("nats-server")
    }

    /// The fault injector; only after [`Toolbox::fetch_test_tools`].
    #[must_use]
    pub fn microburst(&self) -> PathBuf {
        self.program("microburst")
    }

    /// The folder that holds the packages of the environment.
    pub(crate) fn packages(&self) -> Result<PathBuf> {
        let lib = self.venv.join("lib");
        let found = fs::read_dir(&lib).map_err(SandboxError::io(format!("read {}", lib.display())))?;
        let packages =
            found.filter_map(Result::ok).map(|entry| entry.path().join("site-packages")).find(|path| path.is_dir());
        packages.ok_or_else(|| {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            SandboxError::Io { what: format!("find the packages in {}", lib.display()), source }
        })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.venv.join("bin").join(name)
    }
}

/// One set of requirements that is to be in the environment.
struct Step<'a> {
    venv: &'a Path,
    requirements: &'a str,
    stamp: &'static str,
    /// Whether the environment is made anew for it.
    fresh: bool,
}

impl Step<'_> {
    fn run(&self, dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let lock = File::create(dir.join("lock")).map_err(SandboxError::io("make the lock of the tools"))?;
        if lock.try_lock().is_err() {
            progress("waiting for another program that is fetching the sandbox's tools");
            lock.lock().map_err(SandboxError::io("wait for the lock of the tools"))?;
        }
        if self.is_done() {
            return Ok(());
        }
        if self.fresh {
            progress("making a Python environment for the sandbox's tools (once)");
            self.make_environment(dir)?;
        }
        self.install(dir, progress)?;
        fs::write(self.stamp_path(), self.expected_stamp()).map_err(SandboxError::io("write the stamp of the tools"))
    }

    fn stamp_path(&self) -> PathBuf {
        self.venv.join(self.stamp)
    }

    /// The requirements, and the place: an environment does not work once it is moved.
    fn expected_stamp(&self) -> String {
        format!("{}\n{}", self.venv.display(), self.requirements)
    }

    fn is_done(&self) -> bool {
        fs::read_to_string(self.stamp_path()).is_ok_and(|stamp| stamp == self.expected_stamp())
    }

    fn make_environment(&self, dir: &Path) -> Result<()> {
        if self.venv.exists() {
            fs::remove_dir_all(self.venv).map_err(SandboxError::io("remove the outdated tools"))?;
        }
        let log = dir.join("venv.log");
        let mut command = Command::new(find_python()?);
        command.args(["-I", "-m", "venv"]).arg(self.venv);
        // Debian keeps venv in a package of its own (python3-venv), and says so in the output.
        run_logged(command, &log, |_| {})?.then_some(()).ok_or(SandboxError::Fetch { step: "python3 -m venv", log })
    }

    fn install(&self, dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let list = dir.join("requirements.txt");
        fs::write(&list, self.requirements).map_err(SandboxError::io("write the list of the tools"))?;
        let log = dir.join("pip.log");
        let mut command = Command::new(self.venv.join("bin/python"));
        command
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"])
            .args(["--only-binary", ":all:", "--require-hashes", "--requirement"])
            .arg(&list);
        let mut fetched = 0_u32;
        let done = run_logged(command, &log, |line| {
            if line.starts_with("Collecting ") {
                fetched += 1;
                progress(&format!("fetching the sandbox's tools (once): package {fetched}"));
            } else if line.starts_with("Installing ") {
                progress(&format!("installing {fetched} packages into the build folder"));
            }
        })?;
        done.then_some(()).ok_or(SandboxError::Fetch { step: "pip install", log })
    }
}

/// Runs to the end, every line of its output to `log` and to `seen`; whether it succeeded.
fn run_logged(mut command: Command, log: &Path, mut seen: impl FnMut(&str)) -> Result<bool> {
    let what = || format!("run {}", Path::new(command.get_program()).display());
    let what = what();
    let mut file = File::create(log).map_err(SandboxError::io(format!("write {}", log.display())))?;
    let errors = file.try_clone().map_err(SandboxError::io(format!("write {}", log.display())))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(SandboxError::io(what.clone()))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(SandboxError::io(what.clone()))?;
            writeln!(file, "{line}").map_err(SandboxError::io(format!("write {}", log.display())))?;
            seen(&line);
        }
    }
    Ok(child.wait().map_err(SandboxError::io(what))?.success())
}

/// A Python of 3.10 or later: `python3`, else the newest that is there under its full name.
fn find_python() -> Result<&'static str> {
    const NAMES: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
    let fits = |name: &&str| {
        Command::new(name)
            .args(["-I", "-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    NAMES.into_iter().find(fits).ok_or(SandboxError::NoPython)
}
