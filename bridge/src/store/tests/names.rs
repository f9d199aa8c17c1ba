//! The names that a database was made under.

use assert_matches::assert_matches;
use sqlx::Executor as _;

use crate::{
    network::Author,
    store::{
        Names, NamesError,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    a_name_may_change_while_nothing_is_made_of_it,
    another_name_is_refused_and_changes_nothing,
    a_database_from_before_takes_the_present_names,
);

const NAMES: Names<'_> = Names { server_name: "example.org", component: "matrix.example.org" };

async fn ensure(location: &TestDatabase, names: Names<'_>) -> Result<(), NamesError> {
    let db = location.open().await;
    let ensured = db.ensure_names(names).await;
    db.close().await.unwrap();
    ensured
}

/// Our side of a chat has a device.
async fn use_it(location: &TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    tx.xmpp_omemo().save_account(&Author::Bridge, b"account").await.unwrap();
    tx.commit().await.unwrap();
    db.close().await.unwrap();
}

async fn a_name_may_change_while_nothing_is_made_of_it(location: TestDatabase) {
    ensure(&location, Names { server_name: "a typo", component: "another" }).await.unwrap();
    ensure(&location, NAMES).await.unwrap();
    use_it(&location).await;
    let refused = ensure(&location, Names { server_name: "a typo", ..NAMES }).await;
    assert_matches!(refused, Err(NamesError::Changed { .. }));
}

async fn another_name_is_refused_and_changes_nothing(location: TestDatabase) {
    ensure(&location, NAMES).await.unwrap();
    use_it(&location).await;
    let refused = ensure(&location, Names { server_name: "example.net", ..NAMES }).await;
    assert_matches!(
        refused,
        Err(NamesError::Changed { key: "homeserver.server_name", stored }) if stored == "example.org"
    );
    let refused = ensure(&location, Names { component: "xmpp.example.org", ..NAMES }).await;
    assert_matches!(
        refused,
        Err(NamesError::Changed { key: "xmpp.component", stored }) if stored == "matrix.example.org"
    );
    ensure(&location, NAMES).await.unwrap();
}

async fn a_database_from_before_takes_the_present_names(location: TestDatabase) {
    location.open().await.close().await.unwrap();
    let mut raw = location.raw_connection().await;
    raw.execute("ALTER TABLE store_owner DROP COLUMN server_name").await.unwrap();
    raw.execute("ALTER TABLE store_owner DROP COLUMN component").await.unwrap();
    raw.execute("DELETE FROM _sqlx_migrations WHERE version = 13").await.unwrap();
    drop(raw);
    ensure(&location, NAMES).await.unwrap();
    use_it(&location).await;
    let refused = ensure(&location, Names { component: "xmpp.example.org", ..NAMES }).await;
    assert_matches!(refused, Err(NamesError::Changed { .. }));
}
