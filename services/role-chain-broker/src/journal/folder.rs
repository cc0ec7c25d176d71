//! The folder of one broker instance: locked while it is used, readable by its owner alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    record::{HEADER, Header, Millis},
    segment::Segment,
};

const ENDING: &str = "segment";
/// A segment whose rest could not be read, when all of it that could be was published.
const DAMAGED: &str = "damaged";

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the audit journal {folder} cannot be used: it must be a folder that this user may write to")]
    Folder {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the audit journal {folder} is in use by another process: give each instance of role-chain-broker a folder of its own (ROLEBRIDGE_AUDIT_JOURNAL)"
    )]
    InUse { folder: PathBuf },
    #[error(
        "{file} in the audit journal is not of a form that this version knows: start the version that wrote it, or move the file away and keep it, for what it holds was not published"
    )]
    NoSegment { file: PathBuf },
}

/// Holds the lock until it is dropped, or the process ends, in whatever way.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if need be; gives what earlier lives left there, in order.
    ///
    /// # Errors
    /// When it is another's or cannot be written, or holds what cannot be read.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Segment>), OpenError> {
        let unusable = |source| OpenError::Folder { folder: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        if fs::metadata(path).map_err(unusable)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { folder: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        let left = folder.left()?;
        Ok((folder, left))
    }

    fn left(&self) -> Result<Vec<Segment>, OpenError> {
        let unusable = |source| OpenError::Folder { folder: self.path.clone(), source };
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unusable)? {
            let path = entry.map_err(unusable)?.path();
            if path.extension().is_some_and(|ending| ending == "new") {
                // A crash before anything could be written to it.
                fs::remove_file(&path).map_err(unusable)?;
            } else if path.extension().is_some_and(|ending| ending == ENDING) {
                left.push(path);
            }
        }
        left.sort();
        left.into_iter()
            .map(|path| {
                let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                let number = number.ok_or_else(|| OpenError::NoSegment { file: path.clone() })?;
                Segment::left(number, &path).map_err(unusable)?.ok_or(OpenError::NoSegment { file: path })
            })
            .collect()
    }

    /// A new segment, that a crash leaves whole or not at all.
    pub(super) fn begin(&self, number: u64, begun: Millis) -> io::Result<Segment> {
        let header = Header { id: Uuid::new_v4(), begun };
        let path = self.path.join(format!("{number:016}.{ENDING}"));
        let unfinished = path.with_extension("new");
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&unfinished)?;
        // What a failed attempt left.
        file.set_len(0)?;
        file.write_all(&header.encode())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        self.sync()?;
        Ok(Segment::new(number, header, path, file, HEADER as u64))
    }

    pub(super) fn remove(&self, segment: &Segment) -> io::Result<()> {
        match fs::remove_file(segment.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Keeps a segment out of the way of the journal, for people to look at.
    pub(super) fn set_aside(&self, segment: &Segment) -> io::Result<PathBuf> {
        let aside = segment.path().with_extension(DAMAGED);
        fs::rename(segment.path(), &aside)?;
        self.sync()?;
        Ok(aside)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
