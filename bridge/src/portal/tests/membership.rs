//! Who is invited, and who leaves.

use super::*;

/// What becomes of a user in a room.
fn member(sender: &UserId, id: &str, user: &UserId, membership: &str) -> NewInboxEvent {
    let content = json!({ "membership": membership });
    let state_key = Some(user.to_string());
    NewInboxEvent { state_key, ..event(sender, id, "m.room.member", content) }
}

#[tokio::test]
async fn a_ghost_that_was_put_out_and_is_invited_again_goes_on_in_the_same_room() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    let ghost = world.portal().await.ghost;
    world.pushed(member(alice(), "$1", &ghost, "leave")).await;
    Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
    assert_eq!(world.portal().await.state, PortalState::Closed);
    world.pushed(member(alice(), "$2", &ghost, "invite")).await;
    Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
    assert_eq!(world.portal().await.state, PortalState::Active);

    world.bob(&chat(), message(ENCRYPTED)).await;
    assert!(world.said().await.contains(&"hi".to_owned()), "{:?}", world.said().await);
    assert_eq!(world.homeserver.made(), 0, "it is where it was");
}

#[tokio::test]
async fn what_waits_for_a_person_who_has_left_is_told_in_another_room() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    world.close_portal().await;
    let hold = Hold::NewDevices { fingerprints: vec!["aaaa".to_owned()] };
    world.bob(&chat(), RemoteEventKind::Held(hold)).await;
    let mut tx = world.db.read().await.unwrap();
    let portal = tx.portals().find_by_chat("any", alice(), &chat().contact).await.unwrap().unwrap();
    assert_ne!(portal.room_id, room());
    let said = tx.matrix_outbox().load_pending(&portal.room_id, 10).await.unwrap();
    assert!(said.iter().any(|row| row.event.content.contains("aaaa")), "it can be approved");
}

#[tokio::test]
async fn a_user_that_the_homeserver_has_forgotten_is_registered_again() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    let (bot, ghost) = (user_id!("@gephyra:example.org"), world.portal().await.ghost);
    for _ in 0..2 {
        world.hub.start().await.unwrap();
        assert!(world.hub.ensure_user(&ghost).await);
        assert!(world.homeserver.knows(bot) && world.homeserver.knows(&ghost));
        world.homeserver.forgets(bot);
        world.homeserver.forgets(&ghost);
    }
    world.hub.start().await.unwrap();
    world.close_portal().await;
    world.bob(&chat(), message(ENCRYPTED)).await;
    assert!(world.homeserver.knows(&ghost));
    assert_eq!(world.homeserver.made(), 1, "the ghost has made a room");
    let told = world.told_bob();
    assert!(told.iter().all(|text| !text.contains("was not delivered")), "{told:?}");
}

#[tokio::test]
async fn a_server_that_lets_nobody_leave_holds_up_no_other_room() {
    // As many as work at the same time.
    const BUSY: usize = 64;
    let world = World::new().await;
    world.homeserver.has_rooms();
    world.homeserver.stalls_leaves();
    let (mallory, bot) = (user_id!("@mallory:example.org"), user_id!("@gephyra:example.org"));
    for number in 0..BUSY {
        let room_id = OwnedRoomId::try_from(format!("!trap{number}:example.org")).unwrap();
        let invitation = member(mallory, &format!("$trap{number}"), bot, "invite");
        world.pushed(NewInboxEvent { room_id: room_id.clone(), ..invitation }).await;
        world.hub.ring_room(&room_id);
    }
    let others = async {
        world.homeserver.lets_wait(BUSY).await;
        world.alice_writes("$1", "hi").await;
        world.hub.ring_room(&room());
        while !world.reached_bob().contains(&"hi".to_owned()) {
            world.remote.has_sent.notified().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), others).await.expect("nobody waits for them");
}

#[tokio::test]
async fn strangers_make_no_ghosts_without_end() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    let ghost = world.portal().await.ghost;
    assert!(world.hub.ensure_user(&ghost).await);
    let now = world.clock.moment();
    let others = (0..1000).filter(|_| world.hub.new_ghosts.admit(now)).count();
    let unknown = user_id!("@any_stranger=40example.net:example.org");
    assert!(!world.hub.ensure_user(unknown).await);
    assert!(!world.homeserver.knows(unknown));
    assert!(world.hub.ensure_user(&ghost).await, "who is known is not new");
    world.clock.pass(Duration::from_secs(60 * 60));
    assert!(world.hub.ensure_user(unknown).await);
    assert_eq!(others, 99, "and Bob's");
}

#[tokio::test]
async fn whom_a_person_invites_is_made_however_many_strangers_have_asked_for() {
    let world = World::new().await;
    world.homeserver.has_rooms();
    let now = world.clock.moment();
    while world.hub.new_ghosts.admit(now) {}
    let ghost = user_id!("@any_carol=40example.net:example.org");
    let room_id = owned_room_id!("!carol:example.org");
    let invitation = member(alice(), "$1", ghost, "invite");
    world.pushed(NewInboxEvent { room_id: room_id.clone(), ..invitation }).await;
    Drain::<OwnedRoomId>::drain(&*world.hub, &room_id).await;
    assert!(world.homeserver.knows(ghost));
    let carol = RemoteUserId::new("carol@example.net");
    let mut tx = world.db.read().await.unwrap();
    let portal = tx.portals().find_by_chat("any", alice(), &carol).await.unwrap().unwrap();
    assert_eq!(portal.room_id, room_id);
}
