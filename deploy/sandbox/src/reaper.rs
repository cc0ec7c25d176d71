//! The last one out: when this program dies, however it dies, nothing that it started stays behind.
//!
//! Destructors do not run on SIGKILL, and Rust cannot ask the kernel to pass it on without unsafe code. So one small shell process reads from
//! a pipe what is running and which folders are ours; when the pipe closes, which the kernel does at our death, it kills and removes
//! what is left. It sits in a process group of its own, so that Ctrl-C does not reach it first.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex},
};

use tempfile::TempDir;

use crate::error::{Result, SandboxError};

/// Only folders whose name starts so are ever removed by the shell.
const SCRATCH_PREFIX: &str = "rolebridge-sandbox.";

const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
folders=''
while read -r verb what; do
  case $verb in
    group) groups="$groups$what " ;;
    ended) case $groups in *" $what "*) groups="${groups%% $what *} ${groups#* $what }" ;; esac ;;
    folder) folders="$folders$what
" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
printf %s "$folders" | while read -r folder; do
  case $folder in */rolebridge-sandbox.*) rm -rf -- "$folder" ;; esac
done
"#;

/// `None` when there is no shell; then only destructors tidy up.
static PIPE: LazyLock<Option<Mutex<ChildStdin>>> = LazyLock::new(|| {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.current_dir("/");
    let mut child = command.spawn().ok()?;
    child.stdin.take().map(Mutex::new)
});

fn tell(verb: &str, what: impl std::fmt::Display) {
    if let Some(pipe) = &*PIPE
        && let Ok(mut pipe) = pipe.lock()
    {
        // A shell that is gone costs us the safety net, not the run.
        let _ = pipe.write_all(format!("{verb} {what}\n").as_bytes());
    }
}

/// From now on the process group dies with us.
pub(crate) fn watch_group(group: u32) {
    tell("group", group);
}

/// The group ended and was waited for: its number may be given to strangers now.
pub(crate) fn forget_group(group: u32) {
    tell("ended", group);
}

/// A folder for one run, private to this user, removed at the end whatever the end is.
#[derive(Debug)]
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .tempdir()
            .map_err(SandboxError::io("make a temporary folder"))?;
        tell("folder", dir.path().display());
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a folder in it.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        std::fs::create_dir(&path).map_err(SandboxError::io(format!("make the folder {}", path.display())))?;
        Ok(path)
    }
}
