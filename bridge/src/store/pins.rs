//! Pinned identities of Matrix users: one master key each, trusted on first use.

use ruma::{OwnedUserId, UserId};
use sqlx::AnyConnection;

use crate::network::Decider;

use super::{
    KeyEvent, KeyLog, KeyLogEntry, LoggedKey, Sealer, StoreError, Transaction, error::parse_column,
};

const TABLE: &str = "matrix_pins";

/// The pin of a Matrix user.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// The pinned public master key, in unpadded base64.
    pub master_key: String,
    /// When it was pinned, in milliseconds since 1970.
    pub pinned_ms: i64,
    /// Whether it still is the one the user presents.
    pub state: PinState,
}

/// Whether a user presents the pinned identity.
#[derive(Clone, PartialEq, Eq)]
pub enum PinState {
    /// They do.
    Pinned,
    /// They present another one, which waits for approval.
    Changed {
        /// The public master key they present, in unpadded base64.
        new_master_key: String,
    },
}

impl Pin {
    /// The public master key that the user presents, in unpadded base64.
    pub fn presented(&self) -> &str {
        match &self.state {
            PinState::Pinned => &self.master_key,
            PinState::Changed { new_master_key } => new_master_key,
        }
    }
}

/// What came of comparing a presented identity with the pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PinOutcome {
    /// There was no pin; there is one now.
    FirstUse,
    /// It is the pinned one.
    Same,
    /// It is another one. It is remembered and waits for approval.
    Changed,
}

/// All pins.
pub struct Pins<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

type Row = (String, String, i64, Option<String>);

fn into_domain((user_id, master_key, pinned_ms, new): Row) -> Result<Pin, StoreError> {
    let state = match new {
        None => PinState::Pinned,
        Some(new_master_key) => PinState::Changed { new_master_key },
    };
    Ok(Pin { user_id: parse_column(user_id, TABLE, "user_id")?, master_key, pinned_ms, state })
}

impl<'t> Pins<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer }
    }

    /// The pin of a user.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find(&mut self, user_id: &UserId) -> Result<Option<Pin>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT user_id, master_key, pinned_ms, new_master_key FROM matrix_pins \
             WHERE user_id = $1",
        )
        .bind(user_id.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(into_domain).transpose()
    }

    /// Compares the public master key that a user presents with the pin, and pins it when it is
    /// the first. A user who presents the pinned key again is as before any change.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn pin_or_check(
        &mut self,
        user_id: &UserId,
        master_key: &str,
        now_ms: i64,
    ) -> Result<PinOutcome, StoreError> {
        let Some(pin) = self.find(user_id).await? else {
            self.insert(user_id, master_key, now_ms).await?;
            let key = LoggedKey::Matrix { user: user_id, master_key };
            self.log(key, KeyEvent::FirstSeen, &Decider::Nobody, now_ms).await?;
            return Ok(PinOutcome::FirstUse);
        };
        let (waiting, outcome) = if pin.master_key == master_key {
            (None, PinOutcome::Same)
        } else {
            (Some(master_key), PinOutcome::Changed)
        };
        if pin.presented() != master_key {
            self.set_waiting(user_id, waiting).await?;
            let key = LoggedKey::Matrix { user: user_id, master_key };
            self.log(key, KeyEvent::Changed, &Decider::Nobody, now_ms).await?;
        }
        Ok(outcome)
    }

    /// Makes the key that waits the pinned one if it is `meant`, the one of which people were told. Returns whether
    /// it was.
    ///
    /// `approver` is the public master key behind the word of approval. It must be the pinned one
    /// or the very one that waits: a third identity, which may be the user's real one, has not
    /// spoken for what somebody else presents in its place.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn approve(
        &mut self,
        user_id: &UserId,
        meant: &str,
        approver: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query(
            "UPDATE matrix_pins \
             SET master_key = new_master_key, pinned_ms = $2, new_master_key = NULL \
             WHERE user_id = $1 AND new_master_key = $3 \
             AND (master_key = $4 OR new_master_key = $4)",
        )
        .bind(user_id.as_str())
        .bind(now_ms)
        .bind(meant)
        .bind(approver)
        .execute(&mut *self.conn)
        .await?;
        if updated.rows_affected() == 0 {
            return Ok(false);
        }
        let key = LoggedKey::Matrix { user: user_id, master_key: meant };
        let by = Decider::Person(user_id.to_owned());
        self.log(key, KeyEvent::Approved, &by, now_ms).await?;
        Ok(true)
    }

    async fn insert(
        &mut self,
        user_id: &UserId,
        master_key: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO matrix_pins (user_id, master_key, pinned_ms) VALUES ($1, $2, $3)")
            .bind(user_id.as_str())
            .bind(master_key)
            .bind(now_ms)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    async fn log(
        &mut self,
        key: LoggedKey<'_>,
        event: KeyEvent,
        decided_by: &Decider,
        time_ms: i64,
    ) -> Result<(), StoreError> {
        let entry = KeyLogEntry { time_ms, key, event, decided_by };
        KeyLog::beside(&mut *self.conn, self.sealer).append(&entry).await
    }

    async fn set_waiting(
        &mut self,
        user_id: &UserId,
        master_key: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE matrix_pins SET new_master_key = $2 WHERE user_id = $1")
            .bind(user_id.as_str())
            .bind(master_key)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}
