//! People who may not use the bridge.

use anyhow::Result;
use tests::journal::SOON;
use tests::prosody::COMPONENT;
use tests::{Namespace, World};

#[tokio::test]
async fn a_person_who_is_not_permitted_is_refused_and_their_contact_told() -> Result<()> {
    let mut world = World::start("not-permitted").await?;
    world.bridge.stop().await?;
    world.bridge.permit("@mallory:localhost", "block")?;
    world.bridge.run().await?;
    let mallory = world.element_user("mallory").await?;
    let bob = world.omemo_user("bob").await?;
    let jid = world.jid_of(mallory.user_id());

    for ours in [world.ghost_of(bob.jid()), world.bridge.bot()] {
        let room = mallory.create_chat_with(&ours).await?;
        mallory.sees_leave(&room, &ours).await?;
    }

    for body in ["Hello?", "Hello??"] {
        bob.send_plain(&jid, body).await?;
    }
    bob.send(&jid, "In secret?", Namespace::Legacy).await?;
    let told = bob.message_where(SOON, |message| message.body.contains("does not use this bridge"));
    assert_eq!(told.await?.sender, COMPONENT);

    // Who is permitted is served behind all that.
    let alice = world.element_user("alice").await?;
    bob.send(&world.jid_of(alice.user_id()), "And you?", Namespace::Legacy).await?;
    let invitation = alice.invitation_from(&world.ghost_of(bob.jid())).await?;
    alice.join(&invitation.room).await?;
    alice.receives("And you?").await?;
    let tellings = bob.messages().into_iter().filter(|message| message.sender == COMPONENT);
    assert_eq!(tellings.filter(|m| m.body.contains("does not use")).count(), 1);
    assert_eq!(mallory.messages().len(), 0);
    world.end().await
}
