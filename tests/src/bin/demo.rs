//! The demonstration: a Matrix client and an independent OMEMO client talk through the bridge, and every line says how
//! each leg was encrypted and what the receiver's client thinks of the sender.
#![expect(clippy::print_stdout, reason = "the demonstration is what it prints")]

use std::env;

use anyhow::{Context, Result, ensure};
use matrix_sdk::Room;
use matrix_sdk::deserialized_responses::VerificationState;
use tests::journal::SOON;
use tests::omemo::Received;
use tests::rust_user::Message;
use tests::xmpp_server::COMPONENT;
use tests::{Namespace, OmemoUser, RustUser, World};

/// What was said, and whether all of it was protected as it should be.
#[derive(Debug, Default)]
struct Count {
    from_matrix: usize,
    from_xmpp: usize,
    good: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let keep = env::args().any(|argument| argument == "--keep");
    println!("Starting Synapse, Prosody and the bridge on loopback …");
    let world = World::start("demo").await?;
    let alice = RustUser::start(&world.homeserver, "alice").await?;
    let bob = world.omemo_user("bob").await?;
    println!("Alice is {} on a Matrix client with cross-signing.", alice.user_id());
    println!("Bob is {} on an OMEMO client.\n", bob.jid());

    let count = converse(&world, &alice, &bob).await?;
    compare(&world, &alice, &bob).await?;
    println!(
        "\n{} messages from Matrix to XMPP, {} from XMPP to Matrix: {} of {} with both legs encrypted and no shield.",
        count.from_matrix,
        count.from_xmpp,
        count.good,
        count.from_matrix + count.from_xmpp
    );
    ensure!(count.good == count.from_matrix + count.from_xmpp, "not every message was protected");
    if keep {
        stay(&world, &alice, &bob).await?;
    }
    world.end().await
}

async fn converse(world: &World, alice: &RustUser, bob: &OmemoUser) -> Result<Count> {
    let ghost = world.ghost_of(bob.jid());
    let alices_jid = world.jid_of(alice.user_id());
    let room = alice.create_chat_with(&ghost).await?;
    alice.sees_join(room.room_id(), &ghost).await?;
    let mut count = Count::default();
    for (question, answer, namespace) in [
        ("Bob, can you read this?", "Yes, and with OMEMO.", Namespace::Legacy),
        ("And in the newer form?", "In that one as well.", Namespace::Omemo2),
        ("Who else can read it?", "Only the bridge between us.", Namespace::Legacy),
        ("Then it says what it is.", "It does, on both sides.", Namespace::Omemo2),
    ] {
        count.from_matrix += 1;
        count.good += usize::from(to_xmpp(alice, &room, bob, question).await?);
        count.from_xmpp += 1;
        bob.send(&alices_jid, answer, namespace).await?;
        count.good += usize::from(to_matrix(alice, answer, namespace).await?);
    }
    Ok(count)
}

async fn to_xmpp(alice: &RustUser, room: &Room, bob: &OmemoUser, text: &str) -> Result<bool> {
    let encrypted = room.latest_encryption_state().await?.is_encrypted();
    alice.send(room, text).await?;
    let received = bob.receives(text).await?;
    let matrix = if encrypted { "Megolm" } else { "in the clear" };
    let xmpp = received.namespace.as_deref().unwrap_or("in the clear");
    let trust = match received.trust.as_deref() {
        Some("BLINDLY_TRUSTED" | "TRUSTED") => "trusted on first use",
        Some("UNDECIDED") => "first contact",
        Some(other) => other,
        None => "not encrypted",
    };
    println!("Matrix → XMPP  {text:<28} {matrix} | OMEMO {xmpp} | Bob's client: {trust}");
    Ok(encrypted && received.namespace.is_some())
}

async fn to_matrix(alice: &RustUser, text: &str, namespace: Namespace) -> Result<bool> {
    let message = alice.receives(text).await?;
    let judged = judgement(&message);
    let matrix = if message.encryption.is_some() { "Megolm" } else { "in the clear" };
    println!(
        "XMPP → Matrix  {text:<28} OMEMO {} | {matrix} | Alice's client: {judged}",
        namespace.uri()
    );
    Ok(message.is_unshielded())
}

/// Alice verifies Bob: her client shows emoji, and the bridge shows them to Bob.
async fn compare(world: &World, alice: &RustUser, bob: &OmemoUser) -> Result<()> {
    println!("\nAlice's client: verify {}", world.ghost_of(bob.jid()));
    let sas = alice.compare_with(&world.ghost_of(bob.jid())).await?;
    let shown = sas.emoji().context("no emoji")?.map(|emoji| emoji.symbol).join(" ");
    println!("Alice sees      {shown}");
    let told = says_bridge(bob, "Write “match” or “no match”").await?;
    ensure!(told.namespace.is_some(), "the emoji came to Bob in the clear");
    println!("{COMPONENT} to Bob, over OMEMO:");
    told.body.lines().for_each(|line| println!("    {line}"));
    println!("Bob writes      match");
    bob.send(COMPONENT, "match", Namespace::Legacy).await?;
    alice.confirm(&sas).await?;
    println!("Alice's client: they match");
    let verified = says_bridge(bob, "Verified: ").await?;
    println!("{COMPONENT} to Bob, over OMEMO:\n    {}", verified.body);
    Ok(())
}

async fn says_bridge(bob: &OmemoUser, words: &str) -> Result<Received> {
    bob.message_where(SOON, |it| it.sender == COMPONENT && it.body.contains(words)).await
}

fn judgement(message: &Message) -> &'static str {
    let Some(info) = &message.encryption else { return "not encrypted" };
    match (&info.verification_state, message.is_unshielded()) {
        (VerificationState::Verified, _) => "verified, no shield",
        (_, true) => "signed by its owner, no shield",
        (_, false) => "shield",
    }
}

async fn stay(world: &World, alice: &RustUser, bob: &OmemoUser) -> Result<()> {
    println!("\nEverything keeps running until you press Ctrl-C.");
    println!("  Element:     homeserver {}", world.homeserver.url());
    println!(
        "               user {}  password {}",
        alice.account().localpart,
        alice.account().password
    );
    println!("               recovery key {}", alice.make_recovery_key().await?);
    println!("  XMPP client: {}  password {}", bob.jid(), bob.password());
    println!(
        "               server 127.0.0.1, port {}, self-signed certificate",
        world.xmpp.client_port()
    );
    println!("  The bridge's bot is {}: send it `help`.", world.bridge.bot());
    println!("  Logs and data: {}", world.dir().display());
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}
