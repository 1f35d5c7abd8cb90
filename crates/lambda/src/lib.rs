//! What stagemill's Lambda functions share.
//!
//! * [`boot`]: start-up and logging
//! * [`session`]: the sandbox's one connection, checked on entry
//! * [`secret`]: credentials from Secrets Manager, cached, fetched again when refused
//! * [`diagnostic`]: failures under stable names
//! * [`deadline`]: when an invocation stops by itself
//! * [`metric`]: metrics, as lines of standard output
//! * [`turn`]: which run of an execution it is

pub mod boot;
pub mod deadline;
pub mod diagnostic;
pub mod metric;
pub mod secret;
pub mod session;
pub mod turn;
