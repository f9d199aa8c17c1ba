//! What waits too long is given up, and both sides are told.

use std::time::Duration;

use anyhow::Result;
use tests::omemo::{Device, Received};
use tests::xmpp_server::COMPONENT;
use tests::{ElementUser, Namespace, World};

use crate::{Chat, bridge_tells};

/// As long as a message waits when the configuration says nothing else.
const HOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The bridge stops, a week goes by, and it comes up again.
async fn a_week_passes(world: &mut World) -> Result<()> {
    world.bridge.stop().await?;
    world.bridge.age_what_waits(HOLD).await?;
    world.bridge.run_connected().await
}

fn count_told(messages: &[Received], words: &str) -> usize {
    let told = |message: &&Received| message.sender == COMPONENT && message.body.contains(words);
    messages.iter().filter(told).count()
}

#[tokio::test]
async fn what_waits_for_a_decision_about_a_contacts_key_is_given_up_in_both_directions()
-> Result<()> {
    let mut chat = Chat::open("expiry-contact").await?;
    let jid = chat.alices_jid();
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    bridge_tells(&chat.bob, "through a bridge").await?;

    let device =
        Device { name: "reinstalled", device_id: chat.bob.device_id(), ..Device::default() };
    let stranger = chat.world.omemo_device("bob", &device).await?;
    stranger.send(&jid, "It is me", Namespace::Legacy).await?;
    chat.bot_tells_alice("identity of your contact has changed").await?;
    let written = chat.alice.send(&chat.room, "Is it you?").await?;
    let other = chat.alice.send(&chat.room, "Really?").await?;
    // What is answered was tried behind both of them.
    chat.alice.send(&chat.room, "!xmpp version").await?;
    chat.bot_tells_alice("0.1.0").await?;

    a_week_passes(&mut chat.world).await?;
    let bot = chat.world.bridge.bot();
    for event in [&written, &other] {
        chat.alice.status_from(&bot, event, "FAIL_PERMANENT").await?;
    }
    chat.bot_tells_alice("Messages of yours have waited for 7 days and are given up").await?;
    chat.bot_tells_alice("Messages of your contact have waited for 7 days").await?;
    // Nobody can approve a key in the bridge's own chat, so its words go in the clear.
    for words in ["wrote to you have waited for 7 days", "that you wrote to"] {
        let told = bridge_tells(&stranger, words).await?;
        assert_eq!(told.namespace, None, "the new key was encrypted to");
        assert_eq!(count_told(&stranger.messages(), words), 1, "{words}");
    }

    chat.alice.send(&chat.room, "Still there?").await?;
    chat.alice.send(&chat.room, "!xmpp approve").await?;
    stranger.receives("Still there?").await?;
    stranger.send(&jid, "Here I am", Namespace::Legacy).await?;
    chat.alice.receives("Here I am").await?;
    let expired = stranger.texts_from(&jid).len() - 1;
    let shown = chat.alice.messages();
    let shown = shown.iter().filter(|m| m.body.as_deref() == Some("It is me")).count();
    println!(
        "safety: expired: {expired} of 2 to and {shown} of 1 from the unapproved key delivered"
    );
    assert_eq!((expired, shown), (0, 0));
    chat.end().await
}

#[tokio::test]
async fn what_waits_for_a_signed_device_is_given_up() -> Result<()> {
    let mut world = World::start("expiry-unsigned").await?;
    let account = world.homeserver.register("alice").await?;
    let alice = ElementUser::log_in(&world.homeserver, &account, "first", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let (ghost, bot) = (world.ghost_of(bob.jid()), world.bridge.bot());
    let jid = world.jid_of(alice.user_id());
    for body in ["First", "Second"] {
        bob.send(&jid, body, Namespace::Legacy).await?;
    }
    let room = alice.invitation_from(&ghost).await?.room;
    alice.join(&room).await?;
    alice.hears(&bot, "none of your devices is verified").await?;

    a_week_passes(&mut world).await?;
    alice.hears(&bot, "Messages of your contact have waited for 7 days").await?;
    bridge_tells(&bob, "were not delivered").await?;
    alice.set_up_cross_signing().await?;
    bob.send(&jid, "Third", Namespace::Legacy).await?;
    assert_eq!(alice.receives("Third").await?.sender, ghost);
    let expired = |body: &str| body == "First" || body == "Second";
    let delivered =
        alice.messages().iter().filter(|m| expired(m.body.as_deref().unwrap_or_default())).count();
    let told = count_told(&bob.messages(), "were not delivered");
    println!("safety: expired_unsigned: {delivered} of 2 delivered, their author told {told} time");
    assert_eq!((delivered, told), (0, 1));
    world.end().await
}

#[tokio::test]
async fn what_an_unsigned_device_wrote_is_given_up_without_a_word_to_the_contact() -> Result<()> {
    let world = World::start("expiry-unsigned-sender").await?;
    let account = world.homeserver.register("alice").await?;
    let alice = ElementUser::log_in(&world.homeserver, &account, "first", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let mut chat = Chat::between(world, alice, bob).await?;
    let written = chat.alice.send(&chat.room, "From an unsigned device").await?;
    let bot = chat.world.bridge.bot();
    chat.alice.hears(&bot, "the device you write from is not verified").await?;

    a_week_passes(&mut chat.world).await?;
    chat.alice.status_from(&bot, &written, "FAIL_PERMANENT").await?;
    chat.alice.hears(&bot, "Messages of yours have waited for 7 days").await?;
    chat.alice.set_up_cross_signing().await?;
    chat.alice.send(&chat.room, "From a signed one").await?;
    chat.bob.receives("From a signed one").await?;
    assert_eq!(chat.bob.texts_from(&chat.alices_jid()), ["From a signed one"]);
    assert_eq!(count_told(&chat.bob.messages(), "have waited"), 0);
    chat.end().await
}

#[tokio::test]
async fn what_waits_for_a_persons_own_identity_is_given_up_in_both_directions() -> Result<()> {
    let mut chat = Chat::open("expiry-own-identity").await?;
    let jid = chat.alices_jid();
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    chat.bob.send(&jid, "Before as well", Namespace::Legacy).await?;
    chat.alice.receives("Before as well").await?;

    chat.alice.set_up_cross_signing().await?;
    chat.bob.send(&jid, "Is it still you?", Namespace::Legacy).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    // What is under a room key from before is her old identity's, and waits for nothing.
    chat.alice.discard_room_key(&chat.room).await?;
    let written = chat.alice.send(&chat.room, "It is").await?;
    chat.alice.send(&chat.room, "!xmpp version").await?;
    chat.bot_tells_alice("0.1.0").await?;

    a_week_passes(&mut chat.world).await?;
    let bot = chat.world.bridge.bot();
    chat.alice.status_from(&bot, &written, "FAIL_PERMANENT").await?;
    for words in ["wrote to you have waited for 7 days", "that you wrote to"] {
        let told = bridge_tells(&chat.bob, words).await?;
        assert!(told.namespace.is_some(), "{words}: in the clear");
        assert_eq!(count_told(&chat.bob.messages(), words), 1, "{words}");
    }

    chat.alice.send(&chat.room, "!xmpp approve me").await?;
    chat.bob.send(&jid, "And now?", Namespace::Legacy).await?;
    chat.alice.receives("And now?").await?;
    chat.alice.send(&chat.room, "Still me").await?;
    chat.bob.receives("Still me").await?;
    assert_eq!(chat.bob.texts_from(&jid), ["Before", "Still me"]);
    let shown = chat.alice.messages();
    assert!(shown.iter().all(|message| message.body.as_deref() != Some("Is it still you?")));
    chat.end().await
}
