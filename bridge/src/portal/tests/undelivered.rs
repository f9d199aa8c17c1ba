//! Messages of contacts that nobody gets, and who is told.

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const WAITS: Drained = Drained::Blocked { retry_in: LOOK_AGAIN };

/// Bob's chat with somebody who may not use the bridge.
fn eves() -> ChatKey {
    chat_with(user_id!("@eve:example.org"))
}

impl World {
    /// Eve was permitted once, and Bob is in her chat.
    async fn eve_had_a_chat(&self) {
        let mut tx = self.db.begin().await.unwrap();
        let portal = NewPortal {
            room_id: owned_room_id!("!eves:example.org"),
            network: "any".to_owned(),
            local: owned_user_id!("@eve:example.org"),
            contact: eves().contact,
            ghost: owned_user_id!("@any_bob=40example.net:example.org"),
            encryption: RoomEncryption::Plain,
            state: PortalState::Active,
        };
        tx.portals().insert(&portal).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// How often Bob was told that something was not delivered.
    fn told_undelivered(&self) -> usize {
        let told = self.told_bob();
        told.iter().filter(|text| text.contains("was not delivered")).count()
    }
}

#[tokio::test]
async fn that_nobody_gets_their_messages_is_told_again_after_an_hour() {
    let world = World::new().await;
    for (pause, tellings) in [(Duration::ZERO, 1), (HOUR / 2, 1), (HOUR, 2)] {
        world.clock.pass(pause);
        for _ in 0..2 {
            world.bob(&eves(), message(ENCRYPTED)).await;
        }
        assert_eq!(world.told_undelivered(), tellings);
    }
}

#[tokio::test]
async fn a_message_that_nobody_gets_waits_until_its_author_can_be_told() {
    for is_back in [true, false] {
        let world = World::new().await;
        world.eve_had_a_chat().await;
        *world.remote.takes.lock().unwrap() = Takes::Outage;
        for _ in 0..2 {
            world.comes(&eves(), message(ENCRYPTED)).await;
        }
        assert_eq!(world.drain(&eves()).await, [WAITS, Drained::Empty]);
        if is_back {
            *world.remote.takes.lock().unwrap() = Takes::Everything;
        } else {
            world.clock.pass(WEEK);
        }
        assert_eq!(world.drain(&eves()).await, [Drained::Empty; 2]);
        assert_eq!(world.told_undelivered(), usize::from(is_back));
    }
}

#[tokio::test]
async fn of_a_stranger_who_cannot_be_told_nothing_is_kept() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    world.comes(&eves(), message(ENCRYPTED)).await;
    assert_eq!(world.drain(&eves()).await, [Drained::Empty; 2]);
    let mut tx = world.db.read().await.unwrap();
    assert!(tx.remote_inbox().pending_chats().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_room_that_is_refused_is_not_asked_for_again_while_its_contact_cannot_be_told() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    world.homeserver.refuses_rooms();
    world.close_portal().await;
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    for _ in 0..2 {
        world.comes(&chat(), message(ENCRYPTED)).await;
    }
    for _ in 0..2 {
        assert_eq!(world.drain(&chat()).await, [Drained::Empty, WAITS]);
    }
    assert_eq!(world.homeserver.made(), 2, "one for each message");
    *world.remote.takes.lock().unwrap() = Takes::Everything;
    // The queue may be at it too: who comes second fails.
    world.drain(&chat()).await;
    assert!(world.told_undelivered() > 0);
    let mut tx = world.db.read().await.unwrap();
    assert!(tx.remote_inbox().pending_chats().await.unwrap().is_empty());
}
