//! Issuing: short-lived credentials for one connection and one purpose, sealed to whoever asked.
//!
//! `check` decides from grant and request, pure; `sessions` is the cache (one chain for however many ask at once); `issuer` puts them together.
//! What must not live here: probes, principals, STS itself.

mod check;
mod issuer;
mod sessions;

pub use issuer::{Issuer, serve};
pub use sessions::Sessions;
