//! tenant-registry.

pub mod config;
pub mod decide;
pub mod entity;
pub mod flow;
pub mod metrics;
mod migration;
pub mod offer;
pub mod reasons;
pub mod state;
pub mod store;
