//! Makes key files.

use std::{io, path::PathBuf};

use contracts::SealingKey;
use messaging::seal::{SealError, SealSeed};

use crate::{KeygenArgs, wrap::LocalKey};

#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    #[error("the key file {path} cannot be made")]
    Key {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the seed that seals credentials cannot be made or read")]
    Seal(#[source] SealError),
}

/// Makes the files that are named and not there yet; gives the public key that requesters pin.
///
/// # Errors
/// When a file cannot be written, or an existing seed cannot be read.
pub fn keygen(args: &KeygenArgs) -> Result<Option<SealingKey>, KeygenError> {
    if let Some(path) = args.key_file.as_ref().filter(|path| !path.exists()) {
        LocalKey::create(path).map_err(|source| KeygenError::Key { path: path.clone(), source })?;
    }
    let Some(path) = &args.seal_seed_file else { return Ok(None) };
    if !path.exists() {
        SealSeed::generate().and_then(|seed| seed.save(path)).map_err(KeygenError::Seal)?;
    }
    SealSeed::from_file(path).map(|seed| Some(seed.public().clone())).map_err(KeygenError::Seal)
}
