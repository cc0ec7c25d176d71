//! Costs: reads customers' cost exports into one table in FOCUS columns, and answers what they add up to.
//!
//! | where | what |
//! |---|---|
//! | `money` | exact amounts |
//! | `focus` | the columns of the table |
//! | `source` | one mapping file per export format, and the language of them |
//! | `credentials` | short-lived credentials, renewed in the middle of a file |
//! | `api` | the account's own APIs: Cost Explorer, and its lists of exports |
//! | `object`, `pages`, `export` | what lies in a customer's bucket: manifests, files, bounds |
//! | `table` | the Delta Lake table: one slice sorted, replaced in one commit, compacted; old files deleted; the query |
//! | `upkeep` | compaction and vacuum, as commands and on a schedule |
//! | `import` | files that lie here, without a bus |
//! | `ingest` | the order of all that for one export |
//! | `work` | what comes and goes over NATS: events, jobs, credentials, the query |
//! | `config` | what the program is told |

pub mod api;
pub mod config;
pub mod credentials;
pub mod export;
pub mod focus;
pub mod import;
pub mod ingest;
pub mod money;
pub mod object;
mod pages;
mod run;
pub mod source;
pub mod table;
pub mod upkeep;
pub mod work;

pub use config::{Command, Config, Invocation, command};
pub use run::{RunError, run};
