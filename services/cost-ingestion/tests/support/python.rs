//! The Python of strangers: DuckDB, pyarrow, Polars, and the FOCUS project's validator. Packages are fetched once, pinned and hash-checked, into the build folder.
//!
//! Where there is no Python 3.12 (the validator's Arrow has wheels for no later one) it says so, and fails if `CI` is set.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const REQUIREMENTS: &str = include_str!("../requirements-focus.txt");

/// The Python of an environment with both packages, or none; made once for all tests.
pub fn python() -> Option<PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(environment).clone()
}

fn environment() -> Option<PathBuf> {
    let is_right = |program: &Path| {
        let check = "import sys; sys.exit(sys.version_info[:2] != (3, 12))";
        Command::new(program).args(["-I", "-c", check]).output().is_ok_and(|output| output.status.success())
    };
    let pyenv = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".pyenv/versions");
    let versions = std::fs::read_dir(pyenv).into_iter().flatten().filter_map(Result::ok);
    let named = ["python3.12", "python3"].map(PathBuf::from).into_iter();
    let found = named.chain(versions.map(|entry| entry.path().join("bin/python3"))).find(|program| is_right(program));
    let Some(found) = found.filter(|_| cfg!(all(target_os = "linux", target_arch = "x86_64"))) else {
        eprintln!("NOT CHECKED: the FOCUS validator needs Python 3.12 on Linux x86-64, on the PATH or under ~/.pyenv");
        assert!(std::env::var_os("CI").is_none(), "CI has no Python 3.12: the FOCUS validator was not run");
        return None;
    };
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("focus-validator");
    let (python, stamp) = (place.join("bin/python"), place.join("stamp"));
    if std::fs::read_to_string(&stamp).is_ok_and(|known| known == REQUIREMENTS) {
        return Some(python);
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let _ = std::fs::remove_dir_all(&place);
    run(Command::new(found).args(["-I", "-m", "venv"]).arg(&place));
    let list = place.join("requirements.txt");
    std::fs::write(&list, REQUIREMENTS).unwrap();
    // Two of them have no wheel.
    let install = [
        "-m",
        "pip",
        "install",
        "--no-input",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-binary",
        "focus-validator,pandasql",
        "-r",
    ];
    run(Command::new(&python).args(install).arg(&list));
    std::fs::write(stamp, REQUIREMENTS).unwrap();
    Some(python)
}

pub fn ask(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new(python).args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
