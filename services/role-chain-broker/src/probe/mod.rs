//! The three-way probe: what proves that a customer's role demands our external ID, and from us alone.
//!
//! `decision` is the rule, pure; `runner` asks STS and keeps the evidence; `own_side` sees whether a refusal can be ours. What must not live here: the state of a connection, which is the
//! registry's to decide.

mod decision;
mod own_side;
mod runner;

use decision::VOUCHES_FOR;
pub use decision::{Inquiry, Limits, Next, Seen};
pub use runner::{Outcome, Prober, Suspect};
