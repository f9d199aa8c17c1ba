//! What people say about keys, and what follows from it on both sides.

use std::io::Read as _;

use anyhow::{Context, Result, bail, ensure};
use matrix_sdk_crypto::{AttachmentDecryptor, MediaEncryptionInfo};
use tests::journal::SOON;
use tests::omemo::Device;
use tests::{ElementUser, Namespace, OmemoUser, World};

use crate::Chat;

impl Chat {
    /// Both have written, and Alice has compared the fingerprint of Bob's phone.
    pub(super) async fn open_verified(story: &str) -> Result<Self> {
        let chat = Self::open(story).await?;
        chat.alice.send(&chat.room, "Before").await?;
        chat.bob.receives("Before").await?;
        chat.command(&format!("trust {}", chat.bob.fingerprint()?)).await?;
        chat.bot_tells_alice("is verified").await?;
        Ok(chat)
    }

    pub(super) async fn bobs_laptop(&self) -> Result<OmemoUser> {
        let device = Device { name: "laptop", ..Device::default() };
        self.world.omemo_device("bob", &device).await
    }

    pub(super) async fn command(&self, command: &str) -> Result<()> {
        self.alice.send(&self.room, &format!("!xmpp {command}")).await.map(drop)
    }
}

/// What a client shows of a person's messages, in order.
pub(super) fn texts_of(alice: &ElementUser, sender: &str) -> Vec<String> {
    let theirs = alice.messages().into_iter().filter(|message| message.sender == sender);
    theirs.filter_map(|message| message.body).collect()
}

/// How often the bot has said something with these words.
pub(super) fn times_said(chat: &Chat, words: &str) -> usize {
    let said = texts_of(&chat.alice, &chat.world.bridge.bot());
    said.iter().filter(|text| text.contains(words)).count()
}

#[tokio::test]
async fn a_new_device_of_a_verified_contact_waits_until_it_is_approved() -> Result<()> {
    let chat = Chat::open_verified("new-device-after-verification").await?;
    let Chat { world, alice, bob, room } = &chat;
    let (ghost, jid) = (world.ghost_of(bob.jid()), chat.alices_jid());

    let laptop = chat.bobs_laptop().await?;
    for body in ["From the laptop", "And once more"] {
        laptop.send(&jid, body, Namespace::Legacy).await?;
    }
    chat.bot_tells_alice("has a new device").await?;
    alice.send(room, "To the phone").await?;
    bob.receives("To the phone").await?;
    bob.send(&jid, "From the phone", Namespace::Legacy).await?;
    alice.receives("From the phone").await?;
    assert_eq!(texts_of(alice, &ghost), ["From the phone"]);

    chat.command("pending").await?;
    let told = alice.hears(&world.bridge.bot(), "2 messages, since").await?;
    let told = told.body.context("the answer has a text")?;
    ensure!(told.contains(laptop.fingerprint()?), "the laptop is not in: {told}");
    let reached = laptop.messages().len();
    println!("safety: new_contact_device: {reached} of 1 messages reached it");
    assert_eq!(reached, 0, "a device that nobody approved was encrypted to");

    chat.command("approve").await?;
    alice.receives("And once more").await?;
    assert_eq!(texts_of(alice, &ghost), ["From the phone", "From the laptop", "And once more"]);
    alice.send(room, "To both").await?;
    laptop.receives("To both").await?;
    bob.receives("To both").await?;
    assert_eq!(laptop.texts_from(&jid), ["To both"]);
    assert_eq!(times_said(&chat, "has a new device"), 1);

    let checked = world.bridge.keylog(&["verify"]).await?;
    ensure!(checked.starts_with("The key log is whole"), "{checked}");
    let log = world.bridge.keylog(&["show", bob.jid()]).await?;
    let events: Vec<(&str, bool)> = log
        .lines()
        .skip(1)
        .filter(|line| line.contains(alice.user_id()))
        .filter_map(|line| {
            Some((line.split_whitespace().nth(1)?, line.ends_with(bob.fingerprint().ok()?)))
        })
        .collect();
    assert_eq!(
        events,
        [("first_seen", true), ("verified", true), ("first_seen", false), ("approved", false)],
        "{log}"
    );
    chat.end().await
}

#[tokio::test]
async fn a_distrusted_device_gets_nothing_and_is_not_delivered() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("distrusted-device").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { world, alice, bob, room } = &chat;
    let (ghost, jid) = (world.ghost_of(bob.jid()), chat.alices_jid());
    let laptop = chat.bobs_laptop().await?;
    laptop.send(&jid, "Hello from the laptop", Namespace::Legacy).await?;
    alice.receives("Hello from the laptop").await?;
    alice.send(room, "To both").await?;
    bob.receives("To both").await?;
    laptop.receives("To both").await?;

    let beginning: String = laptop.fingerprint()?.chars().take(17).collect();
    chat.command(&format!("distrust {beginning}")).await?;
    chat.bot_tells_alice("is distrusted").await?;
    alice.send(room, "To the phone").await?;
    bob.receives("To the phone").await?;
    for body in ["Let me in", "Please"] {
        laptop.send(&jid, body, Namespace::Legacy).await?;
    }
    chat.bot_tells_alice("It is not delivered").await?;
    bob.send(&jid, "Do not", Namespace::Legacy).await?;
    alice.receives("Do not").await?;
    assert_eq!(texts_of(alice, &ghost), ["Hello from the laptop", "Do not"]);
    assert_eq!(laptop.texts_from(&jid), ["To both"], "a distrusted device was encrypted to");
    let keys = chat.ghosts_room_keys(&evil);
    let [before, after] = keys.as_slice() else { bail!("not two messages: {keys:?}") };
    println!("safety: device_distrusted: {} new room key", u8::from(before != after));
    assert_ne!(before, after, "the room key of before the distrust is used");

    chat.command("devices").await?;
    let listed = alice.hears(&world.bridge.bot(), "Devices of").await?.body.unwrap_or_default();
    for (device, trust) in [(bob, ": trusted on first use"), (&laptop, ": distrusted since 20")] {
        let id = device.device_id().context("a device")?;
        let fingerprint = device.fingerprint()?;
        let lines: Vec<&str> = listed.lines().collect();
        let found = lines.windows(2).any(|pair| {
            pair[0].starts_with(&format!("Device {id}{trust}")) && pair[1] == fingerprint
        });
        ensure!(found, "device {id} with {fingerprint} is not in: {listed}");
    }
    ensure!(listed.contains("Your own identity, as I have pinned it on 20"), "{listed}");

    chat.command("rotate").await?;
    chat.bot_tells_alice("keys are new").await?;
    chat.command(&format!("trust {}", laptop.fingerprint()?)).await?;
    chat.bot_tells_alice("is verified").await?;
    laptop.send(&jid, "Thank you", Namespace::Legacy).await?;
    alice.receives("Thank you").await?;
    let rotated = chat.ghosts_room_keys(&evil).pop().context("a message")?;
    ensure!(!keys.contains(&rotated), "a room key from before `rotate` is used");
    alice.send(room, "To both again").await?;
    laptop.receives("To both again").await?;
    assert_eq!(times_said(&chat, "It is not delivered"), 1);
    chat.end().await
}

#[tokio::test]
async fn keys_are_verified_by_qr_code_in_both_directions() -> Result<()> {
    let chat = Chat::open("qr").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;

    chat.command("qr").await?;
    let is_picture =
        |message: &tests::element::Shown| message.msgtype.as_deref() == Some("m.image");
    let picture = alice.message_where(SOON, is_picture).await?;
    ensure!(picture.encrypted && picture.sender == world.bridge.bot(), "{picture:?}");
    let file = picture.content.get("file").context("an encrypted file")?;
    let address = file.get("url").and_then(|url| url.as_str()).context("an address")?;
    let stored = world.homeserver.download(alice.account(), address).await?;
    ensure!(!stored.starts_with(b"\x89PNG"), "the homeserver can read the picture");
    let scanned = scan(&decrypt(&stored, file.clone())?)?;
    alice.hears(&world.bridge.bot(), &scanned).await?;
    let seen_by_bob = bob.fingerprints_of(&chat.alices_jid()).await?;
    let (id, fingerprint) = seen_by_bob.first_key_value().context("Bob sees a device")?;
    let jid = chat.alices_jid().replace('%', "%25");
    let expected = format!("xmpp:{jid}?omemo-sid-{id}={}", fingerprint.replace(' ', ""));
    assert_eq!(scanned, expected);

    let bobs = |fingerprint: &str| {
        let id = bob.device_id().unwrap_or_default();
        format!("qr xmpp:{}?omemo-sid-{id}={}", bob.jid(), fingerprint.replace(' ', ""))
    };
    chat.command(&bobs(fingerprint)).await?;
    chat.bot_tells_alice("DO NOT MATCH").await?;
    chat.command("devices").await?;
    chat.bot_tells_alice(": trusted on first use").await?;
    chat.command(&bobs(bob.fingerprint()?)).await?;
    chat.bot_tells_alice("The keys match. Newly verified devices: 1").await?;
    chat.command("devices").await?;
    chat.bot_tells_alice(": verified since 20").await?;
    chat.end().await
}

fn decrypt(mut file: &[u8], info: serde_json::Value) -> Result<Vec<u8>> {
    let info: MediaEncryptionInfo = serde_json::from_value(info)?;
    let mut decrypted = Vec::new();
    AttachmentDecryptor::new(&mut file, info)?.read_to_end(&mut decrypted)?;
    Ok(decrypted)
}

/// What a scanner reads from a picture.
fn scan(png: &[u8]) -> Result<String> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("the size of the picture")?];
    let info = reader.next_frame(&mut pixels)?;
    let (width, height) = (info.width as usize, info.height as usize);
    let at = |x: usize, y: usize| pixels.get(y * width + x).copied().unwrap_or_default();
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, at);
    let codes = picture.detect_grids();
    Ok(codes.first().context("no code in the picture")?.decode()?.1)
}
