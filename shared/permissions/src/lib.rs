//! Who may do what on the bus: the permissions of every NATS user, as data.
//!
//! What a service publishes and serves follows from the contracts. What they do not know (who reads which stream as which consumer, who keeps which bucket,
//! who asks for which purpose) stands in [`matrix`] and nowhere else. From both, [`conf`] writes the server's configuration, and [`table`] what a person reads.
//! A user that belongs to no service is made by [`limited`]: a job for some tenants, a reader of some events.
//!
//! Nothing here talks to a server. The tests that hold a real one to this data are in `deploy/sandbox`.

pub mod conf;
pub mod limited;
pub mod matrix;
mod right;
pub mod table;
mod user;

pub use right::Right;
pub use user::{Key, User, UserName, UserNameError, variable};
