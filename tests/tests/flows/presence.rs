//! Presence subscriptions.

use anyhow::Result;
use tests::{Namespace, World};

#[tokio::test]
async fn whoever_asks_for_presence_gets_it_and_is_asked_back() -> Result<()> {
    let world = World::start("presence").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let jid = world.jid_of(alice.user_id());

    bob.subscribe(&jid).await?;
    bob.is_asked_for_presence_by(&jid).await?;

    // Clients ask no more for the devices of somebody in their roster, but wait to be told of them.
    for namespace in Namespace::BOTH {
        bob.is_told_of_devices_of(&jid, namespace).await?;
    }
    bob.send(&jid, "Now we are friends", Namespace::Legacy).await?;
    let invitation = alice.invitation_from(&world.ghost_of(bob.jid())).await?;
    alice.join(&invitation.room).await?;
    alice.receives("Now we are friends").await?;
    world.end().await
}
