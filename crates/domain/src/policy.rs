//! What a policy can say of a path.

mod capability;
mod parameters;

pub use capability::{Capabilities, Capability};
pub use parameters::ParameterRules;
