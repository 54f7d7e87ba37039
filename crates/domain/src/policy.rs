//! What a policy can say, and the decision over all that a caller's policies say.

mod capability;

pub use capability::{Capabilities, Capability};
