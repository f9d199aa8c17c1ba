//! What a contact decides about a person, by messages to the bridge itself.

use std::{future::poll_fn, pin::pin, task::Poll};

use ruma::owned_user_id;

use super::*;
use crate::store::{ContactTrust, KeyEvent};

pub(super) const KEY: &str = "xQjyUcDvMjNVRgEyWUmbRgdfbKuCEVqTSyRTbYqAlQg";
pub(super) const NEW_KEY: &str = "VwKWtkNpDRJLwVz5yGYuGrCbhtFJ8OkAx2bnjiJkmno";
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl World {
    /// Alice's identity is known, and Bob and she have talked.
    pub(super) async fn with_identity() -> Self {
        let world = Self::new().await;
        world.alice_presents(KEY).await;
        world
    }

    pub(super) async fn alice_presents(&self, key: &str) {
        let mut tx = self.db.begin().await.unwrap();
        let _ = tx.pins().pin_or_check(alice(), key, 1).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Bob writes to the bridge over encryption; gives what it answers.
    pub(super) async fn bob_tells(&self, text: &str) -> Vec<String> {
        self.bob_tells_over(ENCRYPTED, text).await
    }

    async fn bob_tells_over(&self, security: LegSecurity, text: &str) -> Vec<String> {
        let before = self.told_bob().len();
        let content = MessageContent::Text { body: text.to_owned() };
        let chat = ChatKey { local: Author::Bridge, contact: chat().contact };
        self.bob(&chat, RemoteEventKind::Message { id: None, content, security }).await;
        self.told_bob().split_off(before)
    }

    async fn bob_writes(&self, text: &str) {
        let content = MessageContent::Text { body: text.to_owned() };
        let kind = RemoteEventKind::Message { id: None, content, security: ENCRYPTED };
        self.bob(&chat(), kind).await;
    }

    /// Both directions are worked on.
    async fn work(&self) {
        Drain::<OwnedRoomId>::drain(&*self.hub, &room()).await;
        self.drain(&chat()).await;
    }

    /// What has crossed: to Bob, and to Alice.
    async fn crossed(&self) -> (Vec<String>, Vec<String>) {
        let sent = self.remote.sent.lock().unwrap().clone();
        let hers = sent.into_iter().filter(|(chat, _)| chat.local != Author::Bridge);
        let hers = hers.map(|(_, text)| text).collect();
        let mut tx = self.db.read().await.unwrap();
        let rows = tx.matrix_outbox().load_pending(&room(), 100).await.unwrap();
        let ghost = owned_user_id!("@any_bob=40example.net:example.org");
        let his = rows.iter().filter(|row| row.event.user_id == ghost).map(|row| {
            let content: Value = serde_json::from_str(&row.event.content).unwrap();
            content["body"].as_str().unwrap().to_owned()
        });
        (hers, his.collect())
    }

    /// Waits until this has crossed to Bob and to Alice: the queues are at work too.
    async fn comes_to_cross(&self, to_bob: &[&str], to_alice: &[&str]) {
        let crosses = async {
            loop {
                let (his, hers) = self.crossed().await;
                if his == to_bob && hers == to_alice {
                    return;
                }
                self.work().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), crosses).await.expect("it crosses in time");
    }

    /// How often Alice, and Bob, were told something with these words.
    async fn times_told(&self, alice: &str, bob: &str) -> (usize, usize) {
        let said = self.said().await;
        let to_alice = said.iter().filter(|text| text.contains(alice)).count();
        let to_bob = self.told_bob().iter().filter(|text| text.contains(bob)).count();
        (to_alice, to_bob)
    }

    /// What the key log says that Bob has decided: event and key.
    pub(super) async fn decided(&self) -> Vec<(String, String)> {
        let mut tx = self.db.read().await.unwrap();
        let rows = tx.key_log().load_about(alice().as_str()).await.unwrap();
        let his = rows.into_iter().filter(|row| row.decided_by == "contact bob@example.net");
        his.map(|row| (row.event, row.public_key)).collect()
    }
}

pub(super) fn decision(event: KeyEvent, key: &str) -> (String, String) {
    (event.as_str().to_owned(), key.to_owned())
}

#[tokio::test]
async fn distrust_holds_both_directions_until_trust_releases_them_in_order() {
    let mut world = World::with_identity().await;
    let answer = world.bob_tells("distrust @alice:example.org").await;
    assert!(answer[0].contains("nothing crosses between you in either direction"), "{answer:?}");
    for (id, text) in [("$1", "one"), ("$2", "two")] {
        world.alice_says(id, text).await;
        world.bob_writes(&format!("{text} to you")).await;
    }
    world.restart();
    world.work().await;
    let (to_bob, to_alice) = world.crossed().await;
    let told = world.times_told("has distrusted your", "You have distrusted").await;
    println!(
        "safety: contact_distrust: {} of 2 to and {} of 2 from the contact delivered, told {} time \
         and {} time",
        to_bob.len(),
        to_alice.len(),
        told.0,
        told.1
    );
    assert_eq!((to_bob.len(), to_alice.len(), told), (0, 0, (1, 1)));
    let pending = world.command(IdentityTrust::Pinned, "pending").await;
    for words in ["of your contact, until they trust you again", "only they can end that"] {
        assert!(pending.contains(words), "{pending}");
    }
    let again = world.bob_tells("distrust").await;
    assert!(again[0].contains("before"), "{again:?}");

    let answer = world.bob_tells(&format!("trust @alice:example.org {KEY}")).await;
    let words = "What waited because of that is on its way";
    assert!(answer.iter().any(|text| text.contains(words)), "{answer:?}");
    world.comes_to_cross(&["one", "two"], &["one to you", "two to you"]).await;
    let decided = [KeyEvent::Distrusted, KeyEvent::Verified].map(|event| decision(event, KEY));
    assert_eq!(world.decided().await, decided);

    // It is told anew when it happens anew.
    world.bob_tells("distrust").await;
    assert_eq!(world.times_told("has distrusted your", "You have distrusted").await.0, 2);
}

#[tokio::test]
async fn a_person_cannot_overrule_a_contacts_distrust() {
    let world = World::with_identity().await;
    world.bob_tells("distrust").await;
    world.alice_says("$1", "hear me").await;
    world.bob_writes("nobody hears me").await;
    let mut overruled = 0;
    for attempt in [
        "approve",
        "plaintext allow",
        "rotate",
        "new identity",
        "approve me",
        "approve",
        "the old identity",
        "approve me",
    ] {
        match attempt {
            "new identity" => world.alice_presents(NEW_KEY).await,
            "the old identity" => world.alice_presents(KEY).await,
            command => {
                let portal = world.portal().await;
                let call = Call {
                    hub: &world.hub,
                    sender: alice(),
                    room: &portal.room_id,
                    encryption: portal.encryption,
                    portal: Some(&portal),
                    security: ENCRYPTED,
                    identity: Some(NEW_KEY),
                };
                let answer = commands::run(&call, command).await;
                let is_told = answer.contains("no approval of yours ends that");
                assert!(is_told || !command.starts_with("approve"), "{command}: {answer}");
            }
        }
        world.work().await;
        let (to_bob, to_alice) = world.crossed().await;
        overruled += usize::from(!to_bob.is_empty() || !to_alice.is_empty());
    }
    println!(
        "safety: distrust_overruled: {overruled} of 8 attempts of the person let a message pass"
    );
    assert_eq!(overruled, 0);
}

#[tokio::test]
async fn a_new_identity_needs_a_trust_of_its_own() {
    let world = World::with_identity().await;
    world.bob_tells("distrust").await;
    world.alice_says("$1", "hear me").await;
    world.alice_presents(NEW_KEY).await;
    for (key, why) in [(KEY, "has changed"), (NEW_KEY, "has changed")] {
        let answer = world.bob_tells(&format!("trust {key}")).await;
        assert!(
            answer[0].starts_with("Nothing has changed") && answer[0].contains(why),
            "{answer:?}"
        );
    }
    assert!(world.hub.approve_person(alice(), NEW_KEY).await.unwrap());
    let told = world.told_bob();
    let words = "whom you have distrusted, has changed";
    assert!(told.iter().any(|text| text.contains(words)), "{told:?}");
    world.work().await;
    assert_eq!(world.crossed().await.0, [""; 0]);
    let answer = world.bob_tells(&format!("trust {KEY}")).await;
    assert!(answer[0].contains("not the fingerprint"), "{answer:?}");
    world.bob_tells(&format!("trust {NEW_KEY}")).await;
    world.comes_to_cross(&["hear me"], &[]).await;
}

#[tokio::test]
async fn only_the_whole_fingerprint_of_the_pinned_identity_is_trusted() {
    let world = World::with_identity().await;
    let (beginning, swapped) = (KEY.split_at(42).0, KEY.to_lowercase());
    for (typed, words) in [
        ("", "Write “trust @alice:example.org”"),
        (beginning, "whole fingerprint"),
        (&*swapped, "not the fingerprint"),
        (NEW_KEY, "not the fingerprint"),
        (&format!("{KEY}A"), "not the fingerprint"),
    ] {
        let answer = world.bob_tells(&format!("trust @alice:example.org {typed}")).await;
        assert!(answer.len() == 1 && answer[0].contains(words), "{typed}: {answer:?}");
    }
    let answer = world.bob_tells(&format!("trust @eve:example.org {KEY}")).await;
    assert!(answer[0].contains("no chat"), "{answer:?}");
    let wrong = world.decided().await.len();
    println!("safety: wrong_fingerprint: {wrong} of 5 wrong fingerprints trusted by a contact");
    assert_eq!(wrong, 0);

    let (first, second) = KEY.split_at(20);
    let in_groups = format!("{first} {second}");
    let answer = world.bob_tells(&format!("Trust @alice:example.org {in_groups}=")).await;
    assert!(answer[0].contains("trust it"), "{answer:?}");
    let again = world.bob_tells(&format!("trust {KEY}")).await;
    assert!(again[0].contains("before"), "{again:?}");
    assert_eq!(world.decided().await, [decision(KeyEvent::Verified, KEY)]);
    assert_eq!(world.times_told("has compared the fingerprint", "").await.0, 1);
    let listed = world.command(IdentityTrust::Pinned, "devices").await;
    assert!(listed.contains("Your contact has compared it with you, on 1970"), "{listed}");
}

#[tokio::test]
async fn in_the_clear_a_contact_decides_nothing_about_a_person() {
    let world = World::with_identity().await;
    let commands =
        [format!("trust {KEY}"), "distrust".to_owned(), format!("trust @alice:example.org {KEY}")];
    let mut refused = 0;
    for command in &commands {
        let answer = world.bob_tells_over(LegSecurity::Plaintext, command).await;
        refused += usize::from(answer[0].starts_with("I take this only encrypted"));
    }
    let taken = world.decided().await.len();
    println!(
        "safety: decisions_in_the_clear: {taken} of 3 taken, {refused} of 3 refused with a word"
    );
    assert_eq!((taken, refused), (0, 3));
    world.alice_says("$1", "hello").await;
    assert_eq!(world.crossed().await.0, ["hello"]);
}

#[tokio::test]
async fn a_verified_identity_that_changes_is_told_as_such_to_both_and_its_trust_ends() {
    for is_verified in [true, false] {
        let world = World::with_identity().await;
        if is_verified {
            world.bob_tells(&format!("trust {KEY}")).await;
        }
        world.alice_presents(NEW_KEY).await;
        for _ in 0..2 {
            world.hub.tell_identity_changed(&world.portal().await).await.unwrap();
        }
        let words =
            ("which your contact has verified, has changed", "which you have verified, has");
        let times = usize::from(is_verified);
        assert_eq!(world.times_told(words.0, words.1).await, (times, times));
        assert_eq!(world.times_told("has changed", "has changed").await, (1, 1));
        assert!(world.hub.approve_person(alice(), NEW_KEY).await.unwrap());
        let listed = world.command(IdentityTrust::Pinned, "devices").await;
        assert!(!listed.contains("Your contact has compared"), "{listed}");
    }
}

#[tokio::test]
async fn what_waits_because_of_distrust_is_given_up_in_time() {
    let world = World::with_identity().await;
    world.bob_tells("distrust").await;
    world.alice_says("$1", "hear me").await;
    world.bob_writes("and me").await;
    world.clock.pass(WEEK);
    world.work().await;
    let (to_alice, to_bob) = ("given up: the contact has distrusted", "you have distrusted their");
    assert_eq!(world.times_told(to_alice, to_bob).await, (2, 2), "for each direction");
    world.bob_tells(&format!("trust {KEY}")).await;
    world.work().await;
    assert_eq!(world.crossed().await, (vec![], vec![]));
}

#[tokio::test]
async fn compared_emoji_lift_distrust_for_the_pinned_identity_only() {
    let world = World::with_identity().await;
    world.bob_tells("distrust").await;
    let portal = world.portal().await;
    for (key, is_lifted) in [(NEW_KEY, false), (KEY, true)] {
        let mut tx = world.db.begin().await.unwrap();
        let noted = world.hub.trust_in(&mut tx, &portal, ContactTrust::Emoji, key).await;
        assert_eq!(noted.unwrap(), is_lifted);
        tx.commit().await.unwrap();
        assert_eq!(world.hub.is_distrusted(&portal).await.unwrap(), !is_lifted);
    }
}

#[tokio::test]
async fn a_contacts_word_counts_not_while_a_device_that_the_person_does_not_trust_could_have_said_it()
 {
    let world = World::with_identity().await;
    let verified = RemoteDevice { trust: DeviceTrust::Verified, ..device("1", "0123abcd") };
    world.bob_tells("distrust").await;
    assert!(world.hub.is_distrusted(&world.portal().await).await.unwrap(), "it only holds");
    world.remote.was_verified.store(true, Ordering::SeqCst);
    let stolen = RemoteDevice { trust: DeviceTrust::Distrusted, ..verified.clone() };
    for devices in [vec![verified.clone(), device("2", "4567ef01")], vec![stolen]] {
        *world.remote.devices.lock().unwrap() = devices;
        let answer = world.bob_tells(&format!("trust {KEY}")).await;
        assert!(answer[0].contains("they do not trust all the devices"), "{answer:?}");
        assert!(world.hub.is_distrusted(&world.portal().await).await.unwrap());
    }
    *world.remote.devices.lock().unwrap() = vec![verified];
    world.bob_tells(&format!("trust {KEY}")).await;
    assert!(!world.hub.is_distrusted(&world.portal().await).await.unwrap());
}

#[tokio::test]
async fn a_contact_learns_that_what_they_wrote_to_the_bridge_was_not_taken() {
    let hold = Hold::IdentityChanged { fingerprints: vec!["0123abcd".to_owned()] };
    for (kind, words) in [
        (RemoteEventKind::Undecryptable { reason: "the session is lost".to_owned() }, "not read"),
        (RemoteEventKind::Held(hold), "another encryption key"),
        (RemoteEventKind::Expired, "another encryption key"),
    ] {
        let world = World::with_identity().await;
        let bridges = ChatKey { local: Author::Bridge, contact: chat().contact };
        for _ in 0..2 {
            world.bob(&bridges, kind.clone()).await;
        }
        let told = world.told_bob();
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
}

#[tokio::test]
async fn a_contact_who_cannot_be_told_so_is_told_later() {
    let world = World::with_identity().await;
    let bridges = ChatKey { local: Author::Bridge, contact: chat().contact };
    let kind = RemoteEventKind::Undecryptable { reason: "the session is lost".to_owned() };
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    world.bob(&bridges, kind).await;
    assert!(world.told_bob().is_empty());
    *world.remote.takes.lock().unwrap() = Takes::Everything;
    world.drain(&bridges).await;
    assert_eq!(world.told_bob().len(), 1);
}

#[tokio::test]
async fn a_person_without_a_known_identity_is_distrusted_all_the_same() {
    let world = World::new().await;
    let answer = world.bob_tells(&format!("trust {KEY}")).await;
    assert!(answer[0].contains("no encryption identity of theirs"), "{answer:?}");
    let answer = world.bob_tells("distrust").await;
    assert!(answer[0].starts_with("You have distrusted"), "{answer:?}");
    world.alice_says("$1", "hear me").await;
    world.bob_writes("and me").await;
    assert_eq!(world.crossed().await, (vec![], vec![]));
    assert_eq!(world.decided().await, [decision(KeyEvent::Distrusted, "")]);
    let listed = world.command(IdentityTrust::Pinned, "devices").await;
    for words in ["I know no identity of yours yet", "Your contact has distrusted"] {
        assert!(listed.contains(words), "{listed}");
    }
    // Nor does an identity that is seen now lift it.
    world.alice_presents(KEY).await;
    world.work().await;
    assert_eq!(world.crossed().await, (vec![], vec![]));
    world.bob_tells(&format!("trust {KEY}")).await;
    world.comes_to_cross(&["hear me"], &["and me"]).await;
}

/// Lets work go on until it has waited so often, and ends it there as a death of the process would. Returns whether
/// it was over before.
pub(super) async fn dies_after(waits: usize, work: impl Future) -> bool {
    let (mut work, mut left) = (pin!(work), waits);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn a_distrust_is_not_lost_whenever_the_bridge_dies() {
    let to_bridge = ChatKey { local: Author::Bridge, contact: chat().contact };
    let mut deaths = 0;
    loop {
        let world = World::with_identity().await;
        let content = MessageContent::Text { body: "distrust".to_owned() };
        let word = RemoteEventKind::Message { id: None, content, security: ENCRYPTED };
        world.comes(&to_bridge, word).await;
        let is_over = dies_after(deaths, world.drain(&to_bridge)).await;
        let mut tx = world.db.read().await.unwrap();
        let is_decided = tx.contact_decisions().is_distrusted(&chat()).await.unwrap();
        let is_open = !tx.remote_inbox().pending_chats().await.unwrap().is_empty();
        assert_eq!(is_decided, !is_open, "lost, or taken twice, after {deaths} waits");
        if is_decided {
            break;
        }
        assert!(!is_over);
        deaths += 1;
    }
    println!(
        "safety: distrust_and_crash: decided, or still to be read, after each of {deaths} deaths"
    );
    assert!(deaths > 0);
}

#[tokio::test]
async fn an_identity_that_comes_again_is_told_anew_after_something_was_decided() {
    let world = World::with_identity().await;
    let portal = world.portal().await;
    let told = async || {
        world.hub.tell_identity_changed(&portal).await.unwrap();
        let said = world.told_bob();
        let of_verified = said.iter().filter(|text| text.contains("which you have verified"));
        (said.iter().filter(|text| text.contains("has changed")).count(), of_verified.count())
    };
    for _ in 0..3 {
        world.alice_presents(NEW_KEY).await;
        assert_eq!(told().await, (1, 0), "one that comes and goes is told once");
        world.alice_presents(KEY).await;
    }
    world.bob_tells(&format!("trust {KEY}")).await;
    world.alice_presents(NEW_KEY).await;
    assert_eq!(told().await, (2, 1));
    for (key, times) in [(KEY, 3), (NEW_KEY, 4)] {
        world.clock.pass(Duration::from_secs(1));
        let waiting = world.hub.waiting_identity(alice()).await.unwrap().unwrap();
        assert!(world.hub.approve_identity(alice(), &waiting).await.unwrap());
        world.alice_presents(key).await;
        assert_eq!(told().await.0, times, "the one before was approved meanwhile");
    }
}
