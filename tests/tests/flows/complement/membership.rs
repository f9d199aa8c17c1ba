//! Invitations: who can read what was written around them.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::evil_hs::{Request, Rule};
use tests::{ElementUser, Namespace, World};

use super::PATIENCE;
use crate::Chat;

/// The homeserver has the invitation, and the bridge has heard neither of it nor of the join: its transactions are held.
#[tokio::test]
async fn delayed_invite_response() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("delayed-invite").await?;
    let held = evil.obey(Rule::hold_transactions());
    let chat = Chat::that_bob_begins(world, "Hello world!").await?;
    held.applied(1).await?;
    drop(held);
    let outcome = chat.ends_well(&[], &["Hello world!"]).await?;
    println!(
        "safety: complement_delayed_invite: read before the bridge heard of the invitation; {outcome}"
    );
    chat.end().await
}

/// In Matrix nothing is encrypted a second time for a device that comes later, and the original is expected to fail. What
/// is written from then on must be readable on it.
#[tokio::test]
async fn changing_device_after_invite_re_encrypts() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("changed-device-after-invite").await?;
    let (alice, recovery_key) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let to = world.jid_of(alice.user_id());
    let ghost = world.ghost_of(bob.jid());
    let stanza = bob.send(&to, "For the first device", Namespace::Omemo2).await?;
    let room = alice.invitation_from(&ghost).await?.room;
    bob.receipt_for(&stanza).await?;
    let path = format!("/rooms/{room}/send/m.room.encrypted/");
    let is_sent = |request: &Request| request.path.contains(&path).then_some(());
    evil.requests().wait_for("the message for the first device", PATIENCE, is_sent).await?;

    let second =
        ElementUser::log_in(&world.homeserver, alice.account(), "second", world.dir()).await?;
    second.recover(&recovery_key).await?;
    second.invitation_from(&ghost).await?;
    let alice_id = alice.user_id().to_owned();
    alice.stop().await?;
    second.join(&room).await?;
    let join = |event: &Value| {
        event.get("state_key").is_some_and(|key| key == alice_id.as_str())
            && event.pointer("/content/membership").is_some_and(|now| now == "join")
    };
    let joined = |request: &Request| request.events().find(join);
    evil.requests().wait_for("the push of the join", PATIENCE, joined).await?;
    bob.send(&to, "For the second device", Namespace::Omemo2).await?;
    second.receives_within("For the second device", PATIENCE).await?;
    second.send(&room, "From the second device").await?;
    bob.receives_within("From the second device", PATIENCE).await?;
    let shown = second.messages();
    let was_read = |text: &str| shown.iter().any(|it| it.body.as_deref() == Some(text));
    let early = usize::from(was_read("For the first device"));
    println!(
        "safety: complement_changed_device: {early} of 1 earlier message, 1 of 1 later one on the new device"
    );
    ensure!((early, bob.undecryptable()) == (0, 0));
    world.end().await
}
