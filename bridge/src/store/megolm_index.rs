//! The guard against replayed Megolm messages: one event per room key and index.

use ruma::{EventId, RoomId};
use sqlx::AnyConnection;

use super::{StoreError, Transaction};

/// A place in a Megolm session.
#[derive(Clone, Copy)]
pub struct MessagePosition<'a> {
    /// The room of the event.
    pub room_id: &'a RoomId,
    /// The Megolm session.
    pub session_id: &'a str,
    /// The index of the message in it.
    pub message_index: u32,
}

/// What a position has been used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum IndexCheck {
    /// Nothing; it belongs to this event now.
    Fresh,
    /// This very event: it is being decrypted again.
    SameEvent,
    /// Another event, or this one with another time: somebody replays a ciphertext.
    Replay,
}

/// All positions seen.
pub struct MegolmIndex<'t> {
    conn: &'t mut AnyConnection,
}

impl<'t> MegolmIndex<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Binds a position to an event. To be called after a successful decryption, in the
    /// transaction that uses its result.
    ///
    /// `origin_ts` is the event's `origin_server_ts` in milliseconds since 1970.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn check_and_insert(
        &mut self,
        position: MessagePosition<'_>,
        event_id: &EventId,
        origin_ts: i64,
    ) -> Result<IndexCheck, StoreError> {
        let result = sqlx::query(
            "INSERT INTO megolm_index (room_id, session_id, message_index, event_id, origin_ts) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (room_id, session_id, message_index) DO NOTHING",
        )
        .bind(position.room_id.as_str())
        .bind(position.session_id)
        .bind(i64::from(position.message_index))
        .bind(event_id.as_str())
        .bind(origin_ts)
        .execute(&mut *self.conn)
        .await?;
        if result.rows_affected() == 1 {
            return Ok(IndexCheck::Fresh);
        }
        let (known_event, known_ts): (String, i64) = sqlx::query_as(
            "SELECT event_id, origin_ts FROM megolm_index \
             WHERE room_id = $1 AND session_id = $2 AND message_index = $3",
        )
        .bind(position.room_id.as_str())
        .bind(position.session_id)
        .bind(i64::from(position.message_index))
        .fetch_one(&mut *self.conn)
        .await?;
        if known_event == event_id.as_str() && known_ts == origin_ts {
            Ok(IndexCheck::SameEvent)
        } else {
            Ok(IndexCheck::Replay)
        }
    }
}
