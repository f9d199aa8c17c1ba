//! Stanzas from XMPP as they came, until they are decrypted and turned into remote events.

use sqlx::AnyConnection;
use zeroize::Zeroizing;

use crate::network::{ChatKey, Held};

use super::{
    Backlog, Cell, Sealer, StoreError, Transaction,
    backlog::measure,
    chat_columns::{chat_key, local_user},
    error::expect_one_row,
    sequence,
};

const TABLE: &str = "xmpp_inbox";

/// A row of the XMPP inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StanzaId(pub i64);

/// How a repetition of a stanza is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// By its hash, for as long as the row is kept.
    Always,
    /// By its hash, when the first one came after this time (milliseconds since 1970).
    Since(i64),
    /// Not at all.
    Never,
}

/// A stanza that is not done yet.
pub struct PendingStanza {
    /// Its row.
    pub id: StanzaId,
    /// When it came, in milliseconds since 1970.
    pub received_ms: i64,
    /// Its bytes.
    pub stanza: Zeroizing<Vec<u8>>,
    /// What [`XmppInbox::hold`] got with it.
    pub prekeys: Option<Zeroizing<Vec<u8>>>,
}

/// A row as it is stored: id, time, stanza and prekeys.
type Row = (i64, i64, Vec<u8>, Option<Vec<u8>>);

/// Measures what is not done in a chat, up to a number of rows.
pub(super) const MEASURE: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) \
     FROM (SELECT size_bytes FROM xmpp_inbox WHERE local_user = $1 AND contact = $2 \
     AND state IN ('pending', 'held') LIMIT $3) AS waiting";

/// The XMPP inbox.
pub struct XmppInbox<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

fn stanza_cell<'a>(row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column: "stanza", row }
}

fn prekeys_cell<'a>(row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column: "prekeys", row }
}

impl Transaction {
    /// Stanzas from XMPP that wait to be decrypted.
    pub fn xmpp_inbox(&mut self) -> XmppInbox<'_> {
        let (conn, sealer) = self.parts();
        XmppInbox { conn, sealer }
    }
}

impl XmppInbox<'_> {
    /// Stores a stanza behind all others of its chat. `None` when it is a repetition.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn insert(
        &mut self,
        chat: &ChatKey,
        hash: &str,
        repetition: Repetition,
        stanza: &[u8],
        now_ms: i64,
    ) -> Result<Option<StanzaId>, StoreError> {
        let since = match repetition {
            Repetition::Always => Some(i64::MIN),
            Repetition::Since(since) => Some(since),
            Repetition::Never => None,
        };
        if let Some(since) = since
            && self.was_seen(chat, hash, since).await?
        {
            return Ok(None);
        }
        let id = sequence::take(&mut *self.conn, 1).await?;
        let sealed = self.sealer.seal(stanza_cell(&[&id.to_string()]), stanza)?;
        let size_bytes = i64::try_from(sealed.len()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO xmpp_inbox \
             (id, local_user, contact, hash, state, received_ms, stanza, size_bytes) \
             VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7)",
        )
        .bind(id)
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(hash)
        .bind(now_ms)
        .bind(sealed)
        .bind(size_bytes)
        .execute(&mut *self.conn)
        .await?;
        Ok(Some(StanzaId(id)))
    }

    async fn was_seen(
        &mut self,
        chat: &ChatKey,
        hash: &str,
        since_ms: i64,
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT id FROM xmpp_inbox WHERE local_user = $1 AND contact = $2 AND hash = $3 \
             AND received_ms >= $4 LIMIT 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(hash)
        .bind(since_ms)
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// The oldest stanza of a chat that is neither done nor held.
    ///
    /// # Errors
    /// When the database failed or the row cannot be opened.
    pub async fn find_next(&mut self, chat: &ChatKey) -> Result<Option<PendingStanza>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, received_ms, stanza, prekeys FROM xmpp_inbox \
             WHERE local_user = $1 AND contact = $2 AND state = 'pending' ORDER BY id LIMIT 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| self.open(row)).transpose()
    }

    /// The chats that have stanzas to decrypt, the one that waits longest first.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn pending_chats(&mut self) -> Result<Vec<ChatKey>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT local_user, contact FROM xmpp_inbox WHERE state = 'pending' \
             GROUP BY local_user, contact ORDER BY MIN(id)",
        )
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|(local, contact)| chat_key(&local, contact, TABLE)).collect()
    }

    /// Ends a stanza: its content goes, its hash stays to recognise it. Of one without a hash nothing stays.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is done already: whoever did this too must not count.
    pub async fn mark_done(&mut self, id: StanzaId) -> Result<(), StoreError> {
        let result = sqlx::query(
            "UPDATE xmpp_inbox SET state = 'done', stanza = NULL, prekeys = NULL \
             WHERE id = $1 AND state <> 'done' AND hash <> ''",
        )
        .bind(id.0)
        .execute(&mut *self.conn)
        .await?;
        if result.rows_affected() > 0 {
            return Ok(());
        }
        let result = sqlx::query("DELETE FROM xmpp_inbox WHERE id = $1 AND hash = ''")
            .bind(id.0)
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    /// Puts a stanza aside until [`Self::release`], with what it needs to be decrypted then.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is not pending.
    pub async fn hold(&mut self, id: StanzaId, prekeys: Option<&[u8]>) -> Result<(), StoreError> {
        let row = id.0.to_string();
        let seal = |prekeys| self.sealer.seal(prekeys_cell(&[&row]), prekeys);
        let result = sqlx::query(
            "UPDATE xmpp_inbox SET state = 'held', prekeys = $2 WHERE id = $1 AND state = 'pending'",
        )
        .bind(id.0)
        .bind(prekeys.map(seal).transpose()?)
        .execute(&mut *self.conn)
        .await?;
        expect_one_row(&result, TABLE)
    }

    /// Forgets the prekeys of everything that is held.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn forget_prekeys(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE xmpp_inbox SET prekeys = NULL WHERE prekeys IS NOT NULL")
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Everything that is held in a chat, in order.
    ///
    /// # Errors
    /// When the database failed or a row cannot be opened.
    pub async fn load_held(
        &mut self,
        chat: &ChatKey,
        after: Option<StanzaId>,
        limit: u32,
    ) -> Result<Vec<PendingStanza>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, received_ms, stanza, prekeys FROM xmpp_inbox \
             WHERE local_user = $1 AND contact = $2 AND state = 'held' AND id > $3 \
             ORDER BY id LIMIT $4",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(after.map_or(0, |after| after.0))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|row| self.open(row)).collect()
    }

    /// How much is held in a chat, and since when.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn count_held(&mut self, chat: &ChatKey) -> Result<Held, StoreError> {
        let (messages, since_ms): (i64, Option<i64>) = sqlx::query_as(
            "SELECT COUNT(*), MIN(received_ms) FROM xmpp_inbox \
             WHERE local_user = $1 AND contact = $2 AND state = 'held'",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_one(&mut *self.conn)
        .await?;
        Ok(Held { messages: u64::try_from(messages).unwrap_or_default(), since_ms })
    }

    /// How much of a chat is not done, counted up to `limit` rows: stanzas that are held, and those
    /// that are still to be decrypted. Cheap, however much waits.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn measure(&mut self, chat: &ChatKey, limit: u32) -> Result<Backlog, StoreError> {
        measure(self.conn, MEASURE, chat, limit).await
    }

    /// The chats in which something is held that came before a time (milliseconds since 1970).
    ///
    /// # Errors
    /// When the database failed.
    pub async fn chats_held_before(&mut self, before_ms: i64) -> Result<Vec<ChatKey>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT local_user, contact FROM xmpp_inbox \
             WHERE state = 'held' AND received_ms < $1 \
             GROUP BY local_user, contact ORDER BY MIN(id)",
        )
        .bind(before_ms)
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|(local, contact)| chat_key(&local, contact, TABLE)).collect()
    }

    /// Ends what is held in a chat and came before a time (milliseconds since 1970), as
    /// [`Self::mark_done`] does. Returns how many stanzas.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn end_held_before(
        &mut self,
        chat: &ChatKey,
        before_ms: i64,
    ) -> Result<u64, StoreError> {
        let result = sqlx::query(
            "UPDATE xmpp_inbox SET state = 'done', stanza = NULL, prekeys = NULL \
             WHERE local_user = $1 AND contact = $2 AND state = 'held' AND received_ms < $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(before_ms)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected())
    }

    fn open(&self, (id, received_ms, stanza, prekeys): Row) -> Result<PendingStanza, StoreError> {
        let row = id.to_string();
        let stanza = self.sealer.open(stanza_cell(&[&row]), &stanza)?;
        let open = |sealed: Vec<u8>| self.sealer.open(prekeys_cell(&[&row]), &sealed);
        let prekeys = prekeys.map(open).transpose()?;
        Ok(PendingStanza { id: StanzaId(id), received_ms, stanza, prekeys })
    }

    /// Lets everything that was held in a chat be tried again. Returns how many stanzas.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn release(&mut self, chat: &ChatKey) -> Result<u64, StoreError> {
        let result = sqlx::query(
            "UPDATE xmpp_inbox SET state = 'pending' \
             WHERE local_user = $1 AND contact = $2 AND state = 'held'",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected())
    }

    /// Forgets done stanzas that came before a time (milliseconds since 1970).
    ///
    /// # Errors
    /// When the database failed.
    pub async fn purge_done(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        let result =
            sqlx::query("DELETE FROM xmpp_inbox WHERE state = 'done' AND received_ms < $1")
                .bind(before_ms)
                .execute(&mut *self.conn)
                .await?;
        Ok(result.rows_affected())
    }
}
