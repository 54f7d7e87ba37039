//! The flows, on virtual time, over a store and an engine that fail when told to.

mod book;
mod book_ending;
mod clock;
mod ending;
mod issuing;
mod lately;
mod log;
mod outbox;
mod reconciling;
mod renewing;
mod repeating;
mod rig;
mod tidying;
