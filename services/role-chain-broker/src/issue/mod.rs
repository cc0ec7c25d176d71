//! Issuing: short-lived credentials for one connection and one purpose, sealed to whoever asked.
//!
//! `check` decides from grant and request, pure; `sessions` is the cache (one chain for however many ask at once); `issuer` puts them together, `refusals` says what a requester is told otherwise. `used` tells the registry
//! which connections are in use. What must not live here: probes, principals, STS itself.

mod check;
mod issuer;
mod refusals;
mod sessions;
mod used;

pub use issuer::{Issuer, serve};
pub use sessions::Sessions;
pub use used::{UsedConnections, tell as tell_used};
