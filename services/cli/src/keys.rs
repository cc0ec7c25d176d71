//! Key files for a new installation.

use std::{fs, io::Write, path::Path};

use nkeys::KeyPair;

use crate::{args::Keys, error::CliError, show::Output};

pub(crate) fn run(command: &Keys, output: Output) -> Result<(), CliError> {
    match command {
        Keys::Nats { out } => nats(out, output),
    }
}

/// One seed file a user, and the public keys as the variables that the server's configuration names.
fn nats(out: &Path, output: Output) -> Result<(), CliError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Write { path, source }
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let mut variables = String::new();
    for user in permissions::matrix::users() {
        let pair = KeyPair::new_user();
        let path = out.join(format!("{}.nk", user.name));
        let seed = pair.seed().map_err(CliError::Key)?;
        write_new(&path, seed.as_bytes(), 0o600).map_err(failed(&path))?;
        variables.push_str(&format!("{}={}\n", permissions::variable(&user.name), pair.public_key()));
    }
    let path = out.join("nats.env");
    write_new(&path, variables.as_bytes(), 0o644).map_err(failed(&path))?;
    let shown =
        [("seed files", format!("{}/<user>.nk", out.display())), ("server variables", path.display().to_string())];
    output.one(&serde_json::json!({ "seed_files": out, "server_variables": path }), &shown)
}

pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_of_the_server_gets_a_key_and_no_other() {
        let conf = include_str!("../../../deploy/nats/accounts.conf");
        let named: Vec<&str> = conf.lines().filter_map(|line| line.trim().strip_prefix("nkey: $")).collect();
        let folder = tempfile::tempdir().unwrap();
        nats(folder.path(), Output::new(true)).unwrap();
        let written = fs::read_to_string(folder.path().join("nats.env")).unwrap();
        let ours: Vec<&str> = written.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        assert_eq!(named, ours);
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        nats(folder.path(), Output::new(true)).unwrap();
        let before = fs::read(folder.path().join("job.nk")).unwrap();
        assert!(matches!(nats(folder.path(), Output::new(true)), Err(CliError::Write { .. })));
        assert_eq!(fs::read(folder.path().join("job.nk")).unwrap(), before);
    }
}
