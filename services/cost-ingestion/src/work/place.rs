//! What lies at one place: its exports with their periods and files, and, where several tell of the same period, what each of them is.
//!
//! What was found before and has not changed is not asked for again: neither manifests nor files.

use super::choose;
use super::find::Place;
use super::ledger::{self, FileVersion, Files, FoundExport, FoundUnit, Ledger, LedgerError, Looked, ManifestVersion};
use crate::credentials::Scope;
use crate::export::{Discovered, Export, ExportError, Listed, Listing, Named, read_manifest};
use crate::ingest::{Ingestor, Order, Unit};
use crate::table::Slice;
use contracts::AccountId;
use contracts::costs::{BillingPeriod, ExportLocation};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Looks at the places of one connection.
pub(super) struct Looker<'l> {
    pub(super) ingestor: &'l Ingestor,
    pub(super) ledger: &'l Ledger,
    pub(super) scope: Scope,
    pub(super) account: &'l AccountId,
    /// What was found before.
    pub(super) known: &'l [FoundExport],
}

/// Why a place could not be looked at.
pub(super) enum PlaceError {
    Export(ExportError),
    Ledger(LedgerError),
}

impl From<ExportError> for PlaceError {
    fn from(error: ExportError) -> Self {
        Self::Export(error)
    }
}

impl From<LedgerError> for PlaceError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

type Store = Arc<dyn ObjectStore>;

impl Looker<'_> {
    pub(super) async fn open(&self, place: &Place) -> Result<Store, ExportError> {
        let (region, location) = (place.region.clone(), place.location.clone());
        self.ingestor.open(&Order { scope: self.scope, account: self.account.clone(), region, location }).await
    }

    /// All exports at a place.
    pub(super) async fn look(&self, store: &Store, place: &Place) -> Result<Vec<FoundExport>, PlaceError> {
        let listing = Listing::of(store, &place.location, self.ingestor.limits()).await?;
        let manifests = listing.manifests(&place.location);
        let mut units: BTreeMap<Export, Vec<FoundUnit>> = BTreeMap::new();
        if manifests.is_empty() {
            let found = listing.plain(&place.location, self.ingestor.limits())?;
            let export = found.export.clone();
            units.insert(export, self.plain(store, found).await?);
        }
        for listed in manifests {
            if let Some(unit) = self.by_manifest(store, place, &listing, &listed).await? {
                units.entry(listed.export).or_default().push(unit);
            }
        }
        let export = |(export, mut units): (Export, Vec<FoundUnit>)| {
            units.sort_by(|a, b| Reverse(&a.period).cmp(&Reverse(&b.period)));
            let (place, region) = (place.location.clone(), place.region.clone());
            FoundExport { export: export.as_str().to_owned(), place, region, units }
        };
        Ok(units.into_iter().map(export).collect())
    }

    fn known(&self, export: &str, period: &BillingPeriod) -> Option<&FoundUnit> {
        let export = self.known.iter().find(|known| known.export == export)?;
        export.units.iter().find(|unit| unit.period == *period)
    }

    /// A unit by its manifest. One that is at fault stands for its period, with the reason; none when not even that can be told.
    async fn by_manifest(
        &self,
        store: &Store,
        place: &Place,
        listing: &Listing,
        listed: &Listed,
    ) -> Result<Option<FoundUnit>, PlaceError> {
        let version =
            ManifestVersion { path: listed.manifest.location.to_string(), e_tag: listed.manifest.e_tag.clone() };
        let named = match self.remembered(listed, &version).await? {
            Some(named) => Ok(named),
            None => {
                let limits = self.ingestor.limits();
                read_manifest(store, &place.location, self.account, limits, &listed.manifest).await
            }
        };
        let files = named.and_then(|named| {
            let files = listing.files(&listed.manifest.location, &named.files, self.ingestor.limits())?;
            Ok((named.period, files))
        });
        match files {
            Ok((period, files)) => {
                self.unit(&listed.export, period, files, false, Some(version)).await.map(Some).map_err(Into::into)
            }
            Err(error) if error.is_transient() => Err(error.into()),
            Err(error) => {
                tracing::warn!(error = ?error, "a period's files cannot be told");
                let Some(period) = listed.period.clone() else { return Err(error.into()) };
                let failure = Some(ledger::reason(&error));
                let (fingerprint, files, bytes, mixed) = (None, 0, 0, false);
                let (look, superseded, manifest) = (None, None, Some(version));
                Ok(Some(FoundUnit { period, fingerprint, files, bytes, mixed, manifest, look, failure, superseded }))
            }
        }
    }

    /// What a manifest said that has not changed since it was read.
    async fn remembered(&self, listed: &Listed, version: &ManifestVersion) -> Result<Option<Named>, LedgerError> {
        let Some(period) = &listed.period else { return Ok(None) };
        let export = listed.export.as_str();
        let known = self.known(export, period).filter(|known| {
            known.manifest.as_ref() == Some(version) && version.e_tag.is_some() && known.failure.is_none()
        });
        if known.is_none() {
            return Ok(None);
        }
        let Some(files) = self.ledger.files(self.scope, export, period).await? else { return Ok(None) };
        let paths: Option<Vec<Path>> = files.files.iter().map(|file| Path::parse(file.path()).ok()).collect();
        Ok(paths.map(|files| Named { period: period.clone(), files }))
    }

    /// Units of files that no manifest names: each file that is new is asked for its periods. One that cannot be told spoils all: without it, its period
    /// would look complete and be too cheap.
    async fn plain(&self, store: &Store, found: Discovered) -> Result<Vec<FoundUnit>, PlaceError> {
        let export = found.export.as_str();
        let mut told: BTreeMap<String, (FileVersion, BTreeSet<BillingPeriod>)> = BTreeMap::new();
        for unit in self.known.iter().filter(|known| known.export == export).flat_map(|known| &known.units) {
            let files = self.ledger.files(self.scope, export, &unit.period).await?;
            for file in files.into_iter().flat_map(|files| files.files) {
                let path = file.path().to_owned();
                let (known, periods) = told.entry(path).or_insert_with(|| (file.clone(), BTreeSet::new()));
                if *known == file {
                    periods.insert(unit.period.clone());
                }
            }
        }
        let mut units: BTreeMap<BillingPeriod, (Vec<ObjectMeta>, bool)> = BTreeMap::new();
        for file in &found.files {
            let periods = match told.get(file.location.as_ref()).filter(|(known, _)| known.is(file)) {
                Some((_, periods)) => periods.clone(),
                None => self.ingestor.periods_of(store, file, found.thorough).await?,
            };
            let mixed = periods.len() > 1;
            for period in periods {
                let (files, any_mixed) = units.entry(period).or_default();
                files.push(file.clone());
                *any_mixed |= mixed;
            }
        }
        if units.is_empty() {
            return Err(ExportError::without_rows(found.files.first()).into());
        }
        let mut all = Vec::with_capacity(units.len());
        for (period, (files, mixed)) in units {
            all.push(self.unit(&found.export, period, files, mixed, None).await?);
        }
        Ok(all)
    }

    /// A unit of these files, which are written down if they are new.
    async fn unit(
        &self,
        export: &Export,
        period: BillingPeriod,
        files: Vec<ObjectMeta>,
        mixed: bool,
        manifest: Option<ManifestVersion>,
    ) -> Result<FoundUnit, LedgerError> {
        let Scope { tenant, connection } = self.scope;
        let slice = Slice { tenant, connection, export: export.clone(), period: period.clone() };
        let (count, bytes) = (files.len(), files.iter().map(|file| file.size).sum());
        let listed = files.iter().map(FileVersion::from).collect();
        let fingerprint = Unit { slice, files, mixed }.fingerprint();
        let known = self.known(export.as_str(), &period).filter(|known| known.fingerprint == Some(fingerprint));
        if known.is_none() {
            let files = Files { fingerprint, files: listed };
            self.ledger.keep_files(self.scope, export.as_str(), &period, &files).await?;
        }
        let look = known.and_then(|known| known.look.clone());
        let (fingerprint, files) = (Some(fingerprint), u32::try_from(count).unwrap_or(u32::MAX));
        Ok(FoundUnit { period, fingerprint, files, bytes, mixed, manifest, look, failure: None, superseded: None })
    }

    /// Looks what the exports are, where several tell of the same period. Answers those that could not be looked at this time: they wait.
    pub(super) async fn compare(
        &self,
        exports: &mut [FoundExport],
        stores: &[(ExportLocation, Store)],
    ) -> Result<Vec<(String, ExportError)>, LedgerError> {
        let contested = choose::contested(exports);
        let mut failures = Vec::new();
        for export in exports {
            let store = stores.iter().find(|(place, _)| *place == export.place).map(|(_, store)| store);
            for unit in export.units.iter_mut().filter(|unit| contested.contains(&unit.period) && unit.look.is_none()) {
                let Some(store) = store.filter(|_| unit.fingerprint.is_some()) else {
                    unit.look = self.looked_before(&export.export, &unit.period).await?;
                    continue;
                };
                match self.first_rows(store, &export.export, unit).await? {
                    Ok(look) => unit.look = Some(look),
                    Err(error) if error.is_transient() => {
                        unit.fingerprint = None;
                        unit.look = self.looked_before(&export.export, &unit.period).await?;
                        failures.push((export.export.clone(), error));
                    }
                    // It stands where it stood: reading it fails too, and says why.
                    Err(_) => unit.look = self.looked_before(&export.export, &unit.period).await?,
                }
            }
        }
        Ok(failures)
    }

    async fn first_rows(
        &self,
        store: &Store,
        export: &str,
        unit: &FoundUnit,
    ) -> Result<Result<Looked, ExportError>, LedgerError> {
        let files = self.ledger.files(self.scope, export, &unit.period).await?;
        let first = files.and_then(|files| files.files.first().and_then(FileVersion::object));
        let Some(first) = first else { return Ok(Err(ExportError::Nothing)) };
        let look = self.ingestor.look(store, &first).await;
        Ok(look.map(|look| Looked { format: look.format.to_owned(), payer: look.payer }))
    }

    /// What an earlier version of the unit was.
    async fn looked_before(&self, export: &str, period: &BillingPeriod) -> Result<Option<Looked>, LedgerError> {
        if let Some(look) = self.known(export, period).and_then(|known| known.look.clone()) {
            return Ok(Some(look));
        }
        let entry = self.ledger.entry(self.scope, export, period).await?;
        let format = entry.held().map(|version| version.formats.split(",").next().unwrap_or_default().to_owned());
        Ok(format.map(|format| Looked { format, payer: entry.payers.first().cloned() }))
    }
}
