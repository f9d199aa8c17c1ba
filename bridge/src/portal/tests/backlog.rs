//! What waits in a chat, and what does not wait behind it.

use ruma::{EventId, event_id};
use sqlx::Executor as _;

use super::{contact_trust::dies_after, *};
use crate::store::{DeliveryStatus, MappedMessage, MessageAuthor};

const WAITS: Drained = Drained::Blocked { retry_in: LOOK_AGAIN };

#[tokio::test]
async fn a_message_behind_one_that_waits_is_not_even_loaded() {
    let world = World::with_identity().await;
    world.bob_tells("distrust").await;
    world.bob(&chat(), message(ENCRYPTED)).await;
    let mut raw = world._files.raw_connection().await;
    raw.execute("CREATE TABLE waits AS SELECT id FROM remote_inbox").await.unwrap();
    world.comes(&chat(), message(ENCRYPTED)).await;
    let damage = "UPDATE remote_inbox SET event = x'00' WHERE id NOT IN (SELECT id FROM waits)";
    assert_eq!(raw.execute(damage).await.unwrap().rows_affected(), 1, "whoever opens it fails");
    world.comes(&chat(), RemoteEventKind::Refused { fingerprint: "aaaa".to_owned() }).await;

    let said = world.said().await.len();
    assert_eq!(world.drain(&chat()).await, [WAITS, Drained::Empty]);
    assert_eq!(world.said().await.len(), said + 1, "what is no message is told meanwhile");
}

#[tokio::test]
async fn a_report_that_waits_holds_back_no_message() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    // Bob cannot be told of it, so it waits.
    world.bob(&chat(), RemoteEventKind::Expired).await;
    world.comes(&chat(), message(ENCRYPTED)).await;
    assert_eq!(world.drain(&chat()).await, [Drained::Empty, WAITS]);
    assert!(world.said().await.contains(&"hi".to_owned()), "{:?}", world.said().await);
}

#[tokio::test]
async fn of_a_message_that_the_homeserver_refuses_its_author_is_told_when_they_can_be() {
    let mut tellings = Vec::new();
    for is_back in [true, false] {
        let world = World::new().await;
        world.homeserver.refuses_messages();
        *world.remote.takes.lock().unwrap() = Takes::Outage;
        world.bob(&chat(), message(ENCRYPTED)).await;
        // The outbox may be at it too: who comes second fails, and looks again.
        let outbox = &*world.hub.parts.outbox;
        let refused = async { while outbox.drain(&room()).await != Drained::Empty {} };
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("it is refused");
        assert_eq!(world.drain(&chat()).await, [Drained::Empty, WAITS]);
        if is_back {
            *world.remote.takes.lock().unwrap() = Takes::Everything;
        } else {
            // Longer than anything is held.
            world.clock.pass(Duration::from_secs(7 * 24 * 60 * 60));
        }
        assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
        let told = world.told_bob();
        let told = told.iter().filter(|text| text.contains("the Matrix server refused it"));
        tellings.push(told.count());
    }
    println!("safety: refused_by_homeserver: told {} time, in vain {}", tellings[0], tellings[1]);
    assert_eq!(tellings, [1, 0]);
}

#[tokio::test]
async fn a_fault_is_told_once_whenever_the_bridge_dies() {
    let mut deaths = 0;
    loop {
        let world = World::new().await;
        let reason = "it is broken".to_owned();
        world.comes(&chat(), RemoteEventKind::Undecryptable { reason }).await;
        let is_over = dies_after(deaths, world.drain(&chat())).await;
        world.drain(&chat()).await;
        let said = world.said().await;
        let told = said.iter().filter(|text| text.contains("it is broken")).count();
        assert_eq!(told, 1, "after {deaths} waits: {said:?}");
        if is_over {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 0);
}

#[tokio::test]
async fn a_report_waits_for_the_room_of_the_message_before_it() {
    let world = World::new().await;
    let carol = RemoteUserId::new("carol@example.net");
    let carols = ChatKey { local: Author::Person(alice().to_owned()), contact: carol.clone() };
    let refused = || RemoteEventKind::Refused { fingerprint: "aaaa".to_owned() };
    world.comes(&carols, refused()).await;
    world.comes(&carols, message(ENCRYPTED)).await;
    world.comes(&carols, refused()).await;
    // Nothing makes a room here.
    assert_eq!(world.drain(&carols).await, [Drained::Failed, WAITS]);
    let open = async || {
        let mut tx = world.db.read().await.unwrap();
        tx.remote_inbox().load_pending((&carols, Lane::Reports), None, 10).await.unwrap().len()
    };
    assert_eq!(open().await, 1, "the first was of no room that will be");

    let hers = owned_room_id!("!carol:example.org");
    world.make_portal_with(&carol, hers.clone()).await;
    world.drain(&carols).await;
    assert_eq!(open().await, 0);
    let mut tx = world.db.read().await.unwrap();
    let said = tx.matrix_outbox().load_pending(&hers, 10).await.unwrap();
    assert!(said.iter().any(|row| row.event.content.contains("aaaa")));
}

impl World {
    /// A message of Alice's is on its way.
    async fn alice_has_sent(&self, event_id: &str, id: &str) {
        let message = MappedMessage {
            event_id: event_id.try_into().unwrap(),
            room_id: room(),
            chat: chat(),
            author: MessageAuthor::Local,
            remote_id: Some(RemoteMessageId::new(id)),
            matrix_leg: ENCRYPTED,
            remote_leg: ENCRYPTED,
            status: DeliveryStatus::Pending,
        };
        let mut tx = self.db.begin().await.unwrap();
        tx.message_map().insert(&message).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn status_of(&self, event_id: &EventId) -> DeliveryStatus {
        let mut tx = self.db.read().await.unwrap();
        tx.message_map().find_by_event(event_id).await.unwrap().unwrap().status
    }
}

#[tokio::test]
async fn that_a_message_has_failed_is_told_once_however_often_it_is_said() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    for _ in 0..3 {
        let (id, reason) = (RemoteMessageId::new("m1"), "he is away".to_owned());
        world.bob(&chat(), RemoteEventKind::Failed { id, reason }).await;
    }
    let said = world.said().await;
    assert_eq!(said.iter().filter(|text| text.contains("he is away")).count(), 1, "{said:?}");
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Failed);
}

#[tokio::test]
async fn a_message_that_was_delivered_is_not_told_as_failed() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    let id = || RemoteMessageId::new("m1");
    world.bob(&chat(), RemoteEventKind::Delivered { id: id() }).await;
    world.bob(&chat(), RemoteEventKind::Failed { id: id(), reason: "he is away".to_owned() }).await;
    assert!(world.said().await.iter().all(|text| !text.contains("he is away")));
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Delivered);
}

#[tokio::test]
async fn what_was_said_before_the_upgrade_is_told_too() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    world.comes(&chat(), RemoteEventKind::Delivered { id: RemoteMessageId::new("m1") }).await;
    let mut raw = world._files.raw_connection().await;
    raw.execute("UPDATE remote_inbox SET is_message = 1").await.unwrap();
    assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Delivered);
}

#[tokio::test]
async fn what_is_said_of_messages_is_stored_with_the_end_of_the_rows() {
    let world = World::new().await;
    for (event_id, id) in [("$1", "m1"), ("$2", "m2")] {
        world.alice_has_sent(event_id, id).await;
    }
    let id = |id: &str| RemoteMessageId::new(id);
    let accepted = |id| RemoteEventKind::Accepted { id, security: ENCRYPTED };
    for kind in [
        accepted(id("m1")),
        accepted(id("m2")),
        RemoteEventKind::Delivered { id: id("m1") },
        RemoteEventKind::Failed { id: id("m2"), reason: "away".to_owned() },
        RemoteEventKind::Delivered { id: id("of nobody") },
    ] {
        world.comes(&chat(), kind).await;
    }
    assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
    let mut tx = world.db.read().await.unwrap();
    assert!(tx.remote_inbox().pending_chats().await.unwrap().is_empty());
    drop(tx);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Delivered);
    assert_eq!(world.status_of(event_id!("$2")).await, DeliveryStatus::Failed);
}

#[tokio::test]
async fn how_far_a_message_has_come_is_told_when_the_homeserver_is_back() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    world.homeserver.goes();
    world.comes(&chat(), RemoteEventKind::Delivered { id: RemoteMessageId::new("m1") }).await;
    let refused = RemoteEventKind::Refused { fingerprint: "aaaa".to_owned() };
    world.comes(&chat(), refused).await;
    assert_eq!(world.drain(&chat()).await, [Drained::Empty, WAITS]);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Pending);
    assert!(world.homeserver.statuses().is_empty());
    let said = world.said().await;
    assert!(said.iter().any(|text| text.contains("aaaa")), "nothing else waits: {said:?}");

    world.homeserver.returns();
    assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Delivered);
    let told = world.homeserver.statuses();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].content["m.relates_to"]["event_id"], "$1");
    assert_eq!(told[0].content["status"], "SUCCESS");
}

#[tokio::test]
async fn how_far_a_message_has_come_waits_no_longer_than_messages_do() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    world.homeserver.goes();
    world.comes(&chat(), RemoteEventKind::Delivered { id: RemoteMessageId::new("m1") }).await;
    let hold = world.hub.parts.policy.hold_hours.as_duration();
    for (passes, expected) in [(0, WAITS), (1, WAITS), (1, Drained::Empty)] {
        world.clock.pass(hold / 2 * passes);
        assert_eq!(world.drain(&chat()).await, [Drained::Empty, expected]);
    }
    assert!(world.homeserver.statuses().is_empty());
}

#[tokio::test]
async fn how_far_a_message_has_come_keeps_its_transaction_until_that_is_stored() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    world.comes(&chat(), RemoteEventKind::Delivered { id: RemoteMessageId::new("m1") }).await;
    let mut raw = world._files.raw_connection().await;
    let fails =
        "CREATE TRIGGER fails BEFORE UPDATE ON message_map BEGIN SELECT RAISE(ABORT, ''); END";
    raw.execute(fails).await.unwrap();
    assert_eq!(world.drain(&chat()).await, [Drained::Empty, Drained::Failed]);
    raw.execute("DROP TRIGGER fails").await.unwrap();
    assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
    let told = world.homeserver.statuses();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], told[1], "the homeserver shows it once");
}

#[tokio::test]
async fn a_message_that_has_failed_is_not_told_as_sent_when_the_homeserver_is_back() {
    let world = World::new().await;
    world.alice_has_sent("$1", "m1").await;
    world.homeserver.goes();
    let id = || RemoteMessageId::new("m1");
    world.comes(&chat(), RemoteEventKind::Accepted { id: id(), security: ENCRYPTED }).await;
    world.comes(&chat(), RemoteEventKind::Failed { id: id(), reason: "away".to_owned() }).await;
    assert_eq!(world.drain(&chat()).await, [Drained::Empty, WAITS]);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Failed);

    world.homeserver.returns();
    assert_eq!(world.drain(&chat()).await, [Drained::Empty; 2]);
    assert_eq!(world.status_of(event_id!("$1")).await, DeliveryStatus::Failed);
    assert!(world.homeserver.statuses().is_empty());
}
