//! What actors say to each other: one module an actor that receives.
