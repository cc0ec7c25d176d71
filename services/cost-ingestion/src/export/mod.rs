//! The customer's export: what lies in the bucket, and which of it makes one billing period.
//!
//! Lives here: listing, manifests, the bounds on all of it. Must not live here: file formats (`source`), the table, NATS.
//! Everything found there is untrusted: the customer, or whoever can write to the bucket, decides what it says.

mod csv;
mod discover;
mod file;
mod manifest;
mod record;
mod s3;
mod unpack;

pub use discover::{
    COST_EXPLORER_BUCKET, Discovered, Export, Listed, Listing, Named, discover_local, may_hold_costs, read_manifest,
    versions_side_by_side,
};
pub use file::{CostFile, Part, Reader, failed, period_of};
pub use s3::{OpenExport, S3Exports};

use crate::api::ApiError;
use crate::credentials::CredentialError;
use contracts::costs::BillingPeriod;
use object_store::ObjectMeta;
use object_store::path::Path;

/// Bounds on what is read of one export. Beyond them it is refused whole: no bill of one account is that large.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Objects below the prefix.
    pub objects: usize,
    /// Bytes of one manifest.
    pub manifest_bytes: u64,
    /// Bytes of one cost file.
    pub file_bytes: u64,
    /// Bytes of all files of one period.
    pub period_bytes: u64,
    /// Rows of one period.
    pub period_rows: u64,
    /// Bytes that are held of one file at a time: the columns that are read of one row group, compressed or not.
    pub row_group_bytes: u64,
    /// Bytes that one packed file may unpack to.
    pub unpacked_bytes: u64,
    /// How many times its size a packed file may unpack to (64 MiB are free). Cost files take ten to forty times.
    pub unpack_factor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            objects: 100_000,
            manifest_bytes: 4 << 20,
            file_bytes: 8 << 30,
            period_bytes: 256 << 30,
            period_rows: 2_000_000_000,
            row_group_bytes: 1 << 30,
            unpacked_bytes: 256 << 30,
            unpack_factor: 250,
        }
    }
}

/// Why an export, or one period of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The bucket or prefix is no name that S3 has.
    #[error("the export location is malformed; it is a bucket name and a prefix without leading or trailing slash")]
    BadLocation,
    /// There are no credentials to read it with.
    #[error("{0}")]
    Credentials(CredentialError),
    /// S3 did not answer as hoped. Whether to try again is [`ExportError::is_transient`].
    #[error("{operation} failed in the customer's bucket{}", hint(operation, source))]
    Storage {
        /// What was done.
        operation: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The client for S3 could not be made.
    #[error("the S3 client could not be set up; check ROLEBRIDGE_S3_ENDPOINT")]
    Client(#[source] object_store::Error),
    /// One of the account's own APIs did not answer as hoped.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What Cost Explorer answered is kept beside the table, which is out of reach.
    #[error("{operation} the cost table failed; it is tried again")]
    Kept {
        /// What was done.
        operation: &'static str,
    },
    /// Nothing there.
    #[error(
        "there is neither a manifest nor a cost file (Parquet, .csv, .csv.gz, .zip) under the export's prefix; check the bucket and prefix given to the stack, and that AWS has delivered a first report (it takes up to 24 hours)"
    )]
    Nothing,
    /// Too much there.
    #[error("{what}: {found} is more than the limit of {limit}")]
    TooMuch {
        /// Of what.
        what: String,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// A manifest that is no manifest.
    #[error("the manifest {path} cannot be used: {why}")]
    BadManifest {
        /// Its path in the bucket.
        path: Path,
        /// Why.
        why: String,
    },
    /// A manifest names a file that is not there.
    #[error(
        "the manifest {path} names a file that is not in the bucket (report key number {number}); wait for AWS to deliver it, or refresh the report"
    )]
    MissingFile {
        /// The manifest's path.
        path: Path,
        /// Which of its report keys, from 1.
        number: usize,
    },
    /// A file that is no Parquet, or is cut off.
    #[error("the file {path} is not a complete Parquet file; AWS may still be writing it, or it is damaged")]
    BadFile {
        /// Its path in the bucket.
        path: Path,
        /// What the reader says.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// It was replaced while it was read.
    #[error("the file {path} changed while it was read; it is read again later")]
    Changed {
        /// Its path in the bucket.
        path: Path,
    },
    /// Its files were replaced since they were listed.
    #[error("the period's files changed since they were listed; they are listed and read again later")]
    Relisted,
    /// The reader died on one of its files.
    #[error(
        "reading the period's files broke off: one of them has a form that this program does not know; tell those who make it, with the lines of its log"
    )]
    BrokeOff,
    /// Formats that tell the same costs.
    #[error(
        "the files of {period} are of several formats ({families}), which tell the same costs and would count twice; give each export a folder of its own"
    )]
    SeveralFormats {
        /// The period.
        period: BillingPeriod,
        /// The formats.
        families: String,
    },
    /// Versions of a period, of which one counts.
    #[error(
        "the folder {folder} holds several versions of one period, and no manifest that says which one counts; deliver the manifests with them, or leave one version there"
    )]
    SideBySide {
        /// The period's folder.
        folder: String,
    },
    /// The rows do not fit.
    #[error("the file {path} cannot be used: {why}")]
    BadRows {
        /// Its path in the bucket.
        path: Path,
        /// Why.
        why: String,
    },
    /// The rows' columns do not fit.
    #[error("the file {path} cannot be used: {source}")]
    Source {
        /// Its path in the bucket.
        path: Path,
        /// Why: this text is ours, and is what a person needs to read.
        source: crate::source::SourceError,
    },
}

/// Whether a fault goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// The same read may well succeed a little later without anybody doing anything.
    Passes,
    /// Access was refused: policies take a while to settle, so it is tried a few times.
    Settles,
    /// Until somebody does something.
    Stays,
}

impl ExportError {
    /// Files without a row between them.
    #[must_use]
    pub fn without_rows(first: Option<&ObjectMeta>) -> Self {
        let path = first.map(|file| file.location.clone()).unwrap_or_default();
        let why = "it has no rows, nor has any other file of its period; nothing was charged yet, or the export leaves it out";
        Self::BadRows { path, why: why.to_owned() }
    }

    /// The file or manifest that is at fault.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::BadManifest { path, .. }
            | Self::MissingFile { path, .. }
            | Self::BadFile { path, .. }
            | Self::Changed { path }
            | Self::BadRows { path, .. }
            | Self::Source { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether trying again helps.
    #[must_use]
    pub fn lasts(&self) -> Lasts {
        match self {
            Self::Changed { .. } | Self::Relisted | Self::Kept { .. } => Lasts::Passes,
            Self::Api(error) => error.lasts(),
            Self::Credentials(error) if error.is_transient() => Lasts::Passes,
            Self::Storage { source, .. } => match Refusal::of(source) {
                Refusal::Denied => Lasts::Settles,
                Refusal::None => Lasts::Passes,
                _ => Lasts::Stays,
            },
            _ => Lasts::Stays,
        }
    }

    /// Whether the same read may well succeed a little later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.lasts() == Lasts::Passes
    }
}

/// What S3's answer means, as far as a person can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoBucket,
    NotThere,
    Denied,
    Elsewhere,
    BadName,
    None,
}

impl Refusal {
    fn of(error: &object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } if says(error, "NoSuchBucket") => Self::NoBucket,
            object_store::Error::NotFound { .. } => Self::NotThere,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => Self::Denied,
            object_store::Error::InvalidPath { .. } | object_store::Error::NotSupported { .. } => Self::BadName,
            // The client gives errors of listing no kind of their own; what S3 said stands in the chain.
            _ if says(error, "<Code>NoSuchBucket</Code>") => Self::NoBucket,
            _ if ELSEWHERE.iter().any(|words| says(error, words)) => Self::Elsewhere,
            _ if says(error, "<Code>AccessDenied</Code>") || says(error, "status code: 403") => Self::Denied,
            _ => Self::None,
        }
    }
}

/// What S3, or the client, says of a bucket in another region.
const ELSEWHERE: [&str; 3] =
    ["<Code>PermanentRedirect</Code>", "<Code>AuthorizationHeaderMalformed</Code>", "incorrectly configured region"];

/// Whether an error, or what caused it, has these words.
fn says(error: &object_store::Error, words: &str) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains(words) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a person can do about a storage error, from its kind alone: its text may hold request details.
fn hint(operation: &str, source: &object_store::Error) -> &'static str {
    match Refusal::of(source) {
        Refusal::NoBucket => ": there is no such bucket; check the bucket name given to the stack",
        Refusal::NotThere => ": it is not there; check the bucket name given to the stack",
        Refusal::Denied if operation.starts_with("listing") => {
            ": access was refused; the role's policy and the bucket's policy must allow s3:ListBucket on the bucket"
        }
        Refusal::Denied => {
            ": access was refused; the role's policy and the bucket's policy must allow s3:GetObject under the prefix (and kms:Decrypt with the key, if the objects are encrypted with one of KMS)"
        }
        Refusal::Elsewhere => {
            ": the bucket lies in another region than the one that was asked; let this service send HEAD requests to the bucket, which tell its region, or deliver to a bucket in the stack's region"
        }
        Refusal::BadName => ": it holds object names that are no plain paths",
        Refusal::None => "",
    }
}
