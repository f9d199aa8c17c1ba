//! What is forgotten with time, so that the database does not grow for ever.
//!
//! Rows carry no time of their own: the first round that finds one dates it, so nothing is
//! forgotten earlier than it should be.

use sqlx::AnyConnection;

use super::{StoreError, Transaction};

/// The tables whose rows are dated, and which of their rows.
const DATED: [(&str, &str); 4] = [
    ("message_map", "TRUE"),
    ("megolm_index", "TRUE"),
    ("crypto_room_keys", "TRUE"),
    ("crypto_records", ENDING_RECORDS),
];

/// Records of devices that end by age. The hash of an Olm message only tells a repetition from a broken session; who
/// withheld a room key is of no use when its messages are gone.
const ENDING_RECORDS: &str = "kind IN ('olm_hash', 'withheld')";

/// What one round has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Which Matrix event was which message of the other network.
    pub messages: u64,
    /// Room keys of others and of ours that nobody uses any more.
    pub room_keys: u64,
    /// Places in those room keys' sessions.
    pub positions: u64,
    /// Hashes of Olm messages, and notes of room keys that were withheld.
    pub records: u64,
}

/// Rows that end by age.
pub struct Housekeeping<'t> {
    conn: &'t mut AnyConnection,
}

impl Transaction {
    /// Rows that end by age.
    pub fn housekeeping(&mut self) -> Housekeeping<'_> {
        Housekeeping { conn: self.parts().0 }
    }
}

impl Housekeeping<'_> {
    /// The newest date of any row or round, in milliseconds since 1970; 0 before the first round.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn newest(&mut self) -> Result<i64, StoreError> {
        let (mut newest,): (i64,) =
            sqlx::query_as("SELECT looked_ms FROM store_owner").fetch_one(&mut *self.conn).await?;
        for (table, rows) in DATED {
            let statement = format!("SELECT MAX(seen_ms) FROM {table} WHERE {rows}");
            let (seen,): (Option<i64>,) =
                sqlx::query_as(sqlx::AssertSqlSafe(statement)).fetch_one(&mut *self.conn).await?;
            newest = newest.max(seen.unwrap_or_default());
        }
        Ok(newest)
    }

    /// Takes dates for wrong that are later than now (milliseconds since 1970): what bears one counts as found now, and
    /// only lives longer for it.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn bring_back(&mut self, now_ms: i64) -> Result<(), StoreError> {
        for (table, rows) in DATED {
            let statement =
                format!("UPDATE {table} SET seen_ms = $1 WHERE seen_ms > $1 AND {rows}");
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(now_ms.max(1))
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    /// Dates this round and the rows that are new since the last one, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn date(&mut self, now_ms: i64) -> Result<(), StoreError> {
        for (table, rows) in DATED {
            let statement = format!("UPDATE {table} SET seen_ms = $1 WHERE seen_ms = 0 AND {rows}");
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(now_ms.max(1))
                .execute(&mut *self.conn)
                .await?;
        }
        sqlx::query("UPDATE store_owner SET looked_ms = $1")
            .bind(now_ms)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Forgets messages that are known since before `messages_ms`, and room keys that came and
    /// were last used before `keys_ms` (milliseconds since 1970), with the records of that age. The guard against replays goes with
    /// the key, never before it: what cannot be decrypted cannot be replayed.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn forget(
        &mut self,
        messages_ms: i64,
        keys_ms: i64,
    ) -> Result<Forgotten, StoreError> {
        let messages = sqlx::query("DELETE FROM message_map WHERE seen_ms > 0 AND seen_ms < $1")
            .bind(messages_ms)
            .execute(&mut *self.conn)
            .await?
            .rows_affected();
        let room_keys = sqlx::query(
            "DELETE FROM crypto_room_keys WHERE seen_ms > 0 AND seen_ms < $1 AND NOT EXISTS (\
                 SELECT 1 FROM megolm_index AS used \
                 WHERE used.room_id = crypto_room_keys.room_id \
                 AND used.session_id = crypto_room_keys.session_id \
                 AND (used.seen_ms = 0 OR used.seen_ms >= $1))",
        )
        .bind(keys_ms)
        .execute(&mut *self.conn)
        .await?
        .rows_affected();
        let statement = format!(
            "DELETE FROM crypto_records WHERE seen_ms > 0 AND seen_ms < $1 AND {ENDING_RECORDS}"
        );
        let records = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(keys_ms)
            .execute(&mut *self.conn)
            .await?
            .rows_affected();
        if room_keys == 0 {
            return Ok(Forgotten { messages, room_keys, positions: 0, records });
        }
        let positions = sqlx::query(
            "DELETE FROM megolm_index WHERE seen_ms > 0 AND seen_ms < $1 AND NOT EXISTS (\
                 SELECT 1 FROM crypto_room_keys AS kept \
                 WHERE kept.room_id = megolm_index.room_id \
                 AND kept.session_id = megolm_index.session_id)",
        )
        .bind(keys_ms)
        .execute(&mut *self.conn)
        .await?
        .rows_affected();
        Ok(Forgotten { messages, room_keys, positions, records })
    }
}
