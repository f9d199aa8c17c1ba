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
