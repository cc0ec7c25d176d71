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

/// Cargo tags the build folder only if it makes it, and keeps a file of its own in it always.
const MARKS: [&str; 2] = ["CACHEDIR.TAG", ".rustc_info.json"];

fn target_dir() -> Result<PathBuf> {
    build_folder(&programs_dir()?).map(Path::to_owned).ok_or(SandboxError::NoBuildFolder)
}

/// `target` above `target/debug` or `target/<triple>/debug`; without any mark, the folder right above.
fn build_folder(programs: &Path) -> Option<&Path> {
    let marked = |dir: &&Path| MARKS.iter().any(|mark| dir.join(mark).is_file());
    programs.ancestors().find(marked).or_else(|| programs.parent())
}

fn profile_dir(exe: &Path) -> Option<&Path> {
    let dir = exe.parent()?;
    if dir.file_name().is_some_and(|name| name == "deps" || name == "examples") { dir.parent() } else { Some(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_folder_is_found_however_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("target/triple/debug");
        std::fs::create_dir_all(&programs).unwrap();
        assert_eq!(build_folder(&programs), programs.parent());
        for mark in MARKS {
            std::fs::write(folder.path().join("target").join(mark), "").unwrap();
            assert_eq!(build_folder(&programs), Some(folder.path().join("target").as_path()));
            std::fs::remove_file(folder.path().join("target").join(mark)).unwrap();
        }
    }

    #[test]
    fn programs_lie_beside_a_program_and_above_a_test() {
        assert_eq!(profile_dir(Path::new("/t/debug/rolebridge-sandbox")), Some(Path::new("/t/debug")));
        assert_eq!(profile_dir(Path::new("/t/debug/deps/nats-0123")), Some(Path::new("/t/debug")));
    }
}
