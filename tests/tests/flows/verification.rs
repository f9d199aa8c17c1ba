//! Emoji compared across the bridge.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use axum::http::Method;
use serde_json::{Value, json};
use tests::comparison::Emoji;
use tests::evil_hs::Rule;
use tests::journal::SOON;
use tests::omemo::{Device, Received};
use tests::xmpp_server::COMPONENT;
use tests::{ElementUser, Namespace, Shield, World};

use crate::{Chat, bridge_tells};

impl Chat {
    pub(super) fn ghost(&self) -> String {
        self.world.ghost_of(self.bob.jid())
    }

    /// Both know each other already, as people do who come to compare keys.
    pub(super) async fn open_and_talk(story: &str) -> Result<Self> {
        let chat = Self::open(story).await?;
        chat.greet().await?;
        Ok(chat)
    }

    async fn greet(&self) -> Result<()> {
        self.alice.send(&self.room, "Hello").await?;
        self.bob.receives("Hello").await?;
        self.bob.send(&self.alices_jid(), "Hello to you", Namespace::Legacy).await?;
        self.alice.receives("Hello to you").await.map(drop)
    }

    /// Waits until the bridge itself says something to Bob that contains these words.
    pub(super) async fn bridge_tells_bob(&self, words: &str) -> Result<Received> {
        bridge_tells(&self.bob, words).await
    }

    /// As [`Self::bridge_tells_bob`], a second time.
    async fn bridge_tells_bob_again(&self, words: &str) -> Result<()> {
        let times = AtomicUsize::new(0);
        let says_again = |it: &Received| {
            it.sender == COMPONENT
                && it.body.contains(words)
                && times.fetch_add(1, Ordering::SeqCst) > 0
        };
        let waited = self.bob.message_where(SOON, says_again).await;
        waited.map(drop).with_context(|| format!("the bridge did not say `{words}` again"))
    }

    pub(super) async fn bob_answers(&self, word: &str) -> Result<()> {
        self.bob.send(COMPONENT, word, Namespace::Legacy).await.map(drop)
    }

    /// What Bob sees is what Alice sees, and it came encrypted from the bridge.
    pub(super) async fn both_see_the_same(&self) -> Result<Emoji> {
        let hers = self.alice.sees_emoji().await?;
        let his = self.bridge_tells_bob("Write “match” or “no match”").await?;
        ensure!(his.namespace.is_some(), "the emoji came in the clear");
        for symbol in &hers.symbols {
            ensure!(his.body.contains(symbol), "Bob does not see {symbol}");
        }
        let numbers: Vec<String> = hers.numbers.iter().map(u64::to_string).collect();
        ensure!(his.body.contains(&numbers.join(" ")), "the numbers differ");
        ensure!(his.body.contains("have not verified your devices"), "it promises too much");
        Ok(hers)
    }

    /// From Bob's wish to the end of a comparison that succeeds.
    pub(super) async fn bob_begins_and_both_match(&self) -> Result<()> {
        self.bob_answers(&format!("verify {}", self.alice.user_id())).await?;
        self.alice.accept_verification_from(&self.ghost()).await?;
        self.both_see_the_same().await?;
        self.bob_answers("match").await?;
        self.alice.says_emoji_are_the_same().await?;
        self.alice.verification_is("Done").await.map(drop)
    }

    pub(super) async fn alice_begins_and_both_see_the_same(&self) -> Result<Emoji> {
        self.alice.verify_in_room(&self.ghost(), &self.room).await?;
        self.alice.verification_is("Ready").await?;
        self.alice.compare_emoji().await?;
        self.both_see_the_same().await
    }

    async fn alice_begins_between_devices_and_both_see_the_same(&self) -> Result<Emoji> {
        self.alice_begins_between_devices().await?;
        self.both_see_the_same().await
    }

    async fn alice_begins_between_devices(&self) -> Result<()> {
        let devices = self.alice.devices_of(&self.ghost()).await?;
        let device = devices.keys().next().context("the ghost has no device")?;
        self.alice.verify_device_to_device(&self.ghost(), device).await?;
        self.alice.verification_is("Ready").await?;
        self.alice.compare_emoji().await
    }

    async fn is_interrupted_on_both_sides(&self) -> Result<()> {
        self.alice.verification_is("Cancelled").await?;
        self.bridge_tells_bob("was interrupted by a restart").await?;
        self.bot_tells_alice("was interrupted by a restart").await?;
        self.bob_answers("match").await?;
        self.bridge_tells_bob("nothing to compare").await?;
        self.nothing_was_verified().await
    }

    async fn nothing_was_verified(&self) -> Result<()> {
        ensure!(!self.alice.sees_verified(&self.ghost()).await?, "Alice sees Bob as verified");
        Ok(())
    }
}

#[tokio::test]
async fn alice_verifies_bob_in_their_room_and_sees_him_verified() -> Result<()> {
    let chat = Chat::open_and_talk("verify-in-room").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.verify_in_room(&chat.ghost(), room).await?;
    chat.bridge_tells_bob("wants to compare encryption keys").await?;
    alice.verification_is("Ready").await?;
    alice.compare_emoji().await?;
    chat.both_see_the_same().await?;
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Done").await?;
    chat.bridge_tells_bob("Verified: ").await?;
    chat.bot_tells_alice("Verified: ").await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;

    alice.exclude_insecure_devices().await?;
    bob.send(&chat.alices_jid(), "Now you know me", Namespace::Legacy).await?;
    let shown = alice.receives("Now you know me").await?;
    assert_eq!((shown.encrypted, shown.shield), (true, Some(Shield::None)));
    alice.send(room, "And you me").await?;
    bob.receives("And you me").await?;
    chat.end().await
}

#[tokio::test]
async fn alice_verifies_bob_from_device_to_device() -> Result<()> {
    let chat = Chat::open_and_talk("verify-to-device").await?;
    chat.alice_begins_between_devices_and_both_see_the_same().await?;
    let Chat { alice, .. } = &chat;
    alice.says_emoji_are_the_same().await?;
    chat.bob_answers("match").await?;
    alice.verification_is("Done").await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;
    chat.bot_tells_alice("Verified: ").await?;
    chat.end().await
}

#[tokio::test]
async fn bob_asks_for_it_and_alice_sees_his_ghost_ask() -> Result<()> {
    let chat = Chat::open_and_talk("verify-from-xmpp").await?;
    let Chat { alice, .. } = &chat;
    chat.bob_answers(&format!("verify {}", alice.user_id())).await?;
    chat.bridge_tells_bob("I have asked").await?;
    alice.accept_verification_from(&chat.ghost()).await?;
    chat.both_see_the_same().await?;
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Done").await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;
    chat.bridge_tells_bob("Verified: ").await?;
    chat.end().await
}

#[tokio::test]
async fn alice_asks_the_bot_where_her_client_has_no_button() -> Result<()> {
    let chat = Chat::open_and_talk("verify-command").await?;
    let Chat { alice, room, .. } = &chat;
    alice.send(room, "!xmpp verify").await?;
    chat.bot_tells_alice("Your client asks you now").await?;
    chat.bridge_tells_bob("wants to compare encryption keys").await?;
    alice.accept_verification_from(&chat.ghost()).await?;
    chat.both_see_the_same().await?;
    alice.says_emoji_are_the_same().await?;
    chat.bob_answers("match").await?;
    alice.verification_is("Done").await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;
    chat.end().await
}

#[tokio::test]
async fn a_mismatch_on_either_side_ends_it_on_both() -> Result<()> {
    let chat = Chat::open_and_talk("verify-mismatch").await?;
    let Chat { alice, .. } = &chat;
    chat.alice_begins_and_both_see_the_same().await?;
    chat.bob_answers("no match").await?;
    assert_eq!(alice.verification_is("Cancelled").await?.as_deref(), Some("m.mismatched_sas"));
    chat.bot_tells_alice("Your contact did not see the same").await?;
    chat.bridge_tells_bob("it was not the same on both sides").await?;
    chat.nothing_was_verified().await?;
    chat.end().await
}

/// Bob looks once more before Alice has answered.
#[tokio::test]
async fn a_match_can_be_taken_back() -> Result<()> {
    let chat = Chat::open_and_talk("verify-taken-back").await?;
    let Chat { alice, .. } = &chat;
    chat.alice_begins_and_both_see_the_same().await?;
    chat.bob_answers("match").await?;
    chat.bridge_tells_bob("I wait for them").await?;
    chat.bob_answers("no match").await?;
    assert_eq!(alice.verification_is("Cancelled").await?.as_deref(), Some("m.mismatched_sas"));
    chat.bridge_tells_bob("it was not the same on both sides").await?;
    chat.nothing_was_verified().await?;
    chat.end().await
}

/// They have compared before, so the ghost's signature is there from then.
#[tokio::test]
async fn an_older_signature_lifts_no_distrust_where_a_comparison_was_lost() -> Result<()> {
    let mut chat = Chat::open_and_talk("verify-older-signature").await?;
    chat.bob_begins_and_both_match().await?;
    chat.bridge_tells_bob("Verified: ").await?;
    chat.bob_answers("distrust").await?;
    chat.bridge_tells_bob("You have distrusted").await?;
    chat.bob_answers(&format!("verify {}", chat.alice.user_id())).await?;
    chat.bridge_tells_bob_again("I have asked").await?;
    chat.alice.accept_verification_from(&chat.ghost()).await?;
    chat.bridge_tells_bob_again("Write “match” or “no match”").await?;
    chat.bob_answers("match").await?;
    chat.bridge_tells_bob_again("I wait for them").await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;

    chat.bridge_tells_bob("was interrupted by a restart").await?;
    let log = chat.world.bridge.keylog(&["show", chat.alice.user_id()]).await?;
    let by_bob = format!("contact {}", chat.bob.jid());
    let verified = log.lines().filter(|line| line.contains(&by_bob) && line.contains(" verified "));
    let verified = verified.count();
    println!("safety: older_signature: {verified} verified, of 1 that was compared");
    assert_eq!(verified, 1, "{log}");
    chat.bob_answers("security").await?;
    chat.bridge_tells_bob("istrusted").await?;
    chat.end().await
}

#[tokio::test]
async fn a_mismatch_that_alice_sees_is_told_to_bob() -> Result<()> {
    let chat = Chat::open_and_talk("verify-mismatch-alice").await?;
    let Chat { alice, .. } = &chat;
    chat.alice_begins_and_both_see_the_same().await?;
    alice.says_emoji_differ().await?;
    chat.bridge_tells_bob("they did not see the same").await?;
    chat.bob_answers("match").await?;
    chat.bridge_tells_bob("nothing to compare").await?;
    chat.nothing_was_verified().await?;
    chat.end().await
}

/// The homeserver puts a key of its own in the place of Alice's, as who wants to stand between them must.
#[tokio::test]
async fn a_key_that_is_swapped_on_its_way_never_looks_the_same() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("swapped-sas-key").await?;
    let chat = Chat::open_in(world).await?;
    chat.greet().await?;
    let Chat { alice, .. } = &chat;
    let key = vodozemac::sas::Sas::new().public_key().to_base64();
    let swapped = evil.obey(Rule::rewrite_answers(Method::GET, "/sync", move |answer| {
        let events = answer.pointer_mut("/to_device/events").and_then(Value::as_array_mut);
        let is_key = |event: &&mut Value| {
            event.get("type").is_some_and(|kind| kind == "m.key.verification.key")
        };
        let keys = events.into_iter().flatten().filter(is_key);
        keys.map(|event| event["content"]["key"] = json!(key)).count() > 0
    }));
    chat.alice_begins_between_devices().await?;
    let hers = alice.sees_emoji().await?;
    swapped.applied(1).await?;
    let his = chat.bridge_tells_bob("Write “match” or “no match”").await?;
    let numbers: Vec<String> = hers.numbers.iter().map(u64::to_string).collect();
    let same = usize::from(his.body.contains(&numbers.join(" ")));
    // Even if neither of them looks.
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Cancelled").await?;
    println!("safety: swapped_sas_key_between_people: {same} of 1 looked the same, 0 verified");
    ensure!(same == 0, "a swapped key looks the same");
    chat.nothing_was_verified().await?;
    chat.end().await
}

#[tokio::test]
async fn whoever_cancels_the_other_side_learns_it() -> Result<()> {
    let chat = Chat::open_and_talk("verify-cancel").await?;
    let Chat { alice, room, .. } = &chat;
    alice.verify_in_room(&chat.ghost(), room).await?;
    alice.verification_is("Ready").await?;
    alice.cancels_verification().await?;
    chat.bridge_tells_bob("was ended by them").await?;
    chat.nothing_was_verified().await?;
    chat.end().await
}

#[tokio::test]
async fn without_an_answer_it_times_out_on_both_sides() -> Result<()> {
    let chat = Chat::open_and_talk("verify-timeout").await?;
    let Chat { alice, .. } = &chat;
    chat.alice_begins_and_both_see_the_same().await?;
    let ended = alice.verification_is_within("Cancelled", SOON * 3).await?;
    assert_eq!(ended.as_deref(), Some("m.timeout"));
    chat.bridge_tells_bob("has taken too long").await?;
    chat.nothing_was_verified().await?;
    chat.end().await
}

#[tokio::test]
async fn a_restart_in_the_middle_ends_it_on_both_sides() -> Result<()> {
    let mut chat = Chat::open_and_talk("verify-restart").await?;
    chat.alice_begins_and_both_see_the_same().await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;
    chat.is_interrupted_on_both_sides().await?;
    chat.end().await
}

#[tokio::test]
async fn a_restart_in_the_middle_ends_one_between_devices_on_both_sides() -> Result<()> {
    let mut chat = Chat::open_and_talk("verify-devices-restart").await?;
    chat.alice_begins_between_devices_and_both_see_the_same().await?;
    chat.world.bridge.stop().await?;
    chat.world.bridge.run_connected().await?;
    chat.is_interrupted_on_both_sides().await?;
    chat.end().await
}

/// Both have seen the same, and the bridge dies before it knows that the homeserver has the ghost's signature.
#[tokio::test]
async fn a_death_after_the_ghost_has_signed_leaves_what_was_compared_verified() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("verify-signed-killed").await?;
    let mut chat = Chat::open_in(world).await?;
    chat.greet().await?;
    chat.alice_begins_and_both_see_the_same().await?;
    let upload = Rule::hold_answers(Method::POST, "/keys/signatures/upload", |_| true);
    let held = evil.obey(upload.by(&chat.ghost()));
    chat.bob_answers("match").await?;
    chat.alice.says_emoji_are_the_same().await?;
    held.applied(1).await?;
    chat.world.bridge.kill().await?;
    drop(held);
    chat.world.bridge.run_connected().await?;

    chat.alice.verification_is("Done").await?;
    chat.bridge_tells_bob("Verified: ").await?;
    chat.bot_tells_alice("was interrupted by a restart").await?;
    let log = chat.world.bridge.keylog(&["show", chat.alice.user_id()]).await?;
    let by_bob = format!("contact {}", chat.bob.jid());
    let decided = log.lines().filter(|line| line.contains(&by_bob));
    let verified = decided.filter(|line| line.contains(" verified ")).count();
    println!("safety: signed_and_killed: noted {verified} time");
    assert_eq!(verified, 1, "{log}");

    chat.alice.set_up_cross_signing().await?;
    chat.bob.send(&chat.alices_jid(), "Is it still you?", Namespace::Legacy).await?;
    chat.bridge_tells_bob("which you have verified, has changed").await?;
    chat.end().await
}

#[tokio::test]
async fn both_starting_at_once_ends_in_a_clear_state() -> Result<()> {
    let chat = Chat::open_and_talk("verify-both").await?;
    let Chat { alice, room, .. } = &chat;
    chat.bob_answers(&format!("verify {}", alice.user_id())).await?;
    chat.bridge_tells_bob("I have asked").await?;
    alice.verify_in_room(&chat.ghost(), room).await?;
    alice.verification_is("Cancelled").await?;
    chat.bridge_tells_bob("The comparison with").await?;
    chat.nothing_was_verified().await?;

    chat.alice_begins_and_both_see_the_same().await?;
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Done").await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;
    chat.end().await
}

#[tokio::test]
async fn a_match_in_the_clear_counts_for_nothing() -> Result<()> {
    let chat = Chat::open_and_talk("verify-clear").await?;
    let Chat { alice, bob, .. } = &chat;
    chat.alice_begins_and_both_see_the_same().await?;
    bob.send_plain(COMPONENT, "match").await?;
    chat.bridge_tells_bob("I take this only encrypted").await?;
    alice.says_emoji_are_the_same().await?;
    chat.nothing_was_verified().await?;
    chat.bob_answers("match").await?;
    alice.verification_is("Done").await?;
    chat.end().await
}

#[tokio::test]
async fn verifying_anew_releases_what_a_changed_identity_held() -> Result<()> {
    let chat = Chat::open_and_talk("verify-changed").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.set_up_cross_signing().await?;
    bob.send(&chat.alices_jid(), "Is it still you?", Namespace::Legacy).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    chat.bob_begins_and_both_match().await?;
    alice.receives("Is it still you?").await?;
    alice.send(room, "It is").await?;
    bob.receives("It is").await?;
    chat.end().await
}

#[tokio::test]
async fn other_contacts_are_told_before_emoji_approve_a_new_identity() -> Result<()> {
    let chat = Chat::open_and_talk("verify-changed-others").await?;
    let Chat { world, alice, bob, .. } = &chat;
    let carol = world.omemo_user("carol").await?;
    let carols_ghost = world.ghost_of(carol.jid());
    let carols_room = alice.create_chat_with(&carols_ghost).await?;
    alice.sees_join(&carols_room, &carols_ghost).await?;
    alice.send(&carols_room, "Hello, Carol").await?;
    carol.receives("Hello, Carol").await?;

    alice.set_up_cross_signing().await?;
    bob.send(&chat.alices_jid(), "Is it still you?", Namespace::Legacy).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    let is_told = |it: &Received| it.sender == COMPONENT && it.body.contains("has changed");
    ensure!(!carol.messages().iter().any(is_told), "nothing of hers has waited");
    chat.bob_begins_and_both_match().await?;
    alice.receives("Is it still you?").await?;
    carol.message_where(SOON, is_told).await.context("Carol was not told")?;
    let told = carol.messages().iter().filter(|it| is_told(it)).count();
    println!("safety: emoji_tell_others: the other contact was told {told} time");
    assert_eq!(told, 1);
    chat.end().await
}

#[tokio::test]
async fn a_device_that_alice_does_not_trust_is_shown_no_emoji() -> Result<()> {
    let chat = Chat::open_and_talk("verify-strange-device").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, &format!("!xmpp trust {}", bob.fingerprint()?)).await?;
    chat.bot_tells_alice("is verified").await?;
    let invented = Device { name: "invented", ..Device::default() };
    let invented = world.omemo_device("bob", &invented).await?;
    invented.send(&chat.alices_jid(), "I am Bob, too", Namespace::Legacy).await?;
    chat.bot_tells_alice("has a new device").await?;

    alice.verify_in_room(&chat.ghost(), room).await?;
    alice.verification_is("Ready").await?;
    alice.compare_emoji().await?;
    alice.verification_is("Cancelled").await?;
    chat.bot_tells_alice("neither verified nor approved").await?;
    chat.bridge_tells_bob("The comparison with").await?;
    let shown = |it: &&Received| it.body.contains("Write “match”");
    let shown = invented.messages().iter().chain(&bob.messages()).filter(shown).count();
    println!("safety: invented_device_sees_emoji: {shown} of 2 devices were shown the emoji");
    assert_eq!(shown, 0);
    chat.nothing_was_verified().await?;
    chat.end().await
}

#[tokio::test]
async fn a_device_that_alice_has_not_signed_compares_nothing() -> Result<()> {
    let world = World::start("verify-unsigned").await?;
    let (alice, _) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Hello").await?;
    bob.receives("Hello").await?;
    let added =
        ElementUser::log_in(&world.homeserver, alice.account(), "added", world.dir()).await?;

    added.verify_in_room(&chat.ghost(), room).await?;
    chat.bot_tells_alice("Verify your own device first").await?;
    alice.send(room, "That was not me").await?;
    bob.receives("That was not me").await?;
    let is_asked = |it: &Received| it.body.contains("compare");
    assert!(!bob.messages().iter().any(is_asked));
    chat.nothing_was_verified().await?;
    chat.end().await
}

#[tokio::test]
async fn whoever_writes_nonsense_to_the_bridge_gets_help_once() -> Result<()> {
    let chat = Chat::open_and_talk("help-once").await?;
    for body in ["I am away until Monday", "I am away until Monday, still"] {
        chat.bob_answers(body).await?;
    }
    chat.bob_answers("match").await?;
    chat.bridge_tells_bob("nothing to compare").await?;
    let helped = chat.bob.texts_from(COMPONENT);
    let helped = helped.iter().filter(|text| text.contains("What you can write to me"));
    assert_eq!(helped.count(), 1);
    chat.end().await
}
