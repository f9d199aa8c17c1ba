//! The names that everything in the database is made of.

use sqlx::AnyConnection;

use super::{Database, StoreError};

/// What the ids of ghosts and the addresses of Matrix users end in.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The homeserver's name.
    pub server_name: &'a str,
    /// The domain of the XMPP component.
    pub component: &'a str,
}

impl Database {
    /// Notes the names at the first start, and makes sure of them at every other: under others the ghosts that are stored
    /// would be nobody, and in the way of new ones. Until somebody has a chat they may change.
    ///
    /// # Errors
    /// [`NamesError::Changed`] when the database was made under another name. It has not changed then.
    pub async fn ensure_names(&self, names: Names<'_>) -> Result<(), NamesError> {
        let mut tx = self.begin().await?;
        let (server_name, component): (Option<String>, Option<String>) =
            sqlx::query_as("SELECT server_name, component FROM store_owner")
                .fetch_one(tx.parts().0)
                .await
                .map_err(StoreError::from)?;
        if let (Some(server_name), Some(component)) = (server_name, component) {
            let same = check("homeserver.server_name", server_name, names.server_name)
                .and_then(|()| check("xmpp.component", component, names.component));
            if same.is_ok() || is_used(tx.parts().0).await.map_err(StoreError::from)? {
                return same;
            }
        }
        sqlx::query("UPDATE store_owner SET server_name = $1, component = $2")
            .bind(names.server_name)
            .bind(names.component)
            .execute(tx.parts().0)
            .await
            .map_err(StoreError::from)?;
        Ok(tx.commit().await?)
    }
}

async fn is_used(conn: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let (rows,): (i64,) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM portals) + (SELECT COUNT(*) FROM xmpp_accounts)",
    )
    .fetch_one(conn)
    .await?;
    Ok(rows > 0)
}

fn check(key: &'static str, stored: String, configured: &str) -> Result<(), NamesError> {
    if stored == configured { Ok(()) } else { Err(NamesError::Changed { key, stored }) }
}

/// The database is not for these names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// It was made under another.
    #[error(
        "the database was made with {key} = \"{stored}\", which all that it holds is made of: put that name back, or begin \
         with a new database (on SQLite without the old file and its witness)"
    )]
    Changed {
        /// Section and key in the configuration.
        key: &'static str,
        /// What it was.
        stored: String,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}
