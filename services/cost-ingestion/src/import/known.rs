//! Which files the rows of imports came from: one small file for each period of each export, beside the table (`_rolebridge/imports/...`; engines pass over names
//! that start with `_`).
//!
//! A period of an export is replaced as a whole. Without this, an import of a part of its files would take the costs of the others away without a word, and the same
//! file under two exports would count twice. Written before the commit: a crash between the two leaves files named that the table does not have, which are then
//! read with the next import, or asked for.

use super::ImportError;
use crate::credentials::Scope;
use crate::export::Export;
use crate::ingest::{Ingestor, Unit};
use crate::table::Slice;
use contracts::costs::BillingPeriod;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;

const FOLDER: &str = "_rolebridge/imports";

/// One period of one export.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    export: String,
    period: BillingPeriod,
    /// Paths of files here.
    files: BTreeSet<String>,
}

/// What is known of one connection's imports.
pub(super) struct Known {
    beside: Arc<dyn ObjectStore>,
    folder: Path,
    records: Vec<Record>,
}

/// What is wrong with reading a unit alone, for a person.
pub(super) struct NotWhole(pub(super) String);

impl Known {
    /// Reads all of it.
    pub(super) async fn of(beside: Arc<dyn ObjectStore>, scope: Scope) -> Result<Self, ImportError> {
        let folder = Path::from(FOLDER).join(scope.tenant.to_string()).join(scope.connection.to_string());
        let listed: Vec<ObjectMeta> = beside.list(Some(&folder)).try_collect().await.map_err(ImportError::Known)?;
        let mut records = Vec::with_capacity(listed.len());
        for object in listed {
            let bytes = async { beside.get(&object.location).await?.bytes().await };
            let bytes = bytes.await.map_err(ImportError::Known)?;
            records.push(serde_json::from_slice(&bytes).map_err(ImportError::BadKnown)?);
        }
        Ok(Self { beside, folder, records })
    }

    /// The unit with all the files of its period: those of earlier imports that were not named now are read with it, where they still lie.
    pub(super) async fn whole(
        &self,
        unit: Unit,
        here: &Arc<dyn ObjectStore>,
        ingestor: &Ingestor,
    ) -> Result<Result<Unit, NotWhole>, ImportError> {
        let Some(record) = self.record(&unit.slice) else {
            let Slice { tenant, connection, export, period } = &unit.slice;
            let held = ingestor.table().exports(*tenant, *connection, period).await?.contains(export);
            return Ok(if held { Err(NotWhole(strange(&unit.slice))) } else { Ok(unit) });
        };
        let named: BTreeSet<_> = unit.files.iter().map(|file| file.location.to_string()).collect();
        let (mut unit, mut gone) = (unit, Vec::new());
        for path in record.files.iter().filter(|path| !named.contains(*path)) {
            let found = here.head(&Path::from(path.as_str())).await;
            let file = match found {
                Ok(file) => file,
                Err(object_store::Error::NotFound { .. }) => {
                    gone.push(path.as_str());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let periods = match ingestor.periods_of(here, &file, true).await {
                Ok(periods) => periods,
                Err(error) => return Ok(Err(NotWhole(super::told(&error)))),
            };
            if periods.contains(&unit.slice.period) {
                unit.mixed |= periods.len() > 1;
                unit.files.push(file);
            }
        }
        Ok(if gone.is_empty() { Ok(unit) } else { Err(NotWhole(missing(&gone, record.files.len()))) })
    }

    /// Says so if a file of the unit is in the table as another export's.
    pub(super) fn twice(&self, unit: &Unit) -> Option<NotWhole> {
        let others = self
            .records
            .iter()
            .filter(|record| record.period == unit.slice.period && Export::named(&record.export) != unit.slice.export);
        for record in others {
            if let Some(file) = unit.files.iter().find(|file| record.files.contains(file.location.as_ref())) {
                return Some(NotWhole(format!(
                    "the file /{} is in the table as part of the export {} already, and would count twice; name what was named then, or give --export {}",
                    file.location, record.export, record.export
                )));
            }
        }
        None
    }

    /// Writes down what the unit is about to be made of.
    pub(super) async fn keep(&mut self, unit: &Unit) -> Result<(), ImportError> {
        let (export, period) = (unit.slice.export.as_str().to_owned(), unit.slice.period.clone());
        let files = unit.files.iter().map(|file| file.location.to_string()).collect();
        let record = Record { export, period, files };
        let json = serde_json::to_vec(&record).map_err(ImportError::BadKnown)?;
        let digest = Sha256::digest(record.export.as_bytes());
        let name: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let path = self.folder.clone().join(name).join(format!("{}.json", record.period));
        self.beside.put(&path, json.into()).await.map_err(ImportError::Known)?;
        self.records.retain(|known| (&known.export, &known.period) != (&record.export, &record.period));
        self.records.push(record);
        Ok(())
    }

    fn record(&self, slice: &Slice) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| record.period == slice.period && Export::named(&record.export) == slice.export)
    }
}

fn missing(gone: &[&str], all: usize) -> String {
    let first = gone.first().copied().unwrap_or_default();
    let more = match gone.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more of them", count - 1),
    };
    format!(
        "the table's rows of it came from {all} files, of which /{first}{more} is no longer there, and its costs would be lost; put it back, or give --whole if what was named is all of the period"
    )
}

fn strange(slice: &Slice) -> String {
    format!(
        "the table has rows of it for the export {} that no import has written down the files of; give --whole if what was named is all of the period, or another --export",
        slice.export.as_str()
    )
}
