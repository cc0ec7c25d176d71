//! Files that lie here, and their import.

use contracts::TenantId;
use contracts::costs::QueryCostsRequest;
use cost_ingestion::import::{ImportArgs, ImportReport, import};
use cost_ingestion::table::CostTable;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_util::sync::CancellationToken;

/// A folder for files, one for the table, a tenant.
pub struct Desk {
    pub folder: tempfile::TempDir,
    pub tenant: TenantId,
}

impl Desk {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), tenant: TenantId::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn table(&self) -> String {
        self.path("table").display().to_string()
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub async fn import(&self, files: &[PathBuf]) -> ImportReport {
        self.import_as(files, false, None).await
    }

    pub async fn import_as(&self, files: &[PathBuf], whole: bool, export: Option<&str>) -> ImportReport {
        let (files, export) = (files.to_vec(), export.map(str::to_owned));
        let (tenant, table) = (self.tenant, self.table());
        let args = ImportArgs { files, tenant, table, connection: None, export, whole, json: false };
        import(&args, &CancellationToken::new()).await.unwrap()
    }

    /// (rows, billed, effective) of the table.
    pub async fn held(&self) -> (u64, String, String) {
        let table = CostTable::open(&self.table()).await.unwrap();
        let costs = table.query(self.tenant, &QueryCostsRequest::default()).await.unwrap();
        let total = &costs.totals[0];
        (costs.rows, total.billed.decimal().normalize().to_string(), total.effective.decimal().normalize().to_string())
    }

    /// Runs the generator, and says what it says of its totals.
    pub fn generate(&self, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let out = self.path(name);
        let done =
            Command::new(env!("CARGO_BIN_EXE_generate-costs")).arg("--out").arg(&out).args(more).status().unwrap();
        assert!(done.success());
        let totals = std::fs::read(out.join("totals.json")).unwrap();
        (out, serde_json::from_slice(&totals).unwrap())
    }
}

pub fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// One file in a zip archive as AWS writes it, with the sizes behind the data.
pub fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    let packed = packer.finish().unwrap();
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    let sizes = [sum.sum(), packed.len() as u32, bytes.len() as u32];
    let name = b"report-00001.csv";
    let mut zip = b"PK\x03\x04\x14\x00\x08\x00\x08\x00".to_vec();
    zip.extend([0; 16]);
    zip.extend((name.len() as u16).to_le_bytes());
    zip.extend([0; 2]);
    zip.extend(name);
    zip.extend(&packed);
    let end = zip.len() as u32 + 16;
    zip.extend(b"PK\x07\x08");
    sizes.iter().for_each(|size| zip.extend(size.to_le_bytes()));
    zip.extend(b"PK\x01\x02\x14\x00\x14\x00\x08\x00\x08\x00\x00\x00\x00\x00");
    sizes.iter().for_each(|size| zip.extend(size.to_le_bytes()));
    zip.extend((name.len() as u16).to_le_bytes());
    zip.extend([0; 16]);
    zip.extend(name);
    let directory = zip.len() as u32 - end;
    zip.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    zip.extend(directory.to_le_bytes());
    zip.extend(end.to_le_bytes());
    zip.extend([0; 2]);
    zip
}
