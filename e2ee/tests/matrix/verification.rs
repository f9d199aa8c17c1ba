//! Two devices compare keys, with a homeserver between them that may lie.

use assert_matches::assert_matches;
use e2ee::matrix::{
    CancelReason, Machine, RoomEvent, SenderTrust, ShortAuthString, VerificationState,
};
use ruma::device_id;
use serde_json::json;

use super::{Homeserver, alice, ghost, mallory, person, publish, receive, room, send, users};

/// A person and a ghost who know each other's devices, and how far each has read the room.
struct Pair {
    homeserver: Homeserver,
    alice: Machine,
    ghost: Machine,
    read: [usize; 2],
    flow: String,
}

impl Pair {
    async fn meet() -> Self {
        let homeserver = Homeserver::default();
        let alice_machine = person(&homeserver, alice(), device_id!("PHONE")).await;
        let ghost_machine = person(&homeserver, ghost(), device_id!("GHOST")).await;
        for (machine, other) in [(&alice_machine, ghost()), (&ghost_machine, alice())] {
            machine.track(&users([other])).await.unwrap();
            homeserver.settle(machine).await;
        }
        let (alice, ghost) = (alice_machine, ghost_machine);
        Self { homeserver, alice, ghost, read: [0; 2], flow: String::new() }
    }

    /// Alice asks, and the ghost has read it.
    async fn ask(&mut self) {
        let content = self.alice.verification_request(ghost()).await.unwrap().unwrap();
        let id = self.homeserver.say(alice(), room(), "m.room.message", content);
        self.alice.expect_answer(ghost(), room(), &id).await.unwrap();
        self.flow = id.to_string();
        self.read_all(|event| event).await;
    }

    /// Both read what is new, altered on its way by `relay`, until nobody says anything.
    async fn read_all(&mut self, relay: impl Fn(RoomEvent) -> RoomEvent) {
        loop {
            let timeline = self.homeserver.timeline();
            if self.read == [timeline.len(); 2] {
                return;
            }
            for (machine, read) in [&self.alice, &self.ghost].into_iter().zip(&mut self.read) {
                for event in timeline.iter().skip(*read) {
                    if event.sender != machine.user_id() {
                        machine.receive_verification_event(&relay(event.clone())).await.unwrap();
                    }
                }
                *read = timeline.len();
                let messages = machine.verification_messages().await.unwrap();
                self.homeserver.carry(machine, messages).await;
            }
        }
    }

    /// The ghost accepts, Alice begins, and both have exchanged keys over this relay.
    async fn exchange_keys(&mut self, relay: impl Fn(RoomEvent) -> RoomEvent) {
        let accepted = self.ghost.accept_verification(alice(), &self.flow);
        self.homeserver.carry(&self.ghost, accepted).await;
        self.read_all(&relay).await;
        assert!(self.ghosts_state().await == Some(VerificationState::Ready));
        let begun = self.alice.begin_comparing(ghost(), &self.flow).await.unwrap();
        self.homeserver.carry(&self.alice, begun).await;
        self.read_all(&relay).await;
        let accepted = self.ghost.go_along(alice(), &self.flow);
        self.homeserver.carry(&self.ghost, accepted).await;
        self.read_all(&relay).await;
    }

    async fn confirm(&mut self) {
        let shown = [self.alices_state().await, self.ghosts_state().await].map(shown);
        for ((machine, other), shown) in
            [(&self.alice, ghost()), (&self.ghost, alice())].into_iter().zip(shown)
        {
            let numbers = shown.unwrap().numbers;
            let confirmed = machine.confirm_verification(other, &self.flow, numbers).await.unwrap();
            self.homeserver.carry(machine, confirmed).await;
        }
        self.read_all(|event| event).await;
    }

    async fn ghosts_state(&self) -> Option<VerificationState> {
        state_of(&self.ghost, alice(), &self.flow).await
    }

    async fn alices_state(&self) -> Option<VerificationState> {
        state_of(&self.alice, ghost(), &self.flow).await
    }

    async fn is_verified_by_ghost(&self) -> bool {
        self.ghost.recipient(alice()).await.unwrap().identity.unwrap().is_verified
    }
}

async fn state_of(
    machine: &Machine,
    other: &ruma::UserId,
    flow: &str,
) -> Option<VerificationState> {
    let all = machine.verifications(other).await.unwrap();
    all.into_iter().find(|it| it.flow == flow).map(|it| it.state)
}

fn shown(state: Option<VerificationState>) -> Option<ShortAuthString> {
    match state {
        Some(VerificationState::Comparing(shown)) => Some(*shown),
        _ => None,
    }
}

#[tokio::test]
async fn both_see_the_same_and_sign_each_other() {
    let mut pair = Pair::meet().await;
    pair.ask().await;
    assert!(pair.ghosts_state().await == Some(VerificationState::Requested));
    let asked = pair.ghost.verifications(alice()).await.unwrap();
    assert!(asked.iter().all(|it| it.is_device_signed && it.room.as_deref() == Some(room())));
    pair.exchange_keys(|event| event).await;
    let hers = shown(pair.alices_state().await).unwrap();
    assert!(hers == shown(pair.ghosts_state().await).unwrap());
    assert!(hers.numbers.iter().all(|number| (1000..=9191).contains(number)));
    assert!(!pair.is_verified_by_ghost().await);

    pair.confirm().await;
    let master_key = pair.alice.own_master_key().await.unwrap().unwrap();
    assert!(pair.ghosts_state().await == Some(VerificationState::Done { master_key }));
}

#[tokio::test]
async fn who_has_compared_is_verified_also_under_the_room_key_of_before() {
    let mut pair = Pair::meet().await;
    let before = send(&pair.homeserver, &pair.alice, ghost(), "before").await;
    let before = receive(&pair.homeserver, &pair.ghost, alice(), &before).await.unwrap();
    assert_matches!(before.trust, SenderTrust::Signed { is_verified: false, .. });
    pair.ask().await;
    pair.exchange_keys(|event| event).await;
    pair.confirm().await;

    let after = send(&pair.homeserver, &pair.alice, ghost(), "after").await;
    // The first sync sends the signature, the second brings it.
    pair.homeserver.sync(&pair.ghost).await;
    let after = receive(&pair.homeserver, &pair.ghost, alice(), &after).await.unwrap();
    assert_eq!(after.session_id, before.session_id);
    assert!(pair.is_verified_by_ghost().await);
    assert_matches!(after.trust, SenderTrust::Signed { is_verified: true, .. });
}

#[tokio::test]
async fn one_word_alone_verifies_nobody() {
    let mut pair = Pair::meet().await;
    pair.ask().await;
    pair.exchange_keys(|event| event).await;
    let numbers = shown(pair.ghosts_state().await).unwrap().numbers;
    let confirmed = pair.ghost.confirm_verification(alice(), &pair.flow, numbers).await.unwrap();
    pair.homeserver.carry(&pair.ghost, confirmed).await;
    pair.read_all(|event| event).await;
    assert!(pair.ghosts_state().await == Some(VerificationState::Confirmed));
    assert!(!pair.is_verified_by_ghost().await);
}

#[tokio::test]
async fn keys_that_were_swapped_on_their_way_never_look_the_same() {
    let swapped = |mut event: RoomEvent| {
        if event.event_type == "m.key.verification.key" && event.sender == alice() {
            // A key of somebody in between.
            let key = "kNzB4TEpNSQHPy5lEFzbkwQdvmGCJWmaQ3YUZiDZTn0";
            event.content.insert("key".to_owned(), json!(key));
        }
        event
    };
    let mut pair = Pair::meet().await;
    pair.ask().await;
    pair.exchange_keys(swapped).await;
    let (hers, his) = (pair.alices_state().await, pair.ghosts_state().await);
    let same = shown(hers).unwrap() == shown(his).unwrap();
    println!("safety: swapped_sas_key: {} of 1 looked the same", usize::from(same));
    assert!(!same, "somebody stood between them unseen");
}

#[tokio::test]
async fn what_was_not_shown_is_not_confirmed() {
    let mut pair = Pair::meet().await;
    pair.ask().await;
    pair.exchange_keys(|event| event).await;
    let seen = shown(pair.ghosts_state().await).unwrap().numbers;
    // Somebody begins anew in Alice's name, under the same flow.
    let mut begin = pair.homeserver.timeline().into_iter();
    let begin = begin.rfind(|event| event.event_type == "m.key.verification.start").unwrap();
    pair.homeserver.say(alice(), room(), &begin.event_type, begin.content);
    pair.read_all(|event| event).await;
    let accepted = pair.ghost.go_along(alice(), &pair.flow);
    pair.homeserver.carry(&pair.ghost, accepted).await;
    assert!(shown(pair.ghosts_state().await).is_none_or(|now| now.numbers != seen));

    let refused = pair.ghost.confirm_verification(alice(), &pair.flow, seen).await.unwrap();
    pair.homeserver.carry(&pair.ghost, refused).await;
    let state = pair.ghosts_state().await;
    assert!(matches!(state, Some(VerificationState::Cancelled { by_us: true, .. })));
    assert!(!pair.is_verified_by_ghost().await);
}

#[tokio::test]
async fn an_identity_that_changes_while_comparing_is_not_verified() {
    let mut pair = Pair::meet().await;
    pair.ask().await;
    pair.exchange_keys(|event| event).await;
    pair.homeserver.reset(alice());
    let other = person(&pair.homeserver, alice(), device_id!("OTHER")).await;
    publish(&pair.homeserver, &other).await;
    let query = pair.ghost.query(&users([alice()]));
    pair.homeserver.carry(&pair.ghost, vec![query]).await;

    pair.confirm().await;
    let is_done = matches!(pair.ghosts_state().await, Some(VerificationState::Done { .. }));
    println!("safety: swapped_while_comparing: {} of 1 verified", usize::from(is_done));
    assert!(!is_done);
    assert!(!pair.is_verified_by_ghost().await);
}

#[tokio::test]
async fn a_mismatch_is_told_with_its_reason() {
    let mut pair = Pair::meet().await;
    pair.ask().await;
    pair.exchange_keys(|event| event).await;
    let cancel = pair.ghost.cancel_verification(alice(), &pair.flow, CancelReason::Mismatch);
    pair.homeserver.carry(&pair.ghost, cancel).await;
    let code = "m.mismatched_sas".to_owned();
    let by = |by_us| Some(VerificationState::Cancelled { by_us, code: code.clone() });
    assert!(pair.ghosts_state().await == by(true));
    pair.read_all(|event| event).await;
    assert!(pair.alices_state().await == by(false));
}

#[tokio::test]
async fn what_is_meant_for_somebody_else_or_makes_no_sense_changes_nothing() {
    let mut pair = Pair::meet().await;
    let mut content = pair.alice.verification_request(ghost()).await.unwrap().unwrap();
    content.insert("to".to_owned(), json!(mallory()));
    pair.homeserver.say(alice(), room(), "m.room.message", content);
    for kind in ["m.key.verification.start", "m.key.verification.mac", "m.key.verification.done"] {
        let content = serde_json::from_value(json!({ "from_device": 1, "mac": [] })).unwrap();
        pair.homeserver.say(alice(), room(), kind, content);
    }
    pair.read_all(|event| event).await;
    assert!(pair.ghost.verifications(alice()).await.unwrap().is_empty());
}
