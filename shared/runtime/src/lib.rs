//! How a service lives and ends: signals, supervised tasks, health over HTTP, the exit; and what strangers may cost it.
//!
//! Every program is `run(config, shutdown)`. Its long-lived tasks belong to a [`Supervisor`]: a task that ends, fails or panics before shutdown takes the
//! process down with its name and reason, because a service that silently does half its work is worse than one that restarts. No contracts, no NATS, no AWS here.

mod exit;
mod health;
mod http;
pub mod quota;
mod signals;
mod supervisor;
pub mod usage;

pub use exit::main_exit;
pub use health::{Health, Part};
pub use http::{HttpConfig, HttpError, HttpServer};
pub use signals::shutdown_on_signals;
pub use supervisor::{RuntimeError, Supervisor};
