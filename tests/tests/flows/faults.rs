//! Transactions that fail between homeserver and bridge.

use std::time::Duration;

use anyhow::Result;
use tests::evil_hs::Rule;
use tests::{Namespace, World};

use crate::Chat;

/// The bridge gives a key a minute to come; this is that and some time to say so.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn refused_and_unanswered_transactions_cost_no_message() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("refused-transaction").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "Taken").await?;
    bob.receives("Taken").await?;

    let refused = evil.obey(Rule::refuse_transactions().times(1));
    alice.send(room, "Refused at first").await?;
    refused.applied(1).await?;
    alice.send(room, "Right behind it").await?;
    bob.receives("Refused at first").await?;
    bob.receives("Right behind it").await?;

    let lost = evil.obey(Rule::lose_answers_to_transactions().times(1));
    alice.send(room, "Taken, but nobody knows").await?;
    lost.applied(1).await?;
    alice.send(room, "The last").await?;
    bob.receives("The last").await?;
    let unknown = "Taken, but nobody knows";
    let times = bob.messages().iter().filter(|message| message.body == unknown).count();
    assert_eq!((times, bob.undecryptable()), (1, 0));

    bob.send(&chat.alices_jid(), "All here", Namespace::Legacy).await?;
    alice.receives("All here").await?;
    assert!(alice.messages().iter().all(|message| message.failure.is_none()));
    chat.end().await
}

#[tokio::test]
async fn a_new_members_first_message_survives_a_refused_transaction() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("refused-first-transaction").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    let refused = evil.obey(Rule::refuse_transactions().times(1));
    let room = alice.create_chat_with(&ghost).await?;
    refused.applied(1).await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "After all").await?;
    bob.receives("After all").await?;
    world.end().await
}

#[tokio::test]
async fn a_message_written_before_the_ghost_has_joined_is_delivered() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("written-before-join").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    // The ghost has published its keys for somebody else, so that Alice's client can encrypt to it at once.
    let carol = world.element_user("carol").await?;
    let carols_room = carol.create_chat_with(&ghost).await?;
    carol.sees_join(&carols_room, &ghost).await?;

    let alice = world.element_user("alice").await?;
    let refused = evil.obey(Rule::refuse_transactions().times(2));
    let room = alice.create_chat_with(&ghost).await?;
    alice.sees_invitation(&room, &ghost).await?;
    alice.send(&room, "Before you come in").await?;
    refused.applied(1).await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "Now that you are in").await?;
    bob.receives("Now that you are in").await?;
    bob.receives("Before you come in").await?;
    let alices = bob.texts_from(&world.jid_of(alice.user_id()));
    assert_eq!(alices, ["Before you come in", "Now that you are in"]);
    world.end().await
}

/// Element lets a person write right after the invitation. The ghost may be so new that Alice's client has found no
/// keys of it to encrypt to: then she has to learn that her message did not arrive.
#[tokio::test]
async fn first_words_to_a_new_ghost_arrive_or_their_author_is_told() -> Result<()> {
    let world = World::start("first-words-to-a-new-ghost").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    let room = alice.create_chat_with(&ghost).await?;
    // Before that the client would write in the clear.
    alice.sees_state(&room, "m.room.encryption", "").await?;
    alice.send(&room, "Right away").await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "Later").await?;
    bob.receives_within("Later", PATIENCE).await?;
    let is_told = |body: Option<&str>| body.unwrap_or_default().contains("could not be decrypted");
    tokio::select! {
        Ok(_) = bob.receives_within("Right away", PATIENCE) => {}
        Ok(_) = alice.message_where(PATIENCE, |message| is_told(message.body.as_deref())) => {}
        else => anyhow::bail!("the first words were lost and nobody was told"),
    }
    world.end().await
}
