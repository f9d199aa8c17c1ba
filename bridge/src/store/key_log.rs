//! The key log: every key that was first seen, changed or decided about, on both legs.
//!
//! Rows are only added. Each carries a link (HMAC-SHA-256, see [`Sealer::link`]) over its fields
//! and the link before it, so that whoever writes to the database without the store's key can
//! alter, drop, swap or insert nothing unseen. That the newest rows are cut off is only seen by
//! comparing the head with one that was noted earlier.

use e2ee::omemo::{DeviceId, IdentityKey};
use ruma::UserId;
use sqlx::AnyConnection;

use crate::network::{ChatKey, Decider};

use super::{Sealer, StoreError, Transaction, chat_columns::local_user};

const TABLE: &str = "key_log";

/// Rows checked at a time.
const BATCH: i64 = 1000;

/// Stands before the first row.
const START: [u8; Sealer::LINK_LENGTH] = [0; Sealer::LINK_LENGTH];

/// Something that happened to a key.
#[derive(Clone, Copy)]
pub struct KeyLogEntry<'a> {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// To which key.
    pub key: LoggedKey<'a>,
    /// What.
    pub event: KeyEvent,
    /// Whose decision it was.
    pub decided_by: &'a Decider,
}

/// A key, and whose it is.
#[derive(Clone, Copy)]
pub enum LoggedKey<'a> {
    /// The identity of a Matrix user.
    Matrix {
        /// Whose.
        user: &'a UserId,
        /// The public master key, in unpadded base64; empty where a contact distrusted somebody of whom none was known.
        master_key: &'a str,
    },
    /// The identity of a contact's OMEMO device, as a chat knows it.
    Omemo {
        /// The chat.
        chat: &'a ChatKey,
        /// The device.
        device: DeviceId,
        /// Its public identity.
        identity: IdentityKey,
    },
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// It is the first one of its owner.
    FirstSeen,
    /// Its owner presents it in place of another one.
    Changed,
    /// It counts from now on, without having been compared.
    Approved,
    /// People have compared it.
    Verified,
    /// It does not count any more.
    Distrusted,
}

/// A row of the log, as it is printed.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct KeyLogRow {
    /// Its number: 1, 2, 3 and so on without a gap.
    pub seq: i64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// `matrix` or `xmpp`.
    pub leg: String,
    /// The Matrix user of the chat; empty for the key of a Matrix user, and where the bridge talks.
    pub local_user: String,
    /// Whose key: a Matrix user or a contact.
    pub owner: String,
    /// The number of the device; empty for a key that is no device's.
    pub device: String,
    /// The public key: unpadded base64, or the fingerprint as clients print it.
    pub public_key: String,
    /// What happened.
    pub event: String,
    /// `nobody`, `contact` and the contact's address, or a Matrix user.
    pub decided_by: String,
    hash: Vec<u8>,
}

/// What a check of the whole log has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLogCheck {
    /// No row was altered, dropped, swapped or inserted, up to the head.
    Whole {
        /// How many rows there are.
        rows: i64,
        /// The link of the last one, in hex. Whoever has noted it sees later whether rows were cut
        /// off.
        head: String,
    },
    /// The chain is broken.
    Broken {
        /// The first number that is not as it was written.
        seq: i64,
    },
}

/// The key log.
pub struct KeyLog<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

impl KeyEvent {
    /// The word that stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FirstSeen => "first_seen",
            Self::Changed => "changed",
            Self::Approved => "approved",
            Self::Verified => "verified",
            Self::Distrusted => "distrusted",
        }
    }
}

impl KeyLogEntry<'_> {
    /// The row without its link.
    fn into_row(self, seq: i64) -> KeyLogRow {
        let (leg, local, owner, device, public_key) = match self.key {
            LoggedKey::Matrix { user, master_key } => {
                ("matrix", "", user.as_str(), String::new(), master_key.to_owned())
            }
            LoggedKey::Omemo { chat, device, identity } => (
                "xmpp",
                local_user(&chat.local),
                chat.contact.as_str(),
                device.to_string(),
                identity.fingerprint(),
            ),
        };
        KeyLogRow {
            seq,
            time_ms: self.time_ms,
            leg: leg.to_owned(),
            local_user: local.to_owned(),
            owner: owner.to_owned(),
            device,
            public_key,
            event: self.event.as_str().to_owned(),
            decided_by: decider(self.decided_by),
            hash: Vec::new(),
        }
    }
}

/// No Matrix user is named so: their ids begin with an @. Older rows say only that it was a contact.
fn decider(decider: &Decider) -> String {
    match decider {
        Decider::Nobody => "nobody".to_owned(),
        Decider::Contact(contact) => format!("contact {}", contact.as_str()),
        Decider::Person(user) => user.to_string(),
    }
}

impl KeyLogRow {
    fn link(&self, sealer: &Sealer, before: &[u8]) -> [u8; Sealer::LINK_LENGTH] {
        let (seq, time_ms) = (self.seq.to_be_bytes(), self.time_ms.to_be_bytes());
        let texts = [
            &self.leg,
            &self.local_user,
            &self.owner,
            &self.device,
            &self.public_key,
            &self.event,
            &self.decided_by,
        ];
        let numbers = [TABLE.as_bytes(), before, &seq, &time_ms];
        sealer.link(numbers.into_iter().chain(texts.into_iter().map(String::as_bytes)))
    }
}

impl Transaction {
    /// The key log.
    pub fn key_log(&mut self) -> KeyLog<'_> {
        let (conn, sealer) = self.parts();
        KeyLog { conn, sealer }
    }
}

impl<'t> KeyLog<'t> {
    /// For repositories that log what they change.
    pub(super) fn beside(conn: &'t mut AnyConnection, sealer: &'t Sealer) -> Self {
        Self { conn, sealer }
    }

    /// Adds a row. To be called in the transaction that changes what the row tells of.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn append(&mut self, entry: &KeyLogEntry<'_>) -> Result<(), StoreError> {
        let last: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT seq, hash FROM key_log ORDER BY seq DESC LIMIT 1")
                .fetch_optional(&mut *self.conn)
                .await?;
        let (seq, before) = last.unwrap_or_else(|| (0, START.to_vec()));
        let row = entry.into_row(seq + 1);
        let hash = row.link(self.sealer, &before);
        sqlx::query(
            "INSERT INTO key_log (seq, time_ms, leg, local_user, owner, device, public_key, event, \
                 decided_by, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(row.seq)
        .bind(row.time_ms)
        .bind(row.leg)
        .bind(row.local_user)
        .bind(row.owner)
        .bind(row.device)
        .bind(row.public_key)
        .bind(row.event)
        .bind(row.decided_by)
        .bind(hash.to_vec())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(())
    }

    /// Checks the whole chain.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn check(&mut self) -> Result<KeyLogCheck, StoreError> {
        let (mut rows, mut head, mut after) = (0, START, i64::MIN);
        loop {
            let batch = self.load_after(after).await?;
            let Some(last) = batch.last() else { break };
            after = last.seq;
            for row in &batch {
                if row.seq != rows + 1 {
                    return Ok(KeyLogCheck::Broken { seq: row.seq.min(rows + 1) });
                }
                let link = row.link(self.sealer, &head);
                if row.hash != link {
                    return Ok(KeyLogCheck::Broken { seq: row.seq });
                }
                (rows, head) = (row.seq, link);
            }
        }
        Ok(KeyLogCheck::Whole { rows, head: hex::encode(head) })
    }

    async fn load_after(&mut self, seq: i64) -> Result<Vec<KeyLogRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM key_log WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(seq)
            .bind(BATCH)
            .fetch_all(&mut *self.conn)
            .await?)
    }

    /// The first two times when this happened to a key, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_first_times(
        &mut self,
        owner: &str,
        public_key: &str,
        event: KeyEvent,
    ) -> Result<Vec<i64>, StoreError> {
        let rows: Vec<(i64,)> = sqlx::query_as(
            "SELECT time_ms FROM key_log WHERE owner = $1 AND public_key = $2 AND event = $3 \
             ORDER BY seq LIMIT 2",
        )
        .bind(owner)
        .bind(public_key)
        .bind(event.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        Ok(rows.into_iter().map(|(time_ms,)| time_ms).collect())
    }

    /// All rows about the keys of a Matrix user or a contact, the oldest first.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_about(&mut self, owner: &str) -> Result<Vec<KeyLogRow>, StoreError> {
        Ok(sqlx::query_as("SELECT * FROM key_log WHERE owner = $1 ORDER BY seq")
            .bind(owner)
            .fetch_all(&mut *self.conn)
            .await?)
    }
}
