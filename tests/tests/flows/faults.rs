//! Transactions that fail between homeserver and bridge.

use anyhow::Result;
use tests::faults::Outcome;
use tests::{Namespace, World};

use crate::Chat;

#[tokio::test]
async fn refused_and_unanswered_transactions_cost_no_message() -> Result<()> {
    let (world, link) = World::start_with_link("refused-transaction").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "Taken").await?;
    bob.receives("Taken").await?;

    link.refuse_next(1);
    alice.send(room, "Refused at first").await?;
    link.happened(Outcome::Refused, 1).await?;
    alice.send(room, "Right behind it").await?;
    bob.receives("Refused at first").await?;
    bob.receives("Right behind it").await?;

    link.lose_next_answers(1);
    alice.send(room, "Taken, but nobody knows").await?;
    link.happened(Outcome::AnswerLost, 1).await?;
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
    let (world, link) = World::start_with_link("refused-first-transaction").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    link.refuse_next(1);
    let room = alice.create_chat_with(&ghost).await?;
    link.happened(Outcome::Refused, 1).await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "After all").await?;
    bob.receives("After all").await?;
    world.end().await
}
