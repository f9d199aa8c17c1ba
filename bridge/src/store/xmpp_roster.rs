//! Whom our XMPP users have met, who subscribed to their nodes, and how they are called.

use sqlx::AnyConnection;

use crate::network::{Author, ChatKey, RemoteUserId};

use super::{
    Cell, Sealer, StoreError, Transaction,
    chat_columns::{chat_key, local_user},
};

const CONTACTS: &str = "xmpp_contacts";
const NAMES: &str = "xmpp_names";

/// Whether a contact was asked for a presence subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Not yet, or the question was lost.
    No,
    /// Yes, and no more is known.
    Yes,
    /// Yes, and they do not want it.
    Declined,
}

impl Asked {
    /// As it is stored.
    const fn column(self) -> i64 {
        match self {
            Self::No => 0,
            Self::Yes => 1,
            Self::Declined => 2,
        }
    }

    fn parse(column: i64) -> Result<Self, StoreError> {
        match column {
            0 => Ok(Self::No),
            1 => Ok(Self::Yes),
            2 => Ok(Self::Declined),
            _ => Err(StoreError::Corrupt { table: CONTACTS, column: "asked" }),
        }
    }
}

/// Contacts, subscribers and names.
pub struct XmppRoster<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

impl Transaction {
    /// Whom our XMPP users know.
    pub fn xmpp_roster(&mut self) -> XmppRoster<'_> {
        let (conn, sealer) = self.parts();
        XmppRoster { conn, sealer }
    }
}

impl XmppRoster<'_> {
    /// Remembers a contact. Returns whether they are new.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn meet(&mut self, chat: &ChatKey) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO xmpp_contacts (local_user, contact, asked) VALUES ($1, $2, 0) \
             ON CONFLICT (local_user, contact) DO NOTHING",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// Whether a contact was met.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn has_met(&mut self, chat: &ChatKey) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT asked FROM xmpp_contacts WHERE local_user = $1 AND contact = $2",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Remembers that the contact was asked for a presence subscription. Returns whether this
    /// is the first time.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn first_ask(&mut self, chat: &ChatKey) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO xmpp_contacts (local_user, contact, asked) VALUES ($1, $2, 1) \
             ON CONFLICT (local_user, contact) DO UPDATE SET asked = 1 \
             WHERE xmpp_contacts.asked = 0",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// Whether the contact was asked for a presence subscription.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn asked(&mut self, chat: &ChatKey) -> Result<Asked, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT asked FROM xmpp_contacts WHERE local_user = $1 AND contact = $2",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map_or(Ok(Asked::No), |(asked,)| Asked::parse(asked))
    }

    /// Remembers what became of the question, of a contact who was met.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn set_asked(&mut self, chat: &ChatKey, asked: Asked) -> Result<(), StoreError> {
        sqlx::query("UPDATE xmpp_contacts SET asked = $3 WHERE local_user = $1 AND contact = $2")
            .bind(local_user(&chat.local))
            .bind(chat.contact.as_str())
            .bind(asked.column())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Everyone an author has ever met.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn contacts(&mut self, author: &Author) -> Result<Vec<RemoteUserId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT contact FROM xmpp_contacts WHERE local_user = $1 ORDER BY contact",
        )
        .bind(local_user(author))
        .fetch_all(&mut *self.conn)
        .await?;
        Ok(rows.into_iter().map(|(contact,)| RemoteUserId::new(contact)).collect())
    }

    /// A chat of the contact with anybody, to ask the contact's server through.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_chat_with(
        &mut self,
        contact: &RemoteUserId,
    ) -> Result<Option<ChatKey>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT local_user FROM xmpp_contacts WHERE contact = $1 AND local_user <> '' LIMIT 1",
        )
        .bind(contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|(local,)| chat_key(&local, contact.as_str().to_owned(), CONTACTS)).transpose()
    }

    /// Subscribes a JID to a node of an author.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn subscribe(
        &mut self,
        author: &Author,
        node: &str,
        subscriber: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO xmpp_subscribers (local_user, node, subscriber) VALUES ($1, $2, $3) \
             ON CONFLICT (local_user, node, subscriber) DO NOTHING",
        )
        .bind(local_user(author))
        .bind(node)
        .bind(subscriber)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// How many JIDs are subscribed to a node of an author.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn count_subscribers(
        &mut self,
        author: &Author,
        node: &str,
    ) -> Result<u64, StoreError> {
        let (number,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM xmpp_subscribers WHERE local_user = $1 AND node = $2",
        )
        .bind(local_user(author))
        .bind(node)
        .fetch_one(&mut *self.conn)
        .await?;
        Ok(u64::try_from(number).unwrap_or_default())
    }

    /// Ends a subscription. Returns whether there was one.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn unsubscribe(
        &mut self,
        author: &Author,
        node: &str,
        subscriber: &str,
    ) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "DELETE FROM xmpp_subscribers \
             WHERE local_user = $1 AND node = $2 AND subscriber = $3",
        )
        .bind(local_user(author))
        .bind(node)
        .bind(subscriber)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// The JIDs subscribed to a node of an author.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn subscribers(
        &mut self,
        author: &Author,
        node: &str,
    ) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT subscriber FROM xmpp_subscribers WHERE local_user = $1 AND node = $2 \
             ORDER BY subscriber",
        )
        .bind(local_user(author))
        .bind(node)
        .fetch_all(&mut *self.conn)
        .await?;
        Ok(rows.into_iter().map(|(jid,)| jid).collect())
    }

    /// How an author wants to be called.
    ///
    /// # Errors
    /// When the database failed or the row cannot be opened.
    pub async fn find_name(&mut self, author: &Author) -> Result<Option<String>, StoreError> {
        let user = local_user(author);
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT name FROM xmpp_names WHERE local_user = $1")
                .bind(user)
                .fetch_optional(&mut *self.conn)
                .await?;
        let cell = Cell { table: NAMES, column: "name", row: &[user] };
        row.map(|(sealed,)| self.sealer.open_text(cell, &sealed)).transpose()
    }

    /// Stores how an author wants to be called.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn save_name(&mut self, author: &Author, name: &str) -> Result<(), StoreError> {
        let user = local_user(author);
        let cell = Cell { table: NAMES, column: "name", row: &[user] };
        let sealed = self.sealer.seal(cell, name.as_bytes())?;
        sqlx::query(
            "INSERT INTO xmpp_names (local_user, name) VALUES ($1, $2) \
             ON CONFLICT (local_user) DO UPDATE SET name = excluded.name",
        )
        .bind(user)
        .bind(sealed)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }
}
