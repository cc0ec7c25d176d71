//! Asking the broker for credentials, the way a job should: with a key of its own, and with the broker's key pinned.
//!
//! [`Client`] asks once: what comes back has been opened with a pinned key and compared with what was asked for. [`CachedCredentials`] keeps what it was given for
//! one connection and asks again in time. With the feature `aws-sdk` it is a credentials provider of the AWS SDK. What may be had is the broker's to decide, and nothing of it
//! lives here.
//!
//! ```no_run
//! use client::{Client, Wanted};
//! use contracts::{ConnectionId, SealingKey, TenantId, credentials::Purpose};
//! use messaging::Bus;
//!
//! # async fn job(bus: Bus, tenant: TenantId, connection: ConnectionId) -> Result<(), Box<dyn std::error::Error>> {
//! let broker: SealingKey = "XD5KFKN5ZSBXOKH77XV3ZIFNUNCKZJT6XZVKKSBW2KMDO6BALEG6FKY5".parse()?;
//! let client = Client::new(bus, broker, "nightly-costs")?;
//! let credentials = client.cached(tenant, connection, Wanted::from(Purpose::CostRead));
//! // As often as you like: the broker is asked when there are none with enough time left.
//! let session = credentials.get().await?;
//! println!("{} until {}", session.about.role_arn, session.credentials.expires_at);
//! # Ok(()) }
//! ```
#![cfg_attr(
    feature = "aws-sdk",
    doc = "
With the AWS SDK:

```no_run
# use client::{Client, Wanted};
# use contracts::{ConnectionId, TenantId, credentials::Purpose};
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};

# async fn job(client: Client, tenant: TenantId, connection: ConnectionId) -> Result<(), Box<dyn std::error::Error>> {
let provider = SharedCredentialsProvider::new(client.cached(tenant, connection, Wanted::from(Purpose::CostRead)));
// aws_config::defaults(..).credentials_provider(provider.clone()) and on to any client of the SDK; or by hand:
let keys = provider.provide_credentials().await?;
println!(\"{} until {:?}\", keys.access_key_id(), keys.expiry());
# Ok(()) }
```
"
)]

mod ask;
#[cfg(feature = "aws-sdk")]
mod aws_sdk;
mod cached;
mod pinned;

pub use ask::{Client, IssueError, Session, Wanted};
pub use cached::{CachedCredentials, CredentialsError, Renewal};
pub use pinned::Pinned;
