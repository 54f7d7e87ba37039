//! The engine over a store in memory and a clock that the tests turn.

mod elsewhere;
mod hostile;
mod rig;
mod roles;
mod rotating;
mod signing;
