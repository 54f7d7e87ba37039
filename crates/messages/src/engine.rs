//! To engine.
