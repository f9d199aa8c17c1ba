//! People who may not use the bridge.

use anyhow::Result;
use tests::journal::SOON;
use tests::xmpp_server::COMPONENT;
use tests::{Namespace, World};

use crate::Chat;

#[tokio::test]
async fn a_person_who_is_not_permitted_is_refused_and_their_contact_told() -> Result<()> {
    let mut world = World::start("not-permitted").await?;
    world.bridge.stop().await?;
    world.bridge.permit("@mallory:localhost", "block")?;
    world.bridge.run_connected().await?;
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

#[tokio::test]
async fn a_person_who_is_blocked_later_is_cut_off_both_ways() -> Result<()> {
    let mut chat = Chat::open("blocked-later").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    chat.world.bridge.stop().await?;
    chat.world.bridge.permit(chat.alice.user_id(), "block")?;
    chat.world.bridge.run_connected().await?;

    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Am I still heard?").await?;
    bob.send(&chat.alices_jid(), "Am I?", Namespace::Legacy).await?;
    let words = "does not use this bridge";
    bob.message_where(SOON, |message| message.body.contains(words)).await?;
    let carol = world.element_user("carol").await?;
    let ghost = world.ghost_of(bob.jid());
    let carols_room = carol.create_chat_with(&ghost).await?;
    carol.sees_join(&carols_room, &ghost).await?;
    carol.send(&carols_room, "I am").await?;
    bob.receives("I am").await?;
    assert!(bob.messages().iter().all(|message| message.body != "Am I still heard?"));
    assert!(alice.messages().iter().all(|message| message.body.as_deref() != Some("Am I?")));
    chat.end().await
}
