//! What operators do with a store while its server is stopped.

use std::fmt::Write as _;
use std::path::Path;

use mssm_storage::OpenError;

use crate::config::{Config, Environment};

/// Checks every record of the store that the settings name; the error says what is damaged.
pub(crate) fn storage_check(
    file: Option<&Path>,
    environment: &Environment,
) -> Result<String, String> {
    let config = Config::load(file, environment).map_err(|error| match file {
        Some(_) => error.to_string(),
        None => format!("give -config FILE (the environment alone says too little: {error})"),
    })?;
    let report = mssm_storage::check_offline(&config.storage)
        .map_err(|error| match error {
            OpenError::InUse(_) => format!("{error}: stop the server first"),
            _ => error.to_string(),
        })?
        .map_err(|error| error.to_string())?;
    let mut text = format!("{} records are whole", report.records);
    if report.damaged.is_empty() {
        return Ok(text);
    }
    let _ = write!(text, ", {} are damaged:", report.damaged.len());
    for place in report.damaged {
        let _ = write!(text, "\n  {place}");
    }
    Err(text)
}
