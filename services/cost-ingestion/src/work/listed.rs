//! What the account itself says of its exports. The template lets the role read the bucket that the stack names, and no other: an export elsewhere is found,
//! looked at, and shown with S3's refusal.

use super::find::{Connected, FindExports, Place};
use crate::api::Apis;
use crate::api::reports::{self, Listed};
use crate::export::ExportError;
use async_trait::async_trait;
use contracts::Region;
use std::sync::Arc;

/// By `cur:DescribeReportDefinitions`.
pub struct ReportDefinitions(pub Arc<Apis>);

/// By `bcm-data-exports:ListExports`.
pub struct DataExports(pub Arc<Apis>);

#[async_trait]
impl FindExports for ReportDefinitions {
    fn name(&self) -> &'static str {
        "the account's report definitions"
    }

    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
        let Some(caller) = self.0.of(connected.scope, &connected.region) else { return Ok(Vec::new()) };
        Ok(places(reports::definitions(&caller).await?, connected))
    }
}

#[async_trait]
impl FindExports for DataExports {
    fn name(&self) -> &'static str {
        "the account's data exports"
    }

    async fn find(&self, connected: &Connected) -> Result<Vec<Place>, ExportError> {
        let Some(caller) = self.0.of(connected.scope, &connected.region) else { return Ok(Vec::new()) };
        Ok(places(reports::data_exports(&caller).await?, connected))
    }
}

fn places(listed: Vec<Listed>, connected: &Connected) -> Vec<Place> {
    let place = |Listed { location, region }| {
        let region = Region::parse(&region).unwrap_or_else(|_| connected.region.clone());
        Place { location, region }
    };
    listed.into_iter().map(place).collect()
}
