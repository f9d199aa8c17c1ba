//! What the store remembers for the policies: of encryption that was used, and of what waits.

use ruma::{event_id, owned_room_id, owned_user_id};
use sqlx::Executor as _;

use super::repositories::remote_event;
use crate::{
    network::{
        Author, ChatKey, Held, IdentityTrust, LegSecurity, PlaintextPolicy, RemoteEvent,
        RemoteEventKind, RemoteUserId,
    },
    store::{
        Database, DeliveryStatus, Lane, MappedMessage, MessageAuthor, NewPortal, Notice, Portal,
        PortalState, RemoteHistory, Repetition, RoomEncryption,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    encryption_that_was_used_ends_consent_in_its_chat_only,
    chats_that_were_encrypted_before_the_upgrade_are_known,
    an_event_waits_since_it_was_found_to,
    a_notice_is_given_at_intervals,
    held_stanzas_end_by_age,
);

fn chat(contact: &str) -> ChatKey {
    let local = Author::Person(owned_user_id!("@alice:example.org"));
    ChatKey { local, contact: RemoteUserId::new(contact) }
}

/// Alice has a portal with Bob and one with Carol, and allows plaintext in both.
async fn two_portals(location: &TestDatabase) -> Database {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    for (room_id, contact) in [
        (owned_room_id!("!bob:example.org"), "bob@example.net"),
        (owned_room_id!("!carol:example.org"), "carol@example.net"),
    ] {
        let portal = NewPortal {
            room_id: room_id.clone(),
            network: "xmpp".to_owned(),
            local: owned_user_id!("@alice:example.org"),
            contact: RemoteUserId::new(contact),
            ghost: owned_user_id!("@ghost:example.org"),
            encryption: RoomEncryption::Plain,
            state: PortalState::Active,
        };
        tx.portals().insert(&portal).await.unwrap();
        tx.portals().set_plaintext(&room_id, PlaintextPolicy::Allow).await.unwrap();
    }
    tx.commit().await.unwrap();
    db
}

async fn histories(db: &Database) -> Vec<(PlaintextPolicy, RemoteHistory)> {
    let mut tx = db.read().await.unwrap();
    let portals = tx.portals().load_by_local(&owned_user_id!("@alice:example.org")).await.unwrap();
    portals.iter().map(|portal: &Portal| (portal.plaintext, portal.history)).collect()
}

const OPEN: (PlaintextPolicy, RemoteHistory) =
    (PlaintextPolicy::Allow, RemoteHistory::NeverEncrypted);

async fn encryption_that_was_used_ends_consent_in_its_chat_only(location: TestDatabase) {
    let db = two_portals(&location).await;
    let mut tx = db.begin().await.unwrap();
    let mut portals = tx.portals();
    portals.encryption_was_used("mail", &chat("bob@example.net")).await.unwrap();
    portals.encryption_was_used("xmpp", &chat("dave@example.net")).await.unwrap();
    let of_the_bridge = ChatKey { local: Author::Bridge, ..chat("bob@example.net") };
    portals.encryption_was_used("xmpp", &of_the_bridge).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(histories(&db).await, [OPEN, OPEN]);

    let mut tx = db.begin().await.unwrap();
    tx.portals().encryption_was_used("xmpp", &chat("bob@example.net")).await.unwrap();
    tx.commit().await.unwrap();
    let used = (PlaintextPolicy::Refuse, RemoteHistory::Encrypted);
    assert_eq!(histories(&db).await, [used, OPEN]);

    // A new consent ends with the next use, and is no reason to forget the first.
    let (old, new) = (owned_room_id!("!bob:example.org"), owned_room_id!("!a:example.org"));
    let mut tx = db.begin().await.unwrap();
    tx.portals().set_plaintext(&old, PlaintextPolicy::Allow).await.unwrap();
    tx.portals().replace_room(&old, &new, RoomEncryption::Plain).await.unwrap();
    tx.commit().await.unwrap();
    let again = (PlaintextPolicy::Allow, RemoteHistory::Encrypted);
    assert_eq!(histories(&db).await, [again, OPEN]);
    let mut tx = db.begin().await.unwrap();
    tx.portals().encryption_was_used("xmpp", &chat("bob@example.net")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(histories(&db).await, [used, OPEN]);
}

async fn chats_that_were_encrypted_before_the_upgrade_are_known(location: TestDatabase) {
    let db = two_portals(&location).await;
    let mut tx = db.begin().await.unwrap();
    for (event_id, contact, remote_leg) in [
        (event_id!("$plain"), "carol@example.net", LegSecurity::Plaintext),
        (
            event_id!("$encrypted"),
            "bob@example.net",
            LegSecurity::Encrypted { identity: IdentityTrust::Pinned },
        ),
    ] {
        let message = MappedMessage {
            event_id: event_id.to_owned(),
            room_id: owned_room_id!("!room:example.org"),
            chat: chat(contact),
            author: MessageAuthor::Contact,
            remote_id: None,
            matrix_leg: LegSecurity::Plaintext,
            remote_leg,
            status: DeliveryStatus::Sent,
        };
        tx.message_map().insert(&message).await.unwrap();
    }
    tx.commit().await.unwrap();
    let migration = include_str!("../../../migrations/0005_policy.sql");
    let update = migration.split(';').find(|statement| statement.contains("UPDATE")).unwrap();
    location.raw_connection().await.execute(update).await.unwrap();
    let known: Vec<_> = histories(&db).await.into_iter().map(|(_, history)| history).collect();
    assert_eq!(known, [RemoteHistory::Encrypted, RemoteHistory::NeverEncrypted]);
}

async fn an_event_waits_since_it_was_found_to(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let mut inbox = tx.remote_inbox();
    let event = remote_event(&chat("bob@example.net"), "it waits");
    let report =
        RemoteEvent { chat: event.chat.clone(), sent_at_ms: None, kind: RemoteEventKind::Expired };
    inbox.insert(&report).await.unwrap();
    inbox.insert(&event).await.unwrap();
    let unknown = Held { messages: 1, since_ms: None };
    assert_eq!(inbox.count_pending(&event.chat).await.unwrap(), unknown);
    let messages = (&event.chat, Lane::Messages);
    assert!(inbox.has_undated(messages).await.unwrap());
    inbox.wait_from_now(messages, 7).await.unwrap();
    assert!(!inbox.has_undated(messages).await.unwrap());
    assert!(inbox.has_undated((&event.chat, Lane::Reports)).await.unwrap());
    inbox.insert(&event).await.unwrap();
    inbox.wait_from_now((&chat("carol@example.net"), Lane::Messages), 8).await.unwrap();
    inbox.wait_from_now(messages, 9).await.unwrap();
    let rows = inbox.load_pending(messages, None, 10).await.unwrap();
    let since: Vec<_> = rows.iter().map(|row| row.waits_since_ms).collect();
    assert_eq!(since, [Some(7), Some(9)]);
    let known = Held { messages: 2, since_ms: Some(7) };
    assert_eq!(inbox.count_pending(&event.chat).await.unwrap(), known);
}

async fn a_notice_is_given_at_intervals(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let mut notices = tx.notices();
    let notice = Notice { scope: "!room", subject: "", kind: "expired" };
    assert!(!notices.is_told_since(notice, 0, 100).await.unwrap());
    assert!(notices.first_time_since(notice, 0, 100).await.unwrap());
    assert!(!notices.first_time_since(notice, 100, 200).await.unwrap());
    assert!(notices.is_told_since(notice, 100, 200).await.unwrap());
    assert!(!notices.is_told_since(notice, 101, 200).await.unwrap());
    assert!(notices.first_time_since(notice, 101, 201).await.unwrap());
    assert!(notices.is_told_since(notice, 201, 201).await.unwrap());
    // The clock was ahead, and is set right.
    assert!(notices.first_time_since(notice, 9_000, 9_100).await.unwrap());
    assert!(!notices.is_told_since(notice, 200, 300).await.unwrap());
    assert!(notices.first_time_since(notice, 200, 300).await.unwrap());
    assert!(!notices.first_time_since(notice, 200, 301).await.unwrap());
}

async fn held_stanzas_end_by_age(location: TestDatabase) {
    let db = location.open().await;
    let (bob, carol) = (chat("bob@example.net"), chat("carol@example.net"));
    let mut tx = db.begin().await.unwrap();
    let mut inbox = tx.xmpp_inbox();
    for (chat, came_ms) in [(&bob, 10), (&bob, 20), (&carol, 10), (&carol, 10)] {
        let stored = inbox.insert(chat, "hash", Repetition::Never, b"stanza", came_ms).await;
        inbox.hold(stored.unwrap().unwrap(), None).await.unwrap();
    }
    inbox.insert(&bob, "pending", Repetition::Never, b"stanza", 1).await.unwrap();
    assert!(inbox.chats_held_before(10).await.unwrap().is_empty());
    assert!(inbox.chats_held_before(11).await.unwrap() == [bob.clone(), carol.clone()]);
    assert_eq!(inbox.end_held_before(&bob, 20).await.unwrap(), 1);
    assert_eq!(inbox.end_held_before(&bob, 20).await.unwrap(), 0);
    assert_eq!(inbox.count_held(&bob).await.unwrap(), Held { messages: 1, since_ms: Some(20) });
    assert_eq!(inbox.count_held(&carol).await.unwrap().messages, 2, "another chat");
    assert!(inbox.find_next(&bob).await.unwrap().is_some(), "it is not held");
}
