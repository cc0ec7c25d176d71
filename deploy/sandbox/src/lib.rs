//! The whole system on one machine: a real nats-server under the operators' own configuration, an AWS emulator with IAM on, the provider's and
//! the customers' templates, PostgreSQL, and the services as processes. `cargo demo` and all integration tests stand on it.
//!
//! What must not live here: rules of the product. This crate starts, stops and looks; it never decides what a right answer is.
//!
//! Everything listens on 127.0.0.1 alone, lives in a temporary folder, and ends with the program that started it, whatever ends that program.

mod account;
mod bridge;
mod emulator;
mod error;
mod iam_check;
mod nats;
mod operator;
mod paths;
mod port;
mod postgres;
mod process;
mod provider;
mod reaper;
mod root;
mod service;
mod system;
mod toolbox;

pub use account::{Account, ResourceFailure, StackEvent, StackRequest, StackState};
pub use emulator::{AwsEmulator, CallerIdentity};
pub use error::SandboxError;
pub use nats::{NatsServer, NatsUser};
pub use operator::Operator;
pub use postgres::PostgresServer;
pub use provider::{CUSTOMER_TEMPLATE, PROVIDER_ACCOUNT_TEMPLATE, PROVIDER_TEMPLATE, Provider, keeper_role};
pub use service::ServiceProcess;
pub use system::{PROVIDER_ACCOUNT, REGION, Service, System, SystemOptions};
pub use toolbox::Toolbox;
