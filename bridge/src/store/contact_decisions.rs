//! What contacts have decided about the identities of Matrix users: their latest word, and the log
//! of it.

use ruma::UserId;
use sqlx::AnyConnection;

use crate::network::{ChatKey, Decider, RemoteUserId};

use super::{
    KeyEvent, KeyLog, KeyLogEntry, LoggedKey, Sealer, StoreError, Transaction,
    chat_columns::local_user,
};

const TABLE: &str = "contact_decisions";

/// What a contact has decided about a Matrix user.
#[derive(Clone, PartialEq, Eq)]
pub struct ContactDecision {
    /// What they have said.
    pub trust: ContactTrust,
    /// The public master key that the user presented then, in unpadded base64. Empty where no identity of theirs was
    /// known: that much is needed for trust only.
    pub master_key: String,
    /// When, in milliseconds since 1970.
    pub decided_ms: i64,
}

/// How far a contact trusts the identity of a Matrix user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactTrust {
    /// They have compared emoji.
    Emoji,
    /// They have compared the whole fingerprint.
    Fingerprint,
    /// They want nothing of the user, whatever identity that one presents.
    Distrusted,
}

impl ContactDecision {
    /// Whether nothing may cross between the two.
    pub fn is_distrust(&self) -> bool {
        self.trust == ContactTrust::Distrusted
    }

    /// Whether it says that this very identity was compared.
    pub fn has_verified(&self, master_key: &str) -> bool {
        !self.is_distrust() && self.master_key == master_key
    }
}

impl ContactTrust {
    fn as_str(self) -> &'static str {
        match self {
            Self::Emoji => "emoji",
            Self::Fingerprint => "fingerprint",
            Self::Distrusted => "distrusted",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "emoji" => Ok(Self::Emoji),
            "fingerprint" => Ok(Self::Fingerprint),
            "distrusted" => Ok(Self::Distrusted),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "trust" }),
        }
    }

    fn event(self) -> KeyEvent {
        match self {
            Self::Emoji | Self::Fingerprint => KeyEvent::Verified,
            Self::Distrusted => KeyEvent::Distrusted,
        }
    }
}

/// All decisions of contacts.
pub struct ContactDecisions<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

impl Transaction {
    /// What contacts have decided about Matrix users.
    pub fn contact_decisions(&mut self) -> ContactDecisions<'_> {
        let (conn, sealer) = self.parts();
        ContactDecisions { conn, sealer }
    }
}

impl ContactDecisions<'_> {
    /// What the contact of a chat has decided about its Matrix user. About the bridge itself nobody
    /// decides.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find(&mut self, chat: &ChatKey) -> Result<Option<ContactDecision>, StoreError> {
        let row: Option<(String, String, i64)> = sqlx::query_as(
            "SELECT trust, master_key, decided_ms FROM contact_decisions \
             WHERE local_user = $1 AND contact = $2",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|(trust, master_key, decided_ms)| {
            Ok(ContactDecision { trust: ContactTrust::parse(&trust)?, master_key, decided_ms })
        })
        .transpose()
    }

    /// Whether nothing may cross in a chat, because its contact has distrusted the Matrix user.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn is_distrusted(&mut self, chat: &ChatKey) -> Result<bool, StoreError> {
        Ok(self.find(chat).await?.is_some_and(|decision| decision.is_distrust()))
    }

    /// The contacts who have distrusted a Matrix user.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_distrusting(
        &mut self,
        user: &UserId,
    ) -> Result<Vec<RemoteUserId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT contact FROM contact_decisions WHERE local_user = $1 AND trust = $2 \
             ORDER BY contact",
        )
        .bind(user.as_str())
        .bind(ContactTrust::Distrusted.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        Ok(rows.into_iter().map(|(contact,)| RemoteUserId::new(contact)).collect())
    }

    /// Puts a contact's word in the place of their last one about this user, and into the key log.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn decide(
        &mut self,
        (user, contact): (&UserId, &RemoteUserId),
        decision: &ContactDecision,
    ) -> Result<(), StoreError> {
        let ContactDecision { trust, master_key, decided_ms } = decision;
        sqlx::query(
            "INSERT INTO contact_decisions (local_user, contact, trust, master_key, decided_ms) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (local_user, contact) DO UPDATE SET trust = excluded.trust, \
                 master_key = excluded.master_key, decided_ms = excluded.decided_ms",
        )
        .bind(user.as_str())
        .bind(contact.as_str())
        .bind(trust.as_str())
        .bind(master_key)
        .bind(decided_ms)
        .execute(&mut *self.conn)
        .await?;
        let entry = KeyLogEntry {
            time_ms: *decided_ms,
            key: LoggedKey::Matrix { user, master_key },
            event: trust.event(),
            decided_by: &Decider::Contact(contact.clone()),
        };
        KeyLog::beside(&mut *self.conn, self.sealer).append(&entry).await
    }
}
