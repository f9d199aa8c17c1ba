//! What can go wrong in a repository.

use super::SealError;

/// A transaction failed. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the database now, or it was set back to an older state: this process must
    /// stop writing.
    #[error("another process has taken over the database, or it was set back; this one must stop")]
    Fenced,
    /// The database did not do what it was asked.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A sealed cell could not be sealed or opened.
    #[error("sealed column {table}.{column} cannot be used")]
    Sealed {
        /// Where it is.
        table: &'static str,
        /// Where it is.
        column: &'static str,
        /// Why.
        #[source]
        source: SealError,
    },
    /// A cell holds what this program never writes.
    #[error("column {table}.{column} holds an impossible value")]
    Corrupt {
        /// Where it is.
        table: &'static str,
        /// Where it is.
        column: &'static str,
    },
    /// A value has no stored form.
    #[error("a value for column {table}.{column} cannot be encoded")]
    Encode {
        /// Where it was to go.
        table: &'static str,
        /// Where it was to go.
        column: &'static str,
    },
    /// The row to change does not exist, or is done already.
    #[error("no such open row in {table}")]
    NoSuchRow {
        /// The table.
        table: &'static str,
    },
    /// The row to insert exists already.
    #[error("such a row exists already in {table}")]
    AlreadyExists {
        /// The table.
        table: &'static str,
    },
}

impl StoreError {
    /// An `INSERT` that may meet a unique row.
    pub(super) fn on_insert(table: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |error| match error.as_database_error() {
            Some(cause) if cause.is_unique_violation() => Self::AlreadyExists { table },
            _ => Self::Database(error),
        }
    }
}

/// Fails unless a statement changed exactly one row.
pub(super) fn expect_one_row(
    result: &sqlx::any::AnyQueryResult,
    table: &'static str,
) -> Result<(), StoreError> {
    if result.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NoSuchRow { table }) }
}

/// Parses what this program has written itself.
pub(super) fn parse_column<T>(
    text: impl AsRef<str>,
    table: &'static str,
    column: &'static str,
) -> Result<T, StoreError>
where
    T: for<'a> TryFrom<&'a str>,
{
    T::try_from(text.as_ref()).map_err(|_| StoreError::Corrupt { table, column })
}
