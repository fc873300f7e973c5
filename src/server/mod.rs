//! The running gateway: the cores' threads and the control plane beside them. It knows how things start, drain and end;
//! what happens to a request is `proxy`'s.

pub mod control;
pub mod demo;
mod explain;
pub mod messages;
mod plan;
mod spread;
mod worker;

pub use control::{Options, StartError, run};
pub use explain::{ExplainError, Question, explain};
pub use plan::{Plan, PlanError, WorkerPlan, plan};
