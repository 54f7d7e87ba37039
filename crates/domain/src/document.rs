//! A JSON document kept as the text that was sent, so that numbers come back exactly.

use crate::SecretText;

/// Raw JSON text of one value, as the caller wrote it. Whoever makes one has parsed it as JSON.
#[derive(Debug)]
pub struct Document(SecretText);

impl Document {
    /// Wraps text that the caller has checked to be one JSON value.
    pub fn from_checked_json(text: SecretText) -> Self {
        Self(text)
    }

    /// Shows the JSON text; each call says in an `EXPOSE:` comment why it must.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Copies the document, deliberately.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }
}
