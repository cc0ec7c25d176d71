//! What the tests of the whole system share. The system itself is in `sandbox`; rules of the product are nowhere here.

pub mod canary;
pub mod faults;
pub mod otlp;
pub mod sts;
pub mod trace;
pub mod yard;
