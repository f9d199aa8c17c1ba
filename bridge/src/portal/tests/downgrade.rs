use super::*;
use crate::{config::PlaintextFromContacts, portal::content::PLAINTEXT_MARK, store::RemoteHistory};

fn said_by_bob(body: &str, security: LegSecurity) -> RemoteEventKind {
    let content = MessageContent::Text { body: body.to_owned() };
    RemoteEventKind::Message { id: None, content, security }
}

async fn refusing() -> World {
    let policy = PolicyConfig {
        plaintext_from_contacts: PlaintextFromContacts::Refuse,
        ..PolicyConfig::default()
    };
    World::with_policy(policy).await
}

impl World {
    async fn bob_says(&self, body: &str, security: LegSecurity) {
        self.bob(&chat(), said_by_bob(body, security)).await;
    }

    /// What the bridge itself has told Bob.
    pub(super) fn told_bob(&self) -> Vec<String> {
        let sent = self.remote.sent.lock().unwrap();
        let own = sent.iter().filter(|(chat, _)| chat.local == Author::Bridge);
        own.map(|(_, text)| text.clone()).collect()
    }
}

#[tokio::test]
async fn plaintext_is_marked_in_a_plain_room_once_the_chat_was_encrypted() {
    let world = World::new().await;
    world.bob_says("before", LegSecurity::Plaintext).await;
    world.bob_says("secret", ENCRYPTED).await;
    assert_eq!(world.portal().await.history, RemoteHistory::Encrypted);
    world.bob_says("after", LegSecurity::Plaintext).await;
    let said = world.said().await;
    for body in ["before", "secret", &format!("{PLAINTEXT_MARK}after")] {
        assert!(said.iter().any(|said| said == body), "{body} is not in {said:?}");
    }
    let unmarked = said.iter().filter(|said| *said == "after").count();
    println!("safety: plaintext_in_a_plain_room: {unmarked} of 1 messages unmarked");
    assert_eq!(unmarked, 0);
}

#[tokio::test]
async fn what_alice_has_sent_encrypted_counts_too_and_survives_a_restart() {
    let mut world = refusing().await;
    world.alice_says("$1", "secret").await;
    world.restart();
    world.bob_says("open", LegSecurity::Plaintext).await;
    assert!(!world.said().await.iter().any(|said| said.contains("open")));
}

#[tokio::test]
async fn refused_plaintext_is_told_to_both_sides_once_until_something_encrypted_comes() {
    let mut world = refusing().await;
    world.bob_says("never encrypted", LegSecurity::Plaintext).await;
    assert!(world.said().await.iter().any(|said| said == "never encrypted"));
    world.bob_says("secret", ENCRYPTED).await;
    let tellings = async |world: &World| {
        let to_alice = world.said().await.iter().filter(|said| said.contains("refused")).count();
        let not_delivered = |told: &&String| told.contains("was not delivered");
        (to_alice, world.told_bob().iter().filter(not_delivered).count())
    };
    for body in ["open 1", "open 2"] {
        world.bob_says(body, LegSecurity::Plaintext).await;
    }
    world.restart();
    world.bob_says("open 3", LegSecurity::Plaintext).await;
    assert_eq!(tellings(&world).await, (1, 1));
    world.bob_says("secret again", ENCRYPTED).await;
    world.bob_says("open 4", LegSecurity::Plaintext).await;
    assert_eq!(tellings(&world).await, (2, 2));
    let said = world.said().await;
    let passed = said.iter().filter(|said| said.contains("open")).count();
    println!("safety: refused_plaintext: {passed} of 4 messages delivered, told 1 time each");
    assert_eq!(passed, 0, "{said:?}");
    assert!(!world.told_bob().iter().any(|told| told.contains("open")), "no content in the clear");
}

#[tokio::test]
async fn consent_to_plaintext_ends_in_the_commit_that_used_encryption() {
    let world = World::new().await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Allow);
    // What a crash right after the network's commit leaves behind.
    world.alice_writes("$1", "hi").await;
    let mut tx = world.db.read().await.unwrap();
    let row = tx.matrix_inbox().load_pending(&room(), None, 1).await.unwrap().pop().unwrap();
    drop(tx);
    let message = OutgoingMessage {
        inbox: Some(row.id),
        chat: chat(),
        id: RemoteMessageId::new("m1"),
        content: MessageContent::Text { body: "hi".to_owned() },
        security: LegSecurity::Plaintext,
        plaintext: PlaintextPolicy::Allow,
    };
    world.remote.send(message).await.unwrap();
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);
    assert_eq!(world.portal().await.history, RemoteHistory::Encrypted);
}
