//! Clocks that tests turn, seeded randomness, fake actors and a real PostgreSQL.
