//! Every message that crosses NATS: its type, its subject, its version. The one truth from which JSON Schemas and the AsyncAPI document are written.
//!
//! A message is a [`Message`] (published to a stream, in a CloudEvents envelope) or the request or response of an [`Endpoint`] (request-reply).
//! What must not live here: tokio, NATS clients, the AWS SDK, anything that decides. Changes within a version only add optional fields;
//! the golden files in `golden/` hold what older programs have sent and must still decode.

pub mod audit;
pub mod callback;
pub mod catalog;
pub mod connection;
pub mod costs;
pub mod credentials;
pub mod enrollment;
mod envelope;
mod error;
pub mod generate;
mod ids;
mod message;
mod page;
pub mod principal;
pub mod revocation;
mod secret;
pub mod subject;
pub mod tenant;
mod timestamp;
pub mod verification;

pub use arn::{
    AccountId, IamPath, MOST_PRINCIPALS, ParseIdentityError, Partition, PrincipalAccount, PrincipalAccounts,
    PrincipalAccountsError, Region, RoleArn, StackId, TopicArn, UserArn,
};
pub use envelope::{CloudEvent, Envelope, EnvelopeError};
pub use error::{ErrorCode, ErrorReply};
pub use ids::{ConnectionId, EnrollmentId, EventId, JobId, ParseIdError, TenantId};
pub use message::{Audience, Endpoint, Message, Stream};
pub use page::{Page, PageRequest};
pub use secret::{CallbackToken, ExternalId, ParseSecretError, SealedBox, SealingKey, TokenHash};
pub use subject::Subject;
pub use timestamp::Timestamp;
