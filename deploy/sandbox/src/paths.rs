//! Where things lie: everything fetched or built is in cargo's build folder, everything that lives for one run in the system's temporary folder.

use std::path::{Path, PathBuf};

use crate::error::{Result, SandboxError};

/// `<build folder>/sandbox`, made if it is missing.
pub(crate) fn sandbox_dir() -> Result<PathBuf> {
    let dir = target_dir()?.join("sandbox");
    std::fs::create_dir_all(&dir).map_err(SandboxError::io(format!("make the folder {}", dir.display())))?;
    Ok(dir)
}

/// The folder with the workspace's programs (`target/debug`), found from the running program: a test's is in its `deps`.
pub(crate) fn programs_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(SandboxError::io("find the running program"))?;
    profile_dir(&exe).map(Path::to_owned).ok_or(SandboxError::NoBuildFolder)
}

fn target_dir() -> Result<PathBuf> {
    // The running program knows better than the variable, which may have changed since the build; with neither there is nothing to go by.
    if let Ok(dir) = programs_dir()
        && let Some(target) = dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file())
    {
        return Ok(target.to_owned());
    }
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(dir).map_err(SandboxError::io("make CARGO_TARGET_DIR absolute")),
        None => Err(SandboxError::NoBuildFolder),
    }
}

fn profile_dir(exe: &Path) -> Option<&Path> {
    let dir = exe.parent()?;
    if dir.file_name().is_some_and(|name| name == "deps" || name == "examples") { dir.parent() } else { Some(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lie_beside_a_program_and_above_a_test() {
        assert_eq!(profile_dir(Path::new("/t/debug/rolebridge-sandbox")), Some(Path::new("/t/debug")));
        assert_eq!(profile_dir(Path::new("/t/debug/deps/nats-0123")), Some(Path::new("/t/debug")));
    }
}
