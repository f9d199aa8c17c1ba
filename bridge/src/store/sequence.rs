//! Row numbers: never used twice, in the order of commits.
//!
//! The two databases share no syntax for numbering rows by themselves, and SQLite's own numbers
//! are given again after a deletion.

use sqlx::AnyConnection;

use super::StoreError;

/// Takes `count` numbers and returns the first.
pub(super) async fn take(conn: &mut AnyConnection, count: usize) -> Result<i64, StoreError> {
    let count = i64::try_from(count)
        .map_err(|_| StoreError::Encode { table: "store_owner", column: "next_row_id" })?;
    let (next,): (i64,) = sqlx::query_as(
        "UPDATE store_owner SET next_row_id = next_row_id + $1 RETURNING next_row_id",
    )
    .bind(count)
    .fetch_one(conn)
    .await?;
    Ok(next - count)
}
