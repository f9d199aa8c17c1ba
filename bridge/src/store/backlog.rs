//! How much waits in a chat, without a look into it.

use sqlx::AnyConnection;

use crate::network::ChatKey;

use super::{StoreError, chat_columns::local_user};

/// What waits in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Rows.
    pub rows: u64,
    /// How much room they take, sealed.
    pub bytes: u64,
}

impl Backlog {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Runs a query that counts the rows of a chat up to a limit, and adds their sizes up.
pub(super) async fn measure(
    conn: &mut AnyConnection,
    query: &'static str,
    chat: &ChatKey,
    limit: u32,
) -> Result<Backlog, StoreError> {
    let (rows, bytes): (i64, i64) = sqlx::query_as(query)
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(limit))
        .fetch_one(conn)
        .await?;
    let unsigned = |number| u64::try_from(number).unwrap_or_default();
    Ok(Backlog { rows: unsigned(rows), bytes: unsigned(bytes) })
}
