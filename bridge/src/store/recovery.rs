//! What becomes of key state in a database that is an older copy.

use e2ee::omemo::{DeviceId, Namespace};
use ruma::{OwnedUserId, UserId};
use sqlx::AnyConnection;

use crate::network::{Author, ChatKey};

use super::{
    GhostStage, StoreError, Transaction,
    chat_columns::{author, chat_key},
    error::parse_column,
};

/// Records of a Matrix device that end with it. Its owner's private identity, what it knows of
/// others and the room keys it was given stay.
const OF_THE_DEVICE: &str = "'account', 'olm_session', 'outbound_room_key', 'next_batch', \
     'olm_hash', 'key_request', 'tracked_user', 'withheld', 'secret'";

/// The key state as a whole.
pub struct Recovery<'t> {
    conn: &'t mut AnyConnection,
}

impl Transaction {
    /// The key state as a whole, to be put right after a restore.
    pub fn recovery(&mut self) -> Recovery<'_> {
        Recovery { conn: self.parts().0 }
    }
}

impl Recovery<'_> {
    /// Gives every Matrix user of ours another device under the same identity, without sessions,
    /// room keys of its own or one-time keys. Returns how many.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn replace_matrix_devices(&mut self) -> Result<usize, StoreError> {
        let ghosts: Vec<(String,)> =
            sqlx::query_as("SELECT user_id FROM ghosts").fetch_all(&mut *self.conn).await?;
        for (user,) in &ghosts {
            let user: OwnedUserId = parse_column(user, "ghosts", "user_id")?;
            self.replace_matrix_device(&user).await?;
        }
        Ok(ghosts.len())
    }

    /// The same for one of them.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn replace_matrix_device(&mut self, user: &UserId) -> Result<(), StoreError> {
        let new = ruma::DeviceId::new();
        const TENANT: &str = "SELECT tenant FROM crypto_tenants JOIN ghosts \
             ON crypto_tenants.user_id = ghosts.user_id \
             AND crypto_tenants.device_id = ghosts.device_id WHERE ghosts.user_id = $1";
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "DELETE FROM crypto_records WHERE kind IN ({OF_THE_DEVICE}) AND tenant IN ({TENANT})"
        )))
        .bind(user.as_str())
        .execute(&mut *self.conn)
        .await?;
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE crypto_tenants SET device_id = $2 WHERE tenant IN ({TENANT})"
        )))
        .bind(user.as_str())
        .bind(new.as_str())
        .execute(&mut *self.conn)
        .await?;
        sqlx::query("UPDATE ghosts SET device_id = $2, stage = $3 WHERE user_id = $1")
            .bind(user.as_str())
            .bind(new.as_str())
            .bind(GhostStage::Replaced.as_str())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Everyone who has an OMEMO device.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn omemo_accounts(&mut self) -> Result<Vec<Author>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT local_user FROM xmpp_accounts")
            .fetch_all(&mut *self.conn)
            .await?;
        rows.iter().map(|(user,)| author(user, "xmpp_accounts")).collect()
    }

    /// Every device of a contact that there are OMEMO sessions with.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn omemo_sessions(
        &mut self,
    ) -> Result<Vec<(ChatKey, DeviceId, Namespace)>, StoreError> {
        let rows: Vec<(String, String, i64, String)> =
            sqlx::query_as("SELECT local_user, contact, device_id, namespace FROM xmpp_sessions")
                .fetch_all(&mut *self.conn)
                .await?;
        let corrupt = |column| StoreError::Corrupt { table: "xmpp_sessions", column };
        rows.into_iter()
            .map(|(user, contact, device, namespace)| {
                let chat = chat_key(&user, contact, "xmpp_sessions")?;
                let device = u32::try_from(device).ok().and_then(DeviceId::new);
                let namespace = match namespace.as_str() {
                    "legacy" => Namespace::Legacy,
                    "v2" => Namespace::V2,
                    _ => return Err(corrupt("namespace")),
                };
                Ok((chat, device.ok_or_else(|| corrupt("device_id"))?, namespace))
            })
            .collect()
    }
}
