//! Making and reading keys where nobody waits for it: RSA keys take up to seconds.

use std::sync::Arc;
use std::time::Duration;

use mssm_crypto::jose::{Algorithm, JoseError, SigningKey};
use mssm_domain::SecretText;
use mssm_messages::engine::EngineError;
use tokio::sync::Semaphore;

use crate::keyset::Pair;

/// How many RSA keys are made at once; the rest waits its turn.
pub(crate) const AT_ONCE: usize = 2;
/// How long one waits for its turn and its key, together; less than a request may take.
const PATIENCE: Duration = Duration::from_secs(45);

/// Makes a key.
pub(crate) async fn generate(
    turns: &Arc<Semaphore>,
    algorithm: Algorithm,
    bits: usize,
) -> Result<Pair, EngineError> {
    aside(turns, algorithm, move || Pair::new(SigningKey::generate(algorithm, bits)?, false)).await
}

/// Reads a key from elsewhere.
pub(crate) async fn import(
    turns: &Arc<Semaphore>,
    algorithm: Algorithm,
    pem: SecretText,
) -> Result<Pair, EngineError> {
    let read = move || Pair::new(SigningKey::from_pem(algorithm, &pem)?, true);
    aside(turns, algorithm, read).await
}

/// Works on a thread of its own if that takes long, at once otherwise.
async fn aside(
    turns: &Arc<Semaphore>,
    algorithm: Algorithm,
    work: impl FnOnce() -> Result<Pair, JoseError> + Send + 'static,
) -> Result<Pair, EngineError> {
    if !algorithm.is_rsa() {
        return work().map_err(refused);
    }
    let made = async {
        let turn = Arc::clone(turns).acquire_owned().await.map_err(|_| EngineError::Internal)?;
        let made = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if nobody waits for it any more.
            let _turn = turn;
            work()
        });
        made.await.map_err(|_| EngineError::Internal)?.map_err(refused)
    };
    let late = |_| EngineError::Unavailable("too many RSA keys are being made, try again".into());
    tokio::time::timeout(PATIENCE, made).await.map_err(late)?
}

/// What a key's error is to its caller.
pub(crate) fn refused(error: JoseError) -> EngineError {
    match error {
        JoseError::Failed | JoseError::Signature => EngineError::Internal,
        JoseError::Bits
        | JoseError::Size
        | JoseError::Exponent
        | JoseError::Pem
        | JoseError::Key => EngineError::Invalid(error.to_string()),
    }
}
