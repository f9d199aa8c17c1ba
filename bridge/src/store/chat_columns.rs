//! How a [`ChatKey`] stands in two columns: `local_user`, `contact`.

use crate::network::{Author, ChatKey, RemoteUserId};

use super::{StoreError, error::parse_column};

/// Stands for the bridge itself; no user id is empty.
const BRIDGE: &str = "";

/// The value of `local_user`.
pub(super) fn local_user(author: &Author) -> &str {
    match author {
        Author::Person(user) => user.as_str(),
        Author::Bridge => BRIDGE,
    }
}

/// The author in a row.
pub(super) fn author(local_user: &str, table: &'static str) -> Result<Author, StoreError> {
    Ok(match local_user {
        BRIDGE => Author::Bridge,
        user => Author::Person(parse_column(user, table, "local_user")?),
    })
}

/// The chat of a row.
pub(super) fn chat_key(
    local_user: &str,
    contact: String,
    table: &'static str,
) -> Result<ChatKey, StoreError> {
    let local = author(local_user, table)?;
    Ok(ChatKey { local, contact: RemoteUserId::new(contact) })
}
