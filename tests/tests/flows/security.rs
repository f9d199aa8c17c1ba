//! How well each leg is protected, as people on both sides and their programs are told.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::omemo::Device;
use tests::xmpp_server::COMPONENT;
use tests::{Namespace, OmemoUser, World};

use crate::Chat;
use crate::trust_commands::times_said;

impl Chat {
    /// What the bot answers to `security`, once it says these words.
    async fn security_says(&self, words: &str) -> Result<String> {
        self.command("security").await?;
        let told = self.alice.hears(&self.world.bridge.bot(), words).await?;
        told.body.context("an answer has a text")
    }

    /// How machines see both legs of messages in both directions.
    async fn machines_read(&self, matrix: &str, remote: &str) -> Result<()> {
        let leg = |protocol: &str, identity: &str| json!({ "encrypted": true, "protocol": protocol, "identity": identity });
        let legs = json!({ "matrix": leg("megolm", matrix), "remote": leg("omemo", remote) });
        let body = format!("To a {matrix} identity");
        self.bob.send(&self.alices_jid(), &body, Namespace::Legacy).await?;
        let shown = self.alice.receives(&body).await?;
        ensure!(shown.encrypted, "machines at the homeserver could read it");
        assert_eq!(shown.content.get("dev.gephyra.leg_security"), Some(&legs), "from Bob");

        let event = self.alice.send(&self.room, &format!("From a {matrix} identity")).await?;
        let bot = self.world.bridge.bot();
        let report = self.alice.delivery_from(&bot, &event, &self.ghost()).await?;
        assert_eq!(report.get("dev.gephyra.leg_security"), Some(&legs), "from Alice");
        Ok(())
    }
}

/// Fails unless a text contains all of these.
fn ensure_contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is not in: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn both_legs_are_told_as_they_are_before_and_after_people_compare() -> Result<()> {
    let chat = Chat::open_and_talk("security-compared").await?;
    let Chat { alice, bob, .. } = &chat;
    chat.machines_read("pinned", "pinned").await?;
    let told = chat.security_says("trusted on first use or by approval, not compared").await?;
    let seen_by_bob = bob.fingerprints_of(&chat.alices_jid()).await?;
    let (_, bridges) = seen_by_bob.first_key_value().context("Bob sees a device")?;
    let ghosts = alice.devices_of(&chat.ghost()).await?;
    let (ghosts, _) = ghosts.first_key_value().context("the ghost has a device")?;
    let all = ["encrypted with Megolm", "encrypted with OMEMO", "What the bridge sees"];
    ensure_contains(&told, &all)?;
    ensure_contains(&told, &[bob.fingerprint()?, bridges, ghosts, alice.device_id()])?;
    ensure_contains(&told, &["you have not allowed plaintext here", ": trusted on first use"])?;

    chat.alice_begins_and_both_see_the_same().await?;
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Done").await?;
    chat.bot_tells_alice("Verified: ").await?;
    chat.command(&format!("trust {}", bob.fingerprint()?)).await?;
    chat.bot_tells_alice("is verified").await?;
    chat.machines_read("verified", "verified").await?;
    let told =
        chat.security_says("verified by emoji with your contact, unchanged since 20").await?;
    ensure_contains(&told, &[": verified since 20"])?;
    chat.end().await
}

#[tokio::test]
async fn changed_keys_on_both_legs_are_told_as_changed() -> Result<()> {
    let chat = Chat::open_and_talk("security-changed").await?;
    let Chat { world, alice, bob, room } = &chat;
    let device = Device { name: "reinstalled", device_id: bob.device_id(), ..Device::default() };
    let stranger = world.omemo_device("bob", &device).await?;
    alice.send(room, "Is it you?").await?;
    chat.bot_tells_alice("identity of your contact has changed").await?;
    let told = chat.security_says("its identity has changed, waits for you").await?;
    ensure_contains(&told, &[stranger.fingerprint()?])?;
    chat.command("approve").await?;
    stranger.receives("Is it you?").await?;

    alice.set_up_cross_signing().await?;
    stranger.send(&chat.alices_jid(), "Is it still you?", Namespace::Legacy).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    chat.security_says("⚠️ Your identity has changed. Pinned since 20").await?;
    let told = stranger.runs_command(COMPONENT, "security", alice.user_id()).await?.text;
    ensure_contains(&told, &["⚠️ Their identity has changed, and what you write to them waits"])?;
    chat.end().await
}

#[tokio::test]
async fn a_chat_in_the_clear_is_told_as_such_also_in_the_management_room() -> Result<()> {
    let world = World::start("security-clear").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_device("bob", &Device { speaks: &[], ..Device::default() }).await?;
    let (bot, ghost) = (world.bridge.bot(), world.ghost_of(bob.jid()));
    let room = alice.create_plain_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "!xmpp plaintext allow").await?;
    alice.hears(&bot, "Allowed").await?;
    alice.send(&room, "In the open").await?;
    bob.receives("In the open").await?;

    let management = alice.create_chat_with(&bot).await?;
    alice.sees_join(&management, &bot).await?;
    alice.send(&management, &format!("security {}", bob.jid())).await?;
    let told = alice.hears(&bot, "⚠️ not encrypted. Your homeserver reads this room").await?;
    assert_eq!(told.room, management);
    let told = told.body.unwrap_or_default();
    ensure_contains(&told, &["⚠️ your contact has no encryption", "you have allowed plaintext"])?;
    alice.send(&management, "security carol@localhost").await?;
    alice.hears(&bot, "You have no chat with this address").await?;
    let told = bob.runs_command(COMPONENT, "security", alice.user_id()).await?.text;
    ensure_contains(
        &told,
        &["⚠️ not encrypted. Their Matrix server reads", "⚠️ They have allowed"],
    )?;
    world.end().await
}

#[tokio::test]
async fn a_device_that_was_approved_without_comparing_weakens_the_leg_and_is_told_once()
-> Result<()> {
    let chat = Chat::open_verified("security-weaker").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "To the verified phone").await?;
    bob.receives("To the verified phone").await?;
    let laptop = chat.bobs_laptop().await?;
    laptop.send(&chat.alices_jid(), "From the laptop", Namespace::Legacy).await?;
    chat.bot_tells_alice("has a new device").await?;
    chat.command("approve").await?;
    alice.receives("From the laptop").await?;
    for body in ["To both", "And again"] {
        alice.send(room, body).await?;
        laptop.receives(body).await?;
    }
    let words = "goes to a device of your contact that you have not compared";
    chat.bot_tells_alice(words).await?;
    chat.security_says("Between the bridge and your contact").await?;
    assert_eq!(times_said(&chat, words), 1);
    chat.end().await
}

/// The key that the bot has pinned for Alice.
pub(super) async fn pinned_key(chat: &Chat) -> Result<String> {
    chat.command("devices").await?;
    let told = chat.alice.hears(&chat.world.bridge.bot(), "Your own identity, as I have").await?;
    let told = told.body.unwrap_or_default();
    Ok(told.lines().last().context("the key is the last line")?.to_owned())
}

#[tokio::test]
async fn a_contact_asks_the_bridge_by_form_and_by_message() -> Result<()> {
    let chat = Chat::open_and_talk("contact-asks").await?;
    let Chat { world, alice, bob, .. } = &chat;
    let commands = bob.commands_of(COMPONENT).await?;
    let all = ["devices", "help", "pending", "security", "verify"];
    assert_eq!(commands, all.map(str::to_owned).into());
    let features = bob.disco(COMPONENT).await?;
    let features = features.get("features").and_then(Value::as_array).cloned().unwrap_or_default();
    ensure!(features.contains(&json!("http://jabber.org/protocol/commands")), "{features:?}");

    let by_form = bob.runs_command(COMPONENT, "devices", "nobody").await?;
    assert!(by_form.people.is_empty(), "he has one chat");
    let (hers, its) =
        (bob.fingerprints_of(&chat.alices_jid()).await?, bob.fingerprints_of(COMPONENT).await?);
    let keys: Vec<&str> = hers.values().chain(its.values()).map(String::as_str).collect();
    ensure!(keys.len() == 2, "Bob sees the bridge's devices: {keys:?}");
    ensure_contains(&by_form.text, &keys)?;
    ensure_contains(&by_form.text, &[&pinned_key(&chat).await?, alice.device_id()])?;
    chat.bob_answers("devices").await?;
    let by_message = chat.bridge_tells_bob("The keys of").await?;
    ensure!(by_message.namespace.is_some(), "the answer to an encrypted message was not encrypted");
    assert_eq!(by_message.body, by_form.text);
    chat.bob_answers(&format!("security {}", alice.user_id())).await?;
    chat.bridge_tells_bob("Between the bridge and them: encrypted with Megolm").await?;

    let carol = world.omemo_user("carol").await?;
    let strangers = carol.runs_command(COMPONENT, "devices", alice.user_id()).await?;
    assert_eq!(strangers.text, "You have no chat with them through this bridge.");

    let dave = world.element_user("dave").await?;
    let room = dave.create_chat_with(&chat.ghost()).await?;
    dave.sees_join(&room, &chat.ghost()).await?;
    dave.send(&room, "Hello from Dave").await?;
    bob.receives("Hello from Dave").await?;
    let chosen = bob.runs_command(COMPONENT, "security", dave.user_id()).await?;
    assert_eq!(chosen.people, [alice.user_id(), dave.user_id()]);
    ensure_contains(&chosen.text, &[&format!("Your chat with {}", dave.user_id())])?;
    chat.end().await
}

#[tokio::test]
async fn a_form_starts_a_comparison_but_decides_nothing() -> Result<()> {
    let chat = Chat::open_and_talk("form-verifies").await?;
    let Chat { alice, bob, .. } = &chat;
    let asked = bob.runs_command(COMPONENT, "verify", alice.user_id()).await?;
    ensure_contains(&asked.text, &["I have asked"])?;
    alice.accept_verification_from(&chat.ghost()).await?;
    chat.both_see_the_same().await?;
    let mut taken = 0;
    for decision in ["match", "no match", "trust", "distrust", "approve"] {
        taken += usize::from(form_was_taken(bob, decision).await);
    }
    alice.says_emoji_are_the_same().await?;
    ensure!(!alice.sees_verified(&chat.ghost()).await?, "a form has decided");
    println!("safety: decisions_by_form: {taken} of 5 taken by the bridge");
    assert_eq!(taken, 0);
    chat.bob_answers("match").await?;
    alice.verification_is("Done").await?;
    chat.end().await
}

async fn form_was_taken(bob: &OmemoUser, node: &str) -> bool {
    bob.runs_command(COMPONENT, node, "").await.is_ok()
}
