//! Puts a database right that is an older copy: after a restore, keys that follow its state may
//! have been used by the run that came after the copy.
//!
//! Nothing is sent before this is done, and it is one commit. Every Matrix user of ours gets
//! another device under the same identity; OMEMO sessions only receive until the other side has
//! answered them, and all prekeys are new. What people have decided since the copy is lost: the
//! operator is told.

use e2ee::omemo::{Account, SessionList, StateError};
use rand_core::{CryptoRng, RngCore};

use crate::{
    clock::Clock,
    store::{Database, StoreError},
};

/// What was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Matrix users of ours whose device is replaced.
    pub matrix_devices: usize,
    /// OMEMO devices of ours whose prekeys are replaced.
    pub omemo_devices: usize,
    /// Devices of contacts with which new sessions are made before anything is sent.
    pub omemo_sessions: usize,
}

/// Puts the database right, if it is an older copy.
///
/// # Errors
/// When the database failed: nothing has changed, and nothing may be sent.
pub async fn recover(
    db: &Database,
    clock: &dyn Clock,
    rng: &mut (impl CryptoRng + RngCore + Send),
) -> Result<Option<Recovered>, RecoveryError> {
    if !db.is_rolled_back() {
        return Ok(None);
    }
    let mut tx = db.begin().await?;
    let matrix_devices = tx.recovery().replace_matrix_devices().await?;
    let accounts = tx.recovery().omemo_accounts().await?;
    for author in &accounts {
        let Some(bytes) = tx.xmpp_omemo().find_account(author).await? else { continue };
        let mut account = Account::from_bytes(&bytes)?;
        account.replace_prekeys(clock.now(), rng);
        tx.xmpp_omemo().save_account(author, &account.to_bytes()?).await?;
    }
    // With them a message that was read since would be read again, and begin its session anew.
    tx.xmpp_inbox().forget_prekeys().await?;
    let sessions = tx.recovery().omemo_sessions().await?;
    for (chat, device, namespace) in &sessions {
        let stored = tx.xmpp_omemo().find_sessions(chat, *device, *namespace).await?;
        let Some(bytes) = stored else { continue };
        let mut list = SessionList::from_bytes(&bytes)?;
        list.receive_only();
        tx.xmpp_omemo().save_sessions(chat, *device, *namespace, &list.to_bytes()?).await?;
    }
    db.recovered(tx).await?;
    let (omemo_devices, omemo_sessions) = (accounts.len(), sessions.len());
    Ok(Some(Recovered { matrix_devices, omemo_devices, omemo_sessions }))
}

/// The database was not put right.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// A device or session of ours cannot be read.
    #[error("stored key state cannot be read")]
    State(#[from] StateError),
}
