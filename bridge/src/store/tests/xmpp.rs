//! The repositories of XMPP on both databases.

use assert_matches::assert_matches;
use e2ee::omemo::{DeviceId, IdentityKey, Namespace};
use ruma::owned_user_id;

use crate::{
    network::{
        Author, ChatKey, Decider, DeviceDecision, Held, LegSecurity, RemoteMessageId, RemoteUserId,
    },
    store::{
        Database, DevicePin, KnownDevices, PinChange, PinTrust, Presented, Remedy, Repetition,
        StoreError, Transaction, XmppOmemo,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    stanzas_are_taken_in_the_order_of_their_chat,
    a_repeated_stanza_is_recognised,
    held_stanzas_wait_for_their_release,
    done_stanzas_are_purged_by_age,
    stanzas_leave_in_order_and_once,
    an_account_is_replaced_as_a_whole,
    sessions_belong_to_one_chat_device_and_namespace,
    the_first_identity_is_pinned,
    a_change_is_news_once_and_approved_with_its_sessions,
    after_a_verification_new_devices_wait_for_ever,
    a_distrusted_identity_is_so_under_every_number,
    device_lists_tell_whether_they_changed,
    healing_is_bounded,
    pins_of_devices_that_are_listed_nowhere_can_be_forgotten,
    contacts_are_asked_once,
    subscribers_come_and_go,
    names_are_replaced,
);

fn alice() -> Author {
    Author::Person(owned_user_id!("@alice:example.org"))
}

fn chat(contact: &str) -> ChatKey {
    ChatKey { local: alice(), contact: RemoteUserId::new(contact) }
}

fn bob() -> ChatKey {
    chat("bob@example.net")
}

fn device(id: u32) -> DeviceId {
    DeviceId::new(id).unwrap()
}

/// The base point (9) and other points of the curve, such as 16 and 36.
fn identity(u: u8) -> IdentityKey {
    let mut bytes = [0; 32];
    bytes[0] = u;
    IdentityKey::from_bytes(&bytes).expect("a point on the curve")
}

async fn begin(location: &TestDatabase) -> (Database, Transaction) {
    let db = location.open().await;
    let tx = db.begin().await.unwrap();
    (db, tx)
}

async fn stanzas_are_taken_in_the_order_of_their_chat(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let carol = chat("carol@example.net");
    let bridge = ChatKey { local: Author::Bridge, ..bob() };
    for (chat, text) in [(&bob(), "b1"), (&carol, "c1"), (&bob(), "b2"), (&bridge, "x")] {
        let mut inbox = tx.xmpp_inbox();
        inbox.insert(chat, text, Repetition::Always, text.as_bytes(), 5).await.unwrap().unwrap();
    }
    assert!(tx.xmpp_inbox().pending_chats().await.unwrap() == [bob(), carol, bridge]);
    for text in ["b1", "b2"] {
        let next = tx.xmpp_inbox().find_next(&bob()).await.unwrap().unwrap();
        assert_eq!((next.stanza.as_slice(), next.received_ms), (text.as_bytes(), 5));
        tx.xmpp_inbox().mark_done(next.id).await.unwrap();
        let again = tx.xmpp_inbox().mark_done(next.id).await;
        assert_matches!(again, Err(StoreError::NoSuchRow { .. }));
    }
    assert!(tx.xmpp_inbox().find_next(&bob()).await.unwrap().is_none());
}

async fn a_repeated_stanza_is_recognised(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut inbox = tx.xmpp_inbox();
    let id = inbox.insert(&bob(), "h", Repetition::Always, b"s", 10).await.unwrap().unwrap();
    assert_eq!(inbox.insert(&bob(), "h", Repetition::Always, b"s", 20).await.unwrap(), None);
    inbox.mark_done(id).await.unwrap();
    assert_eq!(inbox.insert(&bob(), "h", Repetition::Always, b"s", 20).await.unwrap(), None);
    assert_eq!(inbox.insert(&bob(), "h", Repetition::Since(10), b"s", 20).await.unwrap(), None);
    assert!(inbox.insert(&bob(), "h", Repetition::Since(11), b"s", 20).await.unwrap().is_some());
    assert!(inbox.insert(&bob(), "h", Repetition::Never, b"s", 20).await.unwrap().is_some());
    let other = chat("carol@example.net");
    assert!(inbox.insert(&other, "h", Repetition::Always, b"s", 20).await.unwrap().is_some());
}

async fn held_stanzas_wait_for_their_release(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut inbox = tx.xmpp_inbox();
    let first = inbox.insert(&bob(), "1", Repetition::Always, b"1", 0).await.unwrap().unwrap();
    inbox.insert(&bob(), "2", Repetition::Always, b"2", 0).await.unwrap().unwrap();
    inbox.hold(first, Some(b"prekeys")).await.unwrap();
    assert_matches!(inbox.hold(first, None).await, Err(StoreError::NoSuchRow { .. }));
    assert_eq!(inbox.find_next(&bob()).await.unwrap().unwrap().stanza.as_slice(), b"2");
    let waiting = &inbox.load_held(&bob(), None, 10).await.unwrap()[0];
    assert_eq!(waiting.stanza.as_slice(), b"1");
    assert_eq!(waiting.prekeys.as_ref().unwrap().as_slice(), b"prekeys");
    let held = inbox.count_held(&bob()).await.unwrap();
    assert_eq!(held, Held { messages: 1, since_ms: Some(0) });
    assert_eq!(inbox.release(&chat("carol@example.net")).await.unwrap(), 0);
    assert_eq!(inbox.release(&bob()).await.unwrap(), 1);
    let released = inbox.find_next(&bob()).await.unwrap().unwrap();
    assert_eq!(released.stanza.as_slice(), b"1");
    assert_eq!(released.prekeys.unwrap().as_slice(), b"prekeys");
    inbox.forget_prekeys().await.unwrap();
    assert!(inbox.find_next(&bob()).await.unwrap().unwrap().prekeys.is_none());
}

async fn done_stanzas_are_purged_by_age(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut inbox = tx.xmpp_inbox();
    for (hash, received_ms) in [("old", 10), ("new", 20)] {
        let id = inbox.insert(&bob(), hash, Repetition::Always, b"s", received_ms).await.unwrap();
        inbox.mark_done(id.unwrap()).await.unwrap();
    }
    inbox.insert(&bob(), "open", Repetition::Always, b"s", 10).await.unwrap().unwrap();
    assert_eq!(inbox.purge_done(20).await.unwrap(), 1);
    assert!(inbox.insert(&bob(), "old", Repetition::Always, b"s", 30).await.unwrap().is_some());
    for known in ["new", "open"] {
        assert!(inbox.insert(&bob(), known, Repetition::Always, b"s", 30).await.unwrap().is_none());
    }
}

async fn stanzas_leave_in_order_and_once(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let id = RemoteMessageId::new("m1");
    let mut outbox = tx.xmpp_outbox();
    let message = Some((&id, LegSecurity::Plaintext));
    let first = outbox.insert(&bob(), message, b"one").await.unwrap();
    outbox.insert(&chat("carol@example.net"), None, b"two").await.unwrap();
    let pending = outbox.load_pending(10).await.unwrap();
    let bytes: Vec<&[u8]> = pending.iter().map(|row| row.stanza.as_slice()).collect();
    assert_eq!(bytes, [b"one", b"two"]);
    assert!(pending[0].chat == bob() && pending[1].message.is_none());
    assert!(pending[0].message == Some((id.clone(), LegSecurity::Plaintext)));
    assert_eq!(outbox.find_message(&bob(), &id).await.unwrap().unwrap().id, first);
    assert!(outbox.mark_sent(first).await.unwrap());
    assert!(!outbox.mark_sent(first).await.unwrap());
    assert!(outbox.find_message(&bob(), &id).await.unwrap().is_none());
    assert_eq!(outbox.load_pending(10).await.unwrap().len(), 1);
}

async fn an_account_is_replaced_as_a_whole(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    assert!(omemo.find_account(&alice()).await.unwrap().is_none());
    for secret in [b"first".as_slice(), b"second"] {
        omemo.save_account(&alice(), secret).await.unwrap();
        assert_eq!(omemo.find_account(&alice()).await.unwrap().unwrap().as_slice(), secret);
    }
    assert!(omemo.has_account(&alice()).await.unwrap());
    assert!(!omemo.has_account(&Author::Bridge).await.unwrap());
    assert!(omemo.find_account(&Author::Bridge).await.unwrap().is_none());
}

async fn sessions_belong_to_one_chat_device_and_namespace(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    let places = [
        (bob(), device(1), Namespace::V2),
        (bob(), device(1), Namespace::Legacy),
        (bob(), device(2), Namespace::V2),
        (chat("carol@example.net"), device(1), Namespace::V2),
    ];
    for round in [0_u8, 10] {
        for (n, (chat, device, namespace)) in (round..).zip(&places) {
            omemo.save_sessions(chat, *device, *namespace, &[n]).await.unwrap();
        }
    }
    for (n, (chat, device, namespace)) in (10..).zip(&places) {
        let found = omemo.find_sessions(chat, *device, *namespace).await.unwrap().unwrap();
        assert_eq!(found.as_slice(), [n]);
    }
    assert!(omemo.find_sessions(&bob(), device(3), Namespace::V2).await.unwrap().is_none());
}

/// Somebody has decided.
fn by_alice() -> Decider {
    Decider::Person(owned_user_id!("@alice:example.org"))
}

async fn pins(omemo: &mut XmppOmemo<'_>) -> Vec<DevicePin> {
    omemo.load_pins(&bob()).await.unwrap()
}

async fn the_first_identity_is_pinned(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    let first = omemo.pin(&bob(), device(1), identity(9), 5).await.unwrap();
    assert_eq!(first, Some(PinTrust::Pinned));
    assert_eq!(omemo.pin(&bob(), device(1), identity(16), 6).await.unwrap(), None);
    let pin = DevicePin {
        device: device(1),
        identity: identity(9),
        trust: PinTrust::Pinned,
        since_ms: 5,
        change: None,
    };
    assert_eq!(pins(&mut omemo).await, [pin]);
    assert!(omemo.load_pins(&chat("carol@example.net")).await.unwrap().is_empty());
}

async fn a_change_is_news_once_and_approved_with_its_sessions(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    for id in [1, 2] {
        omemo.pin(&bob(), device(id), identity(9), 1).await.unwrap();
        omemo.save_sessions(&bob(), device(id), Namespace::V2, b"s").await.unwrap();
    }
    for (id, u, outcome) in [
        (1, 9, Presented::Known),
        (3, 16, Presented::Unpinned),
        (1, 16, Presented::News),
        (1, 16, Presented::Known),
        (1, 9, Presented::Returned),
        (1, 9, Presented::Known),
        (1, 16, Presented::News),
    ] {
        let presented = omemo.present(&bob(), device(id), identity(u), 2).await.unwrap();
        assert_eq!(presented, outcome, "{id} {u}");
    }
    let trust = PinTrust::Waiting;
    let change = Some(PinChange { identity: identity(16), since_ms: 2, trust });
    assert_eq!(pins(&mut omemo).await[0].change, change);
    assert!(!pins(&mut omemo).await[0].may_read());

    for (u, decided) in [(9, false), (16, true), (16, false)] {
        let about = (device(1), identity(u));
        let done = omemo.decide(&bob(), about, DeviceDecision::Approve, &by_alice(), 3).await;
        assert_eq!(done.unwrap(), decided, "{u}");
    }
    let pin = pins(&mut omemo).await[0];
    assert_eq!((pin.identity, pin.trust, pin.since_ms), (identity(16), PinTrust::Pinned, 3));
    assert_eq!(pin.change, None);
    assert!(omemo.find_sessions(&bob(), device(1), Namespace::V2).await.unwrap().is_none());
    assert!(omemo.find_sessions(&bob(), device(2), Namespace::V2).await.unwrap().is_some());
}

async fn after_a_verification_new_devices_wait_for_ever(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    omemo.pin(&bob(), device(1), identity(9), 1).await.unwrap();
    let decide = async |omemo: &mut XmppOmemo<'_>, id, u, decision| {
        let about = (device(id), identity(u));
        omemo.decide(&bob(), about, decision, &by_alice(), 2).await.unwrap()
    };
    assert!(decide(&mut omemo, 1, 9, DeviceDecision::Verify).await);
    assert!(!decide(&mut omemo, 1, 9, DeviceDecision::Verify).await, "nothing new");
    assert!(!decide(&mut omemo, 1, 9, DeviceDecision::Approve).await, "no step back");
    let waiting = omemo.pin(&bob(), device(2), identity(16), 3).await.unwrap();
    assert_eq!(waiting, Some(PinTrust::Waiting));
    let carol = chat("carol@example.net");
    let elsewhere = omemo.pin(&carol, device(2), identity(16), 3).await.unwrap();
    assert_eq!(elsewhere, Some(PinTrust::Pinned), "another chat");

    // Nobody has trusted it under any identity, so there is no change to approve.
    let presented = omemo.present(&bob(), device(2), identity(9), 4).await.unwrap();
    assert_eq!(presented, Presented::News);
    let pin = pins(&mut omemo).await[1];
    assert_eq!((pin.identity, pin.trust, pin.change), (identity(9), PinTrust::Waiting, None));
    assert!(!decide(&mut omemo, 2, 16, DeviceDecision::Approve).await, "it is not shown now");
    assert!(decide(&mut omemo, 2, 9, DeviceDecision::Approve).await);
    assert!(pins(&mut omemo).await[1].may_read());

    // Neither a change nor distrust brings blind trust back.
    let changed = omemo.present(&bob(), device(1), identity(16), 5).await.unwrap();
    assert_eq!(changed, Presented::News);
    assert!(decide(&mut omemo, 1, 16, DeviceDecision::Approve).await);
    assert!(decide(&mut omemo, 1, 16, DeviceDecision::Distrust).await);
    assert_eq!(pins(&mut omemo).await[0].trust, PinTrust::Distrusted);
    let third = omemo.pin(&bob(), device(3), identity(9), 6).await.unwrap();
    assert_eq!(third, Some(PinTrust::Waiting));
    assert!(decide(&mut omemo, 1, 16, DeviceDecision::Verify).await, "and back");
    assert!(pins(&mut omemo).await[0].may_read());
}

async fn a_distrusted_identity_is_so_under_every_number(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    let decide = async |omemo: &mut XmppOmemo<'_>, id, u, decision| {
        let about = (device(id), identity(u));
        omemo.decide(&bob(), about, decision, &by_alice(), 2).await.unwrap()
    };
    omemo.pin(&bob(), device(1), identity(9), 1).await.unwrap();
    omemo.pin(&bob(), device(2), identity(16), 1).await.unwrap();
    assert!(decide(&mut omemo, 2, 16, DeviceDecision::Distrust).await);
    assert!(decide(&mut omemo, 1, 9, DeviceDecision::Verify).await);

    // Of a trusted device it is a change like any other, which no approval lets in.
    let changed = omemo.present(&bob(), device(1), identity(16), 3).await.unwrap();
    assert_eq!(changed, Presented::News);
    assert!(!decide(&mut omemo, 1, 16, DeviceDecision::Approve).await);
    assert_eq!(pins(&mut omemo).await[0].identity, identity(9));

    // A device that waits under another identity may not take it and be let in.
    let waiting = omemo.pin(&bob(), device(3), identity(36), 4).await.unwrap();
    assert_eq!(waiting, Some(PinTrust::Waiting));
    let changed = omemo.present(&bob(), device(3), identity(16), 5).await.unwrap();
    assert_eq!(changed, Presented::News);
    assert_eq!(pins(&mut omemo).await[2].trust, PinTrust::Distrusted);
    assert!(!decide(&mut omemo, 3, 16, DeviceDecision::Approve).await);

    // Who names it means it.
    assert!(decide(&mut omemo, 1, 16, DeviceDecision::Verify).await);
    assert_eq!(pins(&mut omemo).await[0].identity, identity(16));
}

async fn pins_of_devices_that_are_listed_nowhere_can_be_forgotten(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    for (namespace, id) in [(Namespace::V2, 1), (Namespace::Legacy, 2)] {
        let list = KnownDevices { devices: vec![device(id)], known_ms: 7 };
        omemo.save_devices(&bob(), namespace, &list).await.unwrap();
    }
    for id in [1, 2, 3] {
        omemo.pin(&bob(), device(id), identity(9), 1).await.unwrap();
        omemo.pin(&chat("carol@example.net"), device(id), identity(9), 1).await.unwrap();
    }
    omemo.forget_unlisted_pins(&bob()).await.unwrap();
    let left: Vec<DeviceId> = pins(&mut omemo).await.iter().map(|pin| pin.device).collect();
    assert_eq!(left, [device(1), device(2)]);
    assert_eq!(omemo.count_pins(&chat("carol@example.net")).await.unwrap(), 3);
}

async fn device_lists_tell_whether_they_changed(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    let known = |ids: &[u32], known_ms| KnownDevices {
        devices: ids.iter().map(|id| device(*id)).collect(),
        known_ms,
    };
    assert_eq!(omemo.find_devices(&bob(), Namespace::V2).await.unwrap(), None);
    for (ids, changed) in [(&[] as &[u32], true), (&[], false), (&[1, 2], true), (&[1, 2], false)] {
        let list = known(ids, 7);
        assert_eq!(omemo.save_devices(&bob(), Namespace::V2, &list).await.unwrap(), changed);
        assert_eq!(omemo.find_devices(&bob(), Namespace::V2).await.unwrap(), Some(list));
    }
    assert_eq!(omemo.find_devices(&bob(), Namespace::Legacy).await.unwrap(), None);
}

async fn healing_is_bounded(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut omemo = tx.xmpp_omemo();
    for (now_ms, allowed) in [(1000, true), (1001, false), (1999, false), (2000, true)] {
        let (remedy, times) = (Remedy::NewSession(Namespace::V2), (now_ms, now_ms - 1000));
        let is_due = omemo.is_remedy_due(&bob(), device(1), remedy, times.1).await.unwrap();
        let may = omemo.use_remedy(&bob(), device(1), remedy, times).await.unwrap();
        assert_eq!((is_due, may), (allowed, allowed), "{now_ms}");
    }
    let times = (2001, 1001);
    let remedy = Remedy::NewSession(Namespace::V2);
    assert!(omemo.use_remedy(&bob(), device(2), remedy, times).await.unwrap());
    for remedy in [Remedy::NewSession(Namespace::Legacy), Remedy::Announcement] {
        assert!(omemo.use_remedy(&bob(), device(1), remedy, times).await.unwrap());
    }
    // Whoever makes up devices fills no table, and after a while there is room again.
    let (mut remembered, hour) = (0, 60 * 60 * 1000);
    for number in 1..1000 {
        let may = omemo.use_remedy(&bob(), device(number), remedy, times).await.unwrap();
        remembered += usize::from(may);
    }
    assert_eq!(remembered, 256 - 4, "four were remembered before");
    let later = (times.0 + hour, times.0);
    assert!(omemo.use_remedy(&bob(), device(999), remedy, later).await.unwrap());
}

async fn contacts_are_asked_once(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut roster = tx.xmpp_roster();
    assert!(!roster.has_met(&bob()).await.unwrap());
    assert!(roster.meet(&bob()).await.unwrap());
    assert!(!roster.meet(&bob()).await.unwrap());
    assert!(roster.has_met(&bob()).await.unwrap());
    assert!(roster.first_ask(&bob()).await.unwrap());
    assert!(!roster.first_ask(&bob()).await.unwrap());
    assert!(roster.first_ask(&chat("carol@example.net")).await.unwrap());
    let contacts = roster.contacts(&alice()).await.unwrap();
    assert!(contacts == [bob().contact, RemoteUserId::new("carol@example.net")]);
    assert!(roster.find_chat_with(&bob().contact).await.unwrap() == Some(bob()));
    assert!(roster.find_chat_with(&RemoteUserId::new("dan@x")).await.unwrap().is_none());
}

async fn subscribers_come_and_go(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut roster = tx.xmpp_roster();
    for jid in ["b@x", "a@x", "b@x"] {
        roster.subscribe(&alice(), "node", jid).await.unwrap();
    }
    assert_eq!(roster.subscribers(&alice(), "node").await.unwrap(), ["a@x", "b@x"]);
    assert!(roster.unsubscribe(&alice(), "node", "a@x").await.unwrap());
    assert!(!roster.unsubscribe(&alice(), "node", "a@x").await.unwrap());
    assert_eq!(roster.subscribers(&alice(), "node").await.unwrap(), ["b@x"]);
    assert!(roster.subscribers(&Author::Bridge, "node").await.unwrap().is_empty());
}

async fn names_are_replaced(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let mut roster = tx.xmpp_roster();
    assert_eq!(roster.find_name(&alice()).await.unwrap(), None);
    for name in ["Alice", "Álice"] {
        roster.save_name(&alice(), name).await.unwrap();
        assert_eq!(roster.find_name(&alice()).await.unwrap().as_deref(), Some(name));
    }
}
