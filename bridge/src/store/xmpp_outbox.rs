//! Stanzas on their way to XMPP, byte for byte, until the server has taken them.

use sqlx::AnyConnection;
use zeroize::Zeroizing;

use crate::network::{ChatKey, LegSecurity, RemoteMessageId};

use super::{
    Cell, Sealer, StoreError, Transaction,
    chat_columns::{chat_key, local_user},
    sequence,
};

const TABLE: &str = "xmpp_outbox";

/// A row of the XMPP outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutgoingStanzaId(pub i64);

/// A stanza that the server has not confirmed.
pub struct OutgoingStanza {
    /// Its row.
    pub id: OutgoingStanzaId,
    /// Its chat.
    pub chat: ChatKey,
    /// The person's message it carries, and how; absent for what the bridge sends by itself.
    pub message: Option<(RemoteMessageId, LegSecurity)>,
    /// Its bytes.
    pub stanza: Zeroizing<Vec<u8>>,
}

/// The XMPP outbox.
pub struct XmppOutbox<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    local_user: String,
    contact: String,
    message_id: Option<String>,
    security: Option<String>,
    stanza: Vec<u8>,
}

impl Row {
    fn into_domain(self, sealer: &Sealer) -> Result<OutgoingStanza, StoreError> {
        let message = match (self.message_id, self.security) {
            (Some(id), Some(security)) => {
                let security = serde_json::from_str(&security)
                    .map_err(|_| StoreError::Corrupt { table: TABLE, column: "security" })?;
                Some((RemoteMessageId::new(id), security))
            }
            _ => None,
        };
        Ok(OutgoingStanza {
            id: OutgoingStanzaId(self.id),
            chat: chat_key(&self.local_user, self.contact, TABLE)?,
            message,
            stanza: sealer.open(stanza_cell(&[&self.id.to_string()]), &self.stanza)?,
        })
    }
}

fn stanza_cell<'a>(row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column: "stanza", row }
}

impl Transaction {
    /// Stanzas on their way to XMPP.
    pub fn xmpp_outbox(&mut self) -> XmppOutbox<'_> {
        let (conn, sealer) = self.parts();
        XmppOutbox { conn, sealer }
    }
}

impl XmppOutbox<'_> {
    /// Stores a stanza behind all others.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn insert(
        &mut self,
        chat: &ChatKey,
        message: Option<(&RemoteMessageId, LegSecurity)>,
        stanza: &[u8],
    ) -> Result<OutgoingStanzaId, StoreError> {
        let id = sequence::take(&mut *self.conn, 1).await?;
        let sealed = self.sealer.seal(stanza_cell(&[&id.to_string()]), stanza)?;
        let security = message
            .map(|(_, security)| serde_json::to_string(&security))
            .transpose()
            .map_err(|_| StoreError::Encode { table: TABLE, column: "security" })?;
        sqlx::query(
            "INSERT INTO xmpp_outbox (id, local_user, contact, message_id, security, stanza) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(message.map(|(id, _)| id.as_str()))
        .bind(security)
        .bind(sealed)
        .execute(&mut *self.conn)
        .await?;
        Ok(OutgoingStanzaId(id))
    }

    /// The oldest stanzas, in the order they were put in.
    ///
    /// # Errors
    /// When the database failed or a row cannot be opened.
    pub async fn load_pending(&mut self, limit: u32) -> Result<Vec<OutgoingStanza>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, local_user, contact, message_id, security, stanza FROM xmpp_outbox \
             ORDER BY id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|row| row.into_domain(self.sealer)).collect()
    }

    /// The stanza of a person's message, while the server has not confirmed it.
    ///
    /// # Errors
    /// When the database failed or the row cannot be opened.
    pub async fn find_message(
        &mut self,
        chat: &ChatKey,
        message: &RemoteMessageId,
    ) -> Result<Option<OutgoingStanza>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, local_user, contact, message_id, security, stanza FROM xmpp_outbox \
             WHERE local_user = $1 AND contact = $2 AND message_id = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(message.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| row.into_domain(self.sealer)).transpose()
    }

    /// Ends a stanza: the server has it, and nothing of it stays. Returns whether it was there.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn mark_sent(&mut self, id: OutgoingStanzaId) -> Result<bool, StoreError> {
        let result = sqlx::query("DELETE FROM xmpp_outbox WHERE id = $1")
            .bind(id.0)
            .execute(&mut *self.conn)
            .await?;
        Ok(result.rows_affected() == 1)
    }
}
