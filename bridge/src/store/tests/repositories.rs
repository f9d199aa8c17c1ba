//! Every repository on both databases.

use assert_matches::assert_matches;
use ruma::{
    EventId, OwnedRoomId, RoomId, UserId, device_id, event_id, owned_user_id, room_id, user_id,
};

use crate::{
    network::{
        Author, ChatKey, Hold, IdentityTrust, LegSecurity, MessageContent, PlaintextPolicy,
        RemoteEvent, RemoteEventKind, RemoteMessageId, RemoteUserId,
    },
    store::{
        BotPresence, DeliveryStatus, Ghost, GhostStage, IndexCheck, Lane, ManagementRoom,
        MappedMessage, MessageAuthor, MessagePosition, NewInboxEvent, NewOutboxEvent, NewPortal,
        Notice, PinOutcome, PinState, PortalState, RoomEncryption, SentMessage, StoreError,
        Transaction,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    the_matrix_inbox_keeps_order_and_knows_its_events,
    history_takes_its_place_among_open_events,
    whatever_people_write_can_be_stored,
    an_event_is_done_once,
    done_events_are_purged_by_age,
    a_delivered_event_is_recognised_after_its_row_was_purged,
    the_remote_inbox_keeps_the_order_of_each_chat,
    the_matrix_outbox_keeps_the_order_of_each_room,
    row_numbers_are_never_used_again,
    a_portal_is_found_by_room_and_by_chat,
    portals_in_which_something_waits_are_found,
    a_portal_changes_step_by_step,
    a_chat_moves_to_another_room,
    management_rooms_are_remembered,
    a_ghost_comes_into_being_once,
    a_message_is_found_from_both_sides,
    a_changed_identity_waits_for_approval,
    a_notice_is_new_once,
    a_megolm_index_belongs_to_one_event,
);

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

fn other_room() -> &'static RoomId {
    room_id!("!other:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

const PINNED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };

pub(super) async fn begin(location: &TestDatabase) -> (crate::store::Database, Transaction) {
    let db = location.open().await;
    let tx = db.begin().await.unwrap();
    (db, tx)
}

fn inbox_event(room_id: &RoomId, event_id: &EventId) -> NewInboxEvent {
    NewInboxEvent {
        event_id: event_id.to_owned(),
        room_id: room_id.to_owned(),
        sender: alice().to_owned(),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        origin_ts: 1_700_000_000_000,
        json: format!(r#"{{"event_id":"{event_id}"}}"#),
    }
}

pub(super) fn chat_with(contact: &str) -> ChatKey {
    ChatKey {
        local: Author::Person(alice().to_owned()),
        contact: RemoteUserId::new(contact.to_owned()),
    }
}

pub(super) fn remote_event(chat: &ChatKey, body: &str) -> RemoteEvent {
    RemoteEvent {
        chat: chat.clone(),
        sent_at_ms: Some(5),
        kind: RemoteEventKind::Message {
            id: Some(RemoteMessageId::new("1")),
            content: MessageContent::Text { body: body.to_owned() },
            security: PINNED,
        },
    }
}

async fn the_matrix_inbox_keeps_order_and_knows_its_events(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let one = inbox_event(room(), event_id!("$zz"));
    let two =
        NewInboxEvent { state_key: Some(String::new()), ..inbox_event(room(), event_id!("$aa")) };
    let elsewhere = inbox_event(other_room(), event_id!("$mm"));

    let push = [one.clone(), elsewhere.clone(), one.clone(), two.clone()];
    let inserted = tx.matrix_inbox().insert(&push, 1).await.unwrap();
    assert_eq!(inserted.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    let again = tx.matrix_inbox().insert(&push, 2).await.unwrap();
    assert!(again.iter().all(Option::is_none));

    let pending = tx.matrix_inbox().load_pending(room(), None, 10).await.unwrap();
    let events: Vec<_> = pending.iter().map(|row| row.event.clone()).collect();
    assert!(events == [one.clone(), two], "whole and in order");
    assert_eq!(pending[0].id, inserted[0].unwrap());
    let first = tx.matrix_inbox().load_pending(room(), None, 1).await.unwrap();
    assert!(first.len() == 1 && first[0].event == one);
    let rooms = tx.matrix_inbox().pending_rooms().await.unwrap();
    assert_eq!(rooms, [room(), other_room()]);
}

async fn history_takes_its_place_among_open_events(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let [invitation, done, early, late, newest] =
        [event_id!("$0"), event_id!("$1"), event_id!("$2"), event_id!("$3"), event_id!("$4")]
            .map(|id| inbox_event(room(), id));
    let mut inbox = tx.matrix_inbox();
    let pushed = [invitation.clone(), late.clone(), done.clone(), newest.clone()];
    let rows = inbox.insert(&pushed, 1).await.unwrap();
    inbox.mark_done(rows[2].unwrap()).await.unwrap();

    let history = [done, early.clone(), late.clone()];
    inbox.insert_history(rows[0].unwrap(), &history, 2).await.unwrap();
    let pending = inbox.load_pending(room(), None, 10).await.unwrap();
    let events: Vec<_> = pending.iter().map(|row| row.event.clone()).collect();
    assert!(events == [invitation, early, late, newest], "in the order of the room");
    assert_eq!(pending.iter().map(|row| row.received_ms).collect::<Vec<_>>(), [1, 2, 1, 1]);
    let behind = inbox.load_pending(room(), Some(pending[2].id), 10).await.unwrap();
    assert!(behind.len() == 1 && behind[0].id == pending[3].id);
}

/// PostgreSQL takes no NUL in a text, and no long text into an index.
async fn whatever_people_write_can_be_stored(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let event = NewInboxEvent {
        event_type: "org.example\0".to_owned(),
        state_key: Some("\0".repeat(100_000)),
        ..inbox_event(room(), event_id!("$one"))
    };
    tx.matrix_inbox().insert(std::slice::from_ref(&event), 1).await.unwrap();
    assert!(tx.matrix_inbox().load_pending(room(), None, 1).await.unwrap()[0].event == event);

    let noise: String = (0..40_000_u32).map(|n| char::from(33 + (n * n % 89) as u8)).collect();
    let message = message(event_id!("$two"), MessageAuthor::Contact, Some(&noise));
    tx.message_map().insert(&message).await.unwrap();
    let id = RemoteMessageId::new(noise);
    let found = tx.message_map().find_by_remote(&message.chat, MessageAuthor::Contact, &id).await;
    assert!(found.unwrap() == Some(message));
}

async fn an_event_is_done_once(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let event = inbox_event(room(), event_id!("$one"));
    let id = tx.matrix_inbox().insert(std::slice::from_ref(&event), 1).await.unwrap()[0].unwrap();

    tx.matrix_inbox().mark_done(id).await.unwrap();
    assert!(tx.matrix_inbox().load_pending(room(), None, 10).await.unwrap().is_empty());
    assert!(tx.matrix_inbox().pending_rooms().await.unwrap().is_empty());
    assert_eq!(tx.matrix_inbox().insert(&[event], 1).await.unwrap(), [None], "still known");
    assert_matches!(tx.matrix_inbox().mark_done(id).await, Err(StoreError::NoSuchRow { .. }));
}

async fn done_events_are_purged_by_age(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let [old, recent, open] = [event_id!("$old"), event_id!("$recent"), event_id!("$open")]
        .map(|id| inbox_event(room(), id));
    let mut inbox = tx.matrix_inbox();
    let old_id = inbox.insert(&[old.clone(), open], 100).await.unwrap()[0].unwrap();
    let recent_id = inbox.insert(std::slice::from_ref(&recent), 200).await.unwrap()[0].unwrap();
    inbox.mark_done(old_id).await.unwrap();
    inbox.mark_done(recent_id).await.unwrap();

    assert_eq!(inbox.purge_done(200).await.unwrap(), 1);
    assert_eq!(inbox.load_pending(room(), None, 10).await.unwrap().len(), 1, "open events stay");
    let known = inbox.insert(&[old, recent], 300).await.unwrap();
    assert_eq!(known.iter().map(Option::is_none).collect::<Vec<_>>(), [false, true]);
}

async fn a_delivered_event_is_recognised_after_its_row_was_purged(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let [sent, unsent] =
        [event_id!("$sent"), event_id!("$unsent")].map(|id| inbox_event(room(), id));
    let rows = tx.matrix_inbox().insert(&[sent.clone(), unsent.clone()], 1).await.unwrap();
    let chat = chat_with("bob@example.net");
    let message = SentMessage {
        chat: &chat,
        remote_id: &RemoteMessageId::new("one"),
        matrix_leg: LegSecurity::Plaintext,
        remote_leg: LegSecurity::Plaintext,
    };
    tx.message_map().insert_sent(rows[0].unwrap(), message).await.unwrap();
    for row in rows {
        tx.matrix_inbox().mark_done(row.unwrap()).await.unwrap();
    }
    assert_eq!(tx.matrix_inbox().purge_done(2).await.unwrap(), 2);
    let again = tx.matrix_inbox().insert(&[sent, unsent], 3).await.unwrap();
    assert_eq!(again.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
}

async fn the_remote_inbox_keeps_the_order_of_each_chat(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let bob = chat_with("bob@example.net");
    let carol = ChatKey { local: Author::Bridge, ..chat_with("carol@example.net") };
    let held = RemoteEvent {
        chat: carol.clone(),
        sent_at_ms: None,
        kind: RemoteEventKind::Held(Hold::IdentityChanged { fingerprints: vec!["ab cd".into()] }),
    };
    let mut inbox = tx.remote_inbox();
    let first = inbox.insert(&remote_event(&bob, "one")).await.unwrap();
    inbox.insert(&held).await.unwrap();
    inbox.insert(&remote_event(&bob, "two")).await.unwrap();

    let events = inbox.load_pending((&bob, Lane::Messages), None, 10).await.unwrap();
    assert!(events[0].id == first && events[0].event == remote_event(&bob, "one"));
    assert!(events[1].event == remote_event(&bob, "two") && events.len() == 2);
    let reports = inbox.load_pending((&carol, Lane::Reports), None, 10).await.unwrap();
    assert!(reports[0].event == held);
    assert!(inbox.pending_chats().await.unwrap() == [bob.clone(), carol]);

    inbox.mark_done(first).await.unwrap();
    assert_eq!(inbox.load_pending((&bob, Lane::Messages), None, 10).await.unwrap().len(), 1);
    assert_matches!(inbox.mark_done(first).await, Err(StoreError::NoSuchRow { .. }));
}

fn outbox_event(room_id: &RoomId, txn_id: &str) -> NewOutboxEvent {
    NewOutboxEvent {
        room_id: room_id.to_owned(),
        user_id: owned_user_id!("@xmpp_bob:example.org"),
        event_type: "m.room.encrypted".to_owned(),
        txn_id: txn_id.into(),
        content: format!(r#"{{"txn":"{txn_id}"}}"#),
        reference: None,
    }
}

async fn the_matrix_outbox_keeps_the_order_of_each_room(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let with_reference =
        NewOutboxEvent { reference: Some("row 7".to_owned()), ..outbox_event(room(), "a") };
    let mut outbox = tx.matrix_outbox();
    let first = outbox.insert(&outbox_event(room(), "z")).await.unwrap();
    outbox.insert(&outbox_event(other_room(), "m")).await.unwrap();
    outbox.insert(&with_reference).await.unwrap();

    let events: Vec<_> = outbox.load_pending(room(), 10).await.unwrap();
    let events: Vec<_> = events.into_iter().map(|row| row.event).collect();
    assert!(events == [outbox_event(room(), "z"), with_reference]);
    assert_eq!(outbox.load_pending(room(), 1).await.unwrap()[0].id, first);
    assert_eq!(outbox.pending_rooms().await.unwrap(), [room(), other_room()]);

    outbox.mark_sent(first).await.unwrap();
    assert_eq!(outbox.load_pending(room(), 10).await.unwrap().len(), 1);
    assert_matches!(outbox.mark_sent(first).await, Err(StoreError::NoSuchRow { .. }));
    drop(tx);

    let mut tx = _db.begin().await.unwrap();
    tx.matrix_outbox().insert(&outbox_event(room(), "z")).await.unwrap();
    let taken = tx.matrix_outbox().insert(&outbox_event(other_room(), "z")).await;
    assert_matches!(taken, Err(StoreError::AlreadyExists { .. }));
}

async fn row_numbers_are_never_used_again(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let bob = chat_with("bob@example.net");
    let first = tx.remote_inbox().insert(&remote_event(&bob, "one")).await.unwrap();
    tx.remote_inbox().mark_done(first).await.unwrap();
    let second = tx.remote_inbox().insert(&remote_event(&bob, "two")).await.unwrap();
    assert!(second > first);
}

fn new_portal(room_id: &RoomId, contact: &str) -> NewPortal {
    NewPortal {
        room_id: room_id.to_owned(),
        network: "xmpp".to_owned(),
        local: alice().to_owned(),
        contact: RemoteUserId::new(contact),
        ghost: owned_user_id!("@xmpp_bob:example.org"),
        encryption: RoomEncryption::Plain,
        state: PortalState::Pending,
    }
}

async fn a_portal_is_found_by_room_and_by_chat(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let bob = RemoteUserId::new("bob@example.net");
    let mut portals = tx.portals();
    portals.insert(&new_portal(room(), "bob@example.net")).await.unwrap();

    let portal = portals.find_by_room(room()).await.unwrap().unwrap();
    assert!(portals.find_by_chat("xmpp", alice(), &bob).await.unwrap().unwrap() == portal);
    assert!(portals.load_by_local(alice()).await.unwrap() == [portal.clone()]);
    assert_eq!(
        (portal.encryption, portal.plaintext, portal.bot, portal.state),
        (RoomEncryption::Plain, PlaintextPolicy::Refuse, BotPresence::Absent, PortalState::Pending)
    );
    assert!(portals.find_by_room(other_room()).await.unwrap().is_none());
    assert!(portals.find_by_chat("mail", alice(), &bob).await.unwrap().is_none());
    assert!(portals.find_by_chat("xmpp", user_id!("@b:c"), &bob).await.unwrap().is_none());
}

async fn portals_in_which_something_waits_are_found(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let idle = room_id!("!idle:example.org");
    tx.portals().insert(&new_portal(room(), "bob@example.net")).await.unwrap();
    tx.portals().insert(&new_portal(other_room(), "carol@example.net")).await.unwrap();
    tx.portals().insert(&new_portal(idle, "idle@example.net")).await.unwrap();
    assert!(tx.portals().load_waiting("xmpp", alice()).await.unwrap().is_empty());

    let event = inbox_event(room(), event_id!("$one"));
    let from_alice = tx.matrix_inbox().insert(&[event], 1).await.unwrap()[0].unwrap();
    let carol = chat_with("carol@example.net");
    let from_carol = tx.remote_inbox().insert(&remote_event(&carol, "one")).await.unwrap();
    let waiting = tx.portals().load_waiting("xmpp", alice()).await.unwrap();
    let rooms: Vec<_> = waiting.into_iter().map(|portal| portal.room_id).collect();
    assert_eq!(rooms, [other_room(), room()]);
    assert!(tx.portals().load_waiting("xmpp", user_id!("@b:c")).await.unwrap().is_empty());
    assert!(tx.portals().load_waiting("mail", alice()).await.unwrap().is_empty());

    tx.matrix_inbox().mark_done(from_alice).await.unwrap();
    tx.remote_inbox().mark_done(from_carol).await.unwrap();
    assert!(tx.portals().load_waiting("xmpp", alice()).await.unwrap().is_empty());
}

async fn a_portal_changes_step_by_step(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut portals = tx.portals();
    portals.insert(&new_portal(room(), "bob@example.net")).await.unwrap();
    portals.insert(&new_portal(other_room(), "carol@example.net")).await.unwrap();

    portals.set_encrypted(room()).await.unwrap();
    portals.set_plaintext(room(), PlaintextPolicy::Allow).await.unwrap();
    portals.set_bot(room(), BotPresence::Joined).await.unwrap();
    portals.set_state(room(), PortalState::Active).await.unwrap();

    let portal = portals.find_by_room(room()).await.unwrap().unwrap();
    assert_eq!(
        (portal.encryption, portal.plaintext, portal.bot, portal.state),
        (
            RoomEncryption::Encrypted,
            PlaintextPolicy::Allow,
            BotPresence::Joined,
            PortalState::Active
        )
    );
    let other = portals.find_by_room(other_room()).await.unwrap().unwrap();
    assert_eq!(other.plaintext, PlaintextPolicy::Refuse, "only that portal changed");
    let nowhere = portals.set_encrypted(room_id!("!nowhere:example.org")).await;
    assert_matches!(nowhere, Err(StoreError::NoSuchRow { .. }));
}

async fn a_chat_moves_to_another_room(location: TestDatabase) {
    let (db, mut tx) = begin(&location).await;
    let new_room: OwnedRoomId = "!new:example.org".try_into().unwrap();
    let mut portals = tx.portals();
    portals.insert(&new_portal(room(), "bob@example.net")).await.unwrap();
    portals.insert(&new_portal(other_room(), "carol@example.net")).await.unwrap();
    portals.set_bot(room(), BotPresence::Joined).await.unwrap();
    portals.set_state(room(), PortalState::Closed).await.unwrap();

    portals.replace_room(room(), &new_room, RoomEncryption::Encrypted).await.unwrap();
    assert!(portals.find_by_room(room()).await.unwrap().is_none());
    let portal = portals.find_by_room(&new_room).await.unwrap().unwrap();
    assert_eq!(portal.contact.as_str(), "bob@example.net");
    assert_eq!(
        (portal.encryption, portal.bot, portal.state),
        (RoomEncryption::Encrypted, BotPresence::Absent, PortalState::Pending)
    );
    tx.commit().await.unwrap();

    for duplicate in
        [new_portal(other_room(), "dave@example.net"), new_portal(room(), "bob@example.net")]
    {
        let mut tx = db.begin().await.unwrap();
        let result = tx.portals().insert(&duplicate).await;
        assert_matches!(result, Err(StoreError::AlreadyExists { .. }));
    }
    let mut tx = db.begin().await.unwrap();
    let taken = tx.portals().replace_room(&new_room, other_room(), RoomEncryption::Plain).await;
    assert_matches!(taken, Err(StoreError::AlreadyExists { .. }));
}

async fn management_rooms_are_remembered(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let managed = ManagementRoom { room_id: room().to_owned(), user_id: alice().to_owned() };
    let mut rooms = tx.management_rooms();
    rooms.insert(&managed).await.unwrap();
    rooms.insert(&managed).await.unwrap();
    assert!(rooms.find_by_room(room()).await.unwrap().unwrap() == managed);
    assert!(rooms.load_by_user(alice()).await.unwrap() == [managed]);
    rooms.delete(room()).await.unwrap();
    assert!(rooms.find_by_room(room()).await.unwrap().is_none());
}

async fn a_ghost_comes_into_being_once(location: TestDatabase) {
    let (db, mut tx) = begin(&location).await;
    let bob = Ghost {
        user_id: owned_user_id!("@xmpp_bob:example.org"),
        remote_id: Some(RemoteUserId::new("bob@example.net")),
        device_id: device_id!("GEPHYRA").to_owned(),
        stage: GhostStage::Planned,
    };
    let bot =
        Ghost { user_id: owned_user_id!("@gephyra:example.org"), remote_id: None, ..bob.clone() };
    tx.ghosts().insert(&bob).await.unwrap();
    tx.ghosts().insert(&bot).await.unwrap();
    tx.ghosts().set_stage(&bob.user_id, GhostStage::Published).await.unwrap();
    tx.commit().await.unwrap();

    let mut tx = db.read().await.unwrap();
    let published = Ghost { stage: GhostStage::Published, ..bob.clone() };
    assert!(tx.ghosts().find(&bob.user_id).await.unwrap() == Some(published.clone()));
    assert!(tx.ghosts().load_by_stage(GhostStage::Published).await.unwrap() == [published]);
    assert!(tx.ghosts().load_by_stage(GhostStage::Planned).await.unwrap() == [bot]);
    assert!(tx.ghosts().find(alice()).await.unwrap().is_none());
    drop(tx);

    let other_device = Ghost { device_id: device_id!("OTHER").to_owned(), ..bob };
    let mut tx = db.begin().await.unwrap();
    let again = tx.ghosts().insert(&other_device).await;
    assert_matches!(again, Err(StoreError::AlreadyExists { .. }));
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    let nobody = tx.ghosts().set_stage(alice(), GhostStage::Registered).await;
    assert_matches!(nobody, Err(StoreError::NoSuchRow { .. }));
}

fn message(event_id: &EventId, author: MessageAuthor, remote_id: Option<&str>) -> MappedMessage {
    MappedMessage {
        event_id: event_id.to_owned(),
        room_id: room().to_owned(),
        chat: chat_with("bob@example.net"),
        author,
        remote_id: remote_id.map(RemoteMessageId::new),
        matrix_leg: PINNED,
        remote_leg: LegSecurity::Plaintext,
        status: DeliveryStatus::Sent,
    }
}

async fn a_message_is_found_from_both_sides(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let chat = chat_with("bob@example.net");
    let id = RemoteMessageId::new("42");
    let theirs = message(event_id!("$theirs"), MessageAuthor::Contact, Some("42"));
    let ours = message(event_id!("$ours"), MessageAuthor::Local, Some("42"));
    let nameless = message(event_id!("$nameless"), MessageAuthor::Contact, None);
    let mut map = tx.message_map();
    for message in [&theirs, &ours, &nameless] {
        map.insert(message).await.unwrap();
    }

    assert!(map.find_by_event(event_id!("$theirs")).await.unwrap() == Some(theirs.clone()));
    assert!(map.find_by_event(event_id!("$nameless")).await.unwrap() == Some(nameless));
    let found = map.find_by_remote(&chat, MessageAuthor::Local, &id).await.unwrap();
    assert!(found == Some(ours));
    let found = map.find_by_remote(&chat, MessageAuthor::Contact, &id).await.unwrap();
    assert!(found == Some(theirs));
    let elsewhere = chat_with("mallory@example.net");
    let found = map.find_by_remote(&elsewhere, MessageAuthor::Contact, &id).await.unwrap();
    assert!(found.is_none(), "an id means nothing in another chat");

    let reused = message(event_id!("$reused"), MessageAuthor::Contact, Some("42"));
    map.insert(&reused).await.unwrap();
    let found = map.find_by_remote(&chat, MessageAuthor::Contact, &id).await.unwrap();
    assert!(found == Some(reused), "the newest");

    map.set_status(event_id!("$ours"), DeliveryStatus::Delivered).await.unwrap();
    let ours = map.find_by_event(event_id!("$ours")).await.unwrap().unwrap();
    assert_eq!(ours.status, DeliveryStatus::Delivered);
    let unknown = map.set_status(event_id!("$unknown"), DeliveryStatus::Failed).await;
    assert_matches!(unknown, Err(StoreError::NoSuchRow { .. }));
    let again = map.insert(&ours).await;
    assert_matches!(again, Err(StoreError::AlreadyExists { .. }));
}

async fn a_changed_identity_waits_for_approval(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut pins = tx.pins();
    assert!(pins.find(alice()).await.unwrap().is_none());
    assert_eq!(pins.pin_or_check(alice(), "first", 10).await.unwrap(), PinOutcome::FirstUse);
    assert_eq!(pins.pin_or_check(alice(), "first", 11).await.unwrap(), PinOutcome::Same);
    assert!(!pins.approve(alice(), "first", "first", 12).await.unwrap(), "nothing waits");

    assert_eq!(pins.pin_or_check(alice(), "second", 13).await.unwrap(), PinOutcome::Changed);
    assert_eq!(pins.pin_or_check(alice(), "second", 14).await.unwrap(), PinOutcome::Changed);
    let pin = pins.find(alice()).await.unwrap().unwrap();
    assert_eq!((pin.master_key.as_str(), pin.pinned_ms), ("first", 10));
    assert!(pin.state == PinState::Changed { new_master_key: "second".to_owned() });

    assert_eq!(pins.pin_or_check(alice(), "first", 15).await.unwrap(), PinOutcome::Same);
    assert!(pins.find(alice()).await.unwrap().unwrap().state == PinState::Pinned);
    assert!(!pins.approve(alice(), "second", "second", 16).await.unwrap(), "the change is gone");

    assert_eq!(pins.pin_or_check(alice(), "third", 17).await.unwrap(), PinOutcome::Changed);
    let by_a_stranger = pins.approve(alice(), "third", "second", 18).await.unwrap();
    assert!(!by_a_stranger, "it can speak for itself only");
    let another_is_meant = pins.approve(alice(), "second", "first", 18).await.unwrap();
    assert!(!another_is_meant, "nobody was told of the one that waits");
    assert!(pins.approve(alice(), "third", "third", 18).await.unwrap());
    assert_eq!(pins.pin_or_check(alice(), "third", 19).await.unwrap(), PinOutcome::Same);
    assert_eq!(pins.pin_or_check(alice(), "first", 20).await.unwrap(), PinOutcome::Changed);
    assert_eq!(pins.find(alice()).await.unwrap().unwrap().pinned_ms, 18);
    let by_the_old = pins.approve(alice(), "first", "third", 21).await.unwrap();
    assert!(by_the_old, "the pinned one may name its successor");
    assert_eq!(pins.find(alice()).await.unwrap().unwrap().master_key, "first");
}

async fn a_notice_is_new_once(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let notice = Notice { scope: "!room", subject: "@alice", kind: "bridged" };
    let mut notices = tx.notices();
    assert!(!notices.is_told(notice).await.unwrap());
    assert!(notices.first_time(notice).await.unwrap());
    assert!(!notices.first_time(notice).await.unwrap());
    assert!(notices.first_time(Notice { kind: "held", ..notice }).await.unwrap());
    assert!(notices.first_time(Notice { subject: "", ..notice }).await.unwrap());
    assert_eq!(notices.subjects("!room", "bridged").await.unwrap(), ["", "@alice"]);
    notices.forget("!room", "bridged").await.unwrap();
    assert!(notices.subjects("!room", "bridged").await.unwrap().is_empty());
    assert!(notices.is_told(Notice { kind: "held", ..notice }).await.unwrap());
    assert!(notices.first_time(notice).await.unwrap());
    let elsewhere = Notice { scope: "!other", ..notice };
    assert!(notices.first_time(elsewhere).await.unwrap());
    notices.forget_all("!room").await.unwrap();
    assert!(!notices.is_told(notice).await.unwrap());
    assert!(notices.is_told(elsewhere).await.unwrap());
}

async fn a_megolm_index_belongs_to_one_event(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let position = MessagePosition { room_id: room(), session_id: "session", message_index: 7 };
    let mut guard = tx.megolm_index();
    let event = event_id!("$event");
    assert_eq!(guard.check_and_insert(position, event, 1).await.unwrap(), IndexCheck::Fresh);
    assert_eq!(guard.check_and_insert(position, event, 1).await.unwrap(), IndexCheck::SameEvent);
    for (other, ts) in [(event_id!("$other"), 1), (event, 2)] {
        let check = guard.check_and_insert(position, other, ts).await.unwrap();
        assert_eq!(check, IndexCheck::Replay);
    }
    for elsewhere in [
        MessagePosition { message_index: u32::MAX, ..position },
        MessagePosition { session_id: "other", ..position },
        MessagePosition { room_id: other_room(), ..position },
    ] {
        let check = guard.check_and_insert(elsewhere, event, 1).await.unwrap();
        assert_eq!(check, IndexCheck::Fresh);
    }
}
