use super::*;
use crate::network::{Answer, Inquiry};
use crate::portal::leg_changes::Direction;

const VERIFIED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Verified };

/// How often the bot has said something with these words.
async fn times_said(world: &World, words: &str) -> usize {
    world.said().await.iter().filter(|text| text.contains(words)).count()
}

#[tokio::test]
async fn a_contacts_weaker_leg_is_told_once_until_something_is_decided() {
    let world = World::new().await;
    let (strange, plain) = ("has written from a device that you", "has written without encryption");
    world.bob(&chat(), message(ENCRYPTED)).await;
    world.bob(&chat(), message(VERIFIED)).await;
    assert_eq!(times_said(&world, "has written").await, 0, "it was no worse before");
    for _ in 0..2 {
        world.bob(&chat(), message(ENCRYPTED)).await;
        world.bob(&chat(), message(LegSecurity::Plaintext)).await;
        world.bob(&chat(), message(VERIFIED)).await;
    }
    assert_eq!(times_said(&world, strange).await, 1);
    assert_eq!(times_said(&world, plain).await, 1);

    *world.remote.devices.lock().unwrap() = vec![device("7", &"a".repeat(64))];
    world.command(IdentityTrust::Pinned, &format!("trust {}", "a".repeat(64))).await;
    // The decision has woken the chat's own worker: it may have taken the message, and be about to tell.
    let told_again = async {
        world.bob(&chat(), message(LegSecurity::Plaintext)).await;
        while times_said(&world, plain).await < 2 {
            world.drain(&chat()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told_again).await.unwrap();
    assert_eq!(times_said(&world, plain).await, 2);
}

#[tokio::test]
async fn what_goes_to_the_contact_is_told_when_it_becomes_weaker_and_when_it_is_encrypted_again() {
    let world = World::new().await;
    let portal = world.portal().await;
    let goes = async |leg| world.hub.note_leg(&portal, Direction::ToContact, leg).await.unwrap();
    for leg in [VERIFIED, ENCRYPTED, LegSecurity::Plaintext, ENCRYPTED, LegSecurity::Plaintext] {
        goes(leg).await;
        goes(leg).await;
    }
    assert_eq!(times_said(&world, "a device of your contact that you have not compared").await, 1);
    assert_eq!(times_said(&world, "leaves the bridge unencrypted from now on").await, 2);
    assert_eq!(times_said(&world, "encrypted between the bridge and your contact again").await, 1);
}

#[tokio::test]
async fn a_contacts_message_says_to_machines_how_both_legs_were_protected() {
    let world = World::new().await;
    world.bob(&chat(), message(VERIFIED)).await;
    let mut tx = world.db.read().await.unwrap();
    let rows = tx.matrix_outbox().load_pending(&room(), 100).await.unwrap();
    let content: Value = serde_json::from_str(&rows[0].event.content).unwrap();
    let legs = json!({ "matrix": { "encrypted": false },
        "remote": { "encrypted": true, "protocol": "any", "identity": "verified" } });
    assert_eq!(content["dev.gephyra.leg_security"], legs);
}

#[tokio::test]
async fn a_contact_learns_only_of_people_who_have_joined_a_chat_with_them() {
    let world = World::new().await;
    let (bob, eve) = (chat().contact, RemoteUserId::new("eve@example.net"));
    let carol = user_id!("@carol:example.org");
    let nothing = |answer: Result<Answer, StepError>| matches!(answer, Ok(Answer::Text(text)) if text == "You have no chat with them through this bridge.");
    let inquiries = [Inquiry::Security, Inquiry::Devices, Inquiry::Pending, Inquiry::Verify];
    let mut learnt = 0;
    for inquiry in inquiries {
        for (contact, about) in [(&eve, Some(alice())), (&eve, None), (&bob, Some(carol))] {
            let answer = world.hub.answer_inquiry(contact, inquiry, about).await;
            learnt += usize::from(!nothing(answer));
        }
    }
    let mut tx = world.db.begin().await.unwrap();
    tx.portals().set_state(&room(), PortalState::Pending).await.unwrap();
    tx.commit().await.unwrap();
    for inquiry in inquiries {
        let answer = world.hub.answer_inquiry(&bob, inquiry, Some(alice())).await;
        learnt += usize::from(!nothing(answer));
    }
    println!("safety: strangers_inquiries: {learnt} of 16 answers told something");
    assert_eq!(learnt, 0);
}

#[tokio::test]
async fn in_the_clear_a_contact_may_ask_and_decides_nothing() {
    let world = World::new().await;
    let eve = RemoteUserId::new("eve@example.net");
    let to_bridge = ChatKey { local: Author::Bridge, contact: eve };
    for word in ["devices", "security @alice:example.org", "verify", "match", "no match"] {
        let content = MessageContent::Text { body: word.to_owned() };
        let security = LegSecurity::Plaintext;
        world.bob(&to_bridge, RemoteEventKind::Message { id: None, content, security }).await;
    }
    let sent = world.remote.sent.lock().unwrap().clone();
    let refused = sent.iter().map(|(_, text)| text.contains("I take this only encrypted"));
    assert_eq!(refused.collect::<Vec<_>>(), [false, false, true, true, true]);
}

#[tokio::test]
async fn what_a_contact_was_told_waits_for_nobody_who_is_being_told() {
    let world = World::new().await;
    let portal = world.portal().await;
    world.hub.introduce(&portal, ENCRYPTED).await.unwrap();
    let told = world.told_bob();
    // Somebody whose server is slow to answer holds the same lock.
    let again = world.hub.introduce(&portal, ENCRYPTED);
    let again = world.hub.telling_contacts.alone((portal.contact.as_str(), "first"), again);
    let again = tokio::time::timeout(Duration::from_secs(20), again).await;
    again.expect("nothing is to be told").unwrap();
    assert_eq!((told.len(), world.told_bob()), (1, told));
}
