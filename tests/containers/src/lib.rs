//! Runs the database tests against a PostgreSQL in a container (`scripts/test --docker`).
