//! How our services speak to AWS: one way to set the SDK up, one way to read what went wrong.
//!
//! What must not live here: contracts, NATS, any client of one service, any decision. Identities (`RoleArn`, `Region`, ...) are in `arn`.

mod config;
mod failure;
mod trace;

pub use aws_config::SdkConfig;
pub use aws_smithy_runtime_api::client::http::SharedHttpClient as HttpClient;
pub use config::{Patience, assuming, http_client, sdk_config, sdk_config_with};
pub use failure::{Failure, FailureKind, Unclear, classify, error_code, request_id};
pub use trace::{call_span, note, traced};
