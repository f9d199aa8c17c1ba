//! What people have been told once and need not hear again.

use sqlx::AnyConnection;

use super::{StoreError, Transaction};

/// Something that is said once.
#[derive(Clone, Copy)]
pub struct Notice<'a> {
    /// Where it is said: a room, a chat.
    pub scope: &'a str,
    /// Whom or what it is about; empty where the scope says it.
    pub subject: &'a str,
    /// What it says, as a short lower-case word.
    pub kind: &'a str,
}

/// All that has been said.
pub struct Notices<'t> {
    conn: &'t mut AnyConnection,
}

impl<'t> Notices<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Remembers that this is being said, and tells whether it is the first time. The words
    /// must be committed (to an outbox) in the same transaction.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn first_time(&mut self, notice: Notice<'_>) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO notices (scope, subject, kind) VALUES ($1, $2, $3) \
             ON CONFLICT (scope, subject, kind) DO NOTHING",
        )
        .bind(notice.scope)
        .bind(notice.subject)
        .bind(notice.kind)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// As [`Self::first_time`], for what is said at intervals: whether it was not said since
    /// `since_ms`, both times in milliseconds since 1970. What was said later than now was said by
    /// a clock that was wrong, and does not count.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn first_time_since(
        &mut self,
        notice: Notice<'_>,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO notices (scope, subject, kind, told_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (scope, subject, kind) DO UPDATE SET told_ms = excluded.told_ms \
             WHERE notices.told_ms < $5 OR notices.told_ms > $4",
        )
        .bind(notice.scope)
        .bind(notice.subject)
        .bind(notice.kind)
        .bind(now_ms)
        .bind(since_ms)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// Whether this has been said since a time, and not later than now (milliseconds since 1970).
    /// Only [`Self::first_time_since`] settles who says it.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn is_told_since(
        &mut self,
        notice: Notice<'_>,
        since_ms: i64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT told_ms FROM notices WHERE scope = $1 AND subject = $2 AND kind = $3 \
             AND told_ms BETWEEN $4 AND $5",
        )
        .bind(notice.scope)
        .bind(notice.subject)
        .bind(notice.kind)
        .bind(since_ms)
        .bind(now_ms)
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Whether this has been said. Only [`Self::first_time`] settles who says it.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn is_told(&mut self, notice: Notice<'_>) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT CAST(1 AS BIGINT) FROM notices WHERE scope = $1 AND subject = $2 AND kind = $3",
        )
        .bind(notice.scope)
        .bind(notice.subject)
        .bind(notice.kind)
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// What this has been said about, there.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn subjects(&mut self, scope: &str, kind: &str) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT subject FROM notices WHERE scope = $1 AND kind = $2 ORDER BY subject",
        )
        .bind(scope)
        .bind(kind)
        .fetch_all(&mut *self.conn)
        .await?;
        Ok(rows.into_iter().map(|(subject,)| subject).collect())
    }

    /// Forgets everything that was said there: it did not arrive.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn forget_all(&mut self, scope: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM notices WHERE scope = $1")
            .bind(scope)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Forgets that this was said there about this subject.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn forget_about(&mut self, notice: Notice<'_>) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM notices WHERE scope = $1 AND subject = $2 AND kind = $3")
            .bind(notice.scope)
            .bind(notice.subject)
            .bind(notice.kind)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Forgets that this was said there, about whomever, so that it will be said again: what it
    /// told of has ended.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn forget(&mut self, scope: &str, kind: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM notices WHERE scope = $1 AND kind = $2")
            .bind(scope)
            .bind(kind)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}
