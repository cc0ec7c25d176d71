//! `cargo demo`: builds every program of the workspace once, then hands over to the sandbox.
//!
//! It is a program of its own, without dependencies, because `cargo run -p rolebridge-sandbox` would build the sandbox alone: without the services, and with
//! other features of the shared dependencies than `cargo test --workspace` uses, so that everything would be compiled twice.

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
};

fn main() -> ExitCode {
    match launch() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    }
}

/// How the variables begin that cargo sets for the program that it runs.
const OF_A_PACKAGE: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Standard error is this program's only voice.
#[allow(clippy::print_stderr, reason = "a launcher has no log")]
fn say(text: &str) {
    eprintln!("cargo demo: {text}");
}

fn launch() -> Result<ExitStatus, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    // This program lies where all the others do.
    let here = env::current_exe().map_err(|error| format!("the build folder cannot be found: {error}"))?;
    let sandbox = here.with_file_name(format!("rolebridge-sandbox{}", env::consts::EXE_SUFFIX));
    if !sandbox.exists() {
        say("everything is compiled first: some ten minutes on two cores, and seconds from the next time on");
    }
    let mut build = Command::new(&cargo);
    build.args(["build", "--workspace", "--bins"]).current_dir(&root);
    // What `cargo run` says of this package is not the build's: crates that look at it would be compiled again, and all that stand on them.
    let of_this_package = |name: &str| OF_A_PACKAGE.iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        build.env_remove(name);
    }
    let built = build.status().map_err(|error| format!("{} cannot be started: {error}", cargo.to_string_lossy()))?;
    if !built.success() {
        return Err("the workspace does not build; the compiler's words are above".to_owned());
    }
    hand_over(Command::new(&sandbox).args(env::args_os().skip(1)))
        .map_err(|error| format!("{} cannot be started: {error}", sandbox.display()))
}

/// Becomes the sandbox, so that a signal to this process is a signal to it.
#[cfg(unix)]
fn hand_over(sandbox: &mut Command) -> Result<ExitStatus, std::io::Error> {
    Err(std::os::unix::process::CommandExt::exec(sandbox))
}

#[cfg(not(unix))]
fn hand_over(sandbox: &mut Command) -> Result<ExitStatus, std::io::Error> {
    sandbox.status()
}
