use super::*;
use crate::{
    matrix::DecryptError,
    portal::{expiry::Vain, from_matrix::Step},
    store::PendingRemoteEvent,
};

const HOUR: Duration = Duration::from_secs(60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl World {
    async fn look_again(&self) {
        Drain::<OwnedRoomId>::drain(&*self.hub, &room()).await;
        self.drain(&chat()).await;
    }

    async fn takes(&self, takes: Takes) {
        *self.remote.takes.lock().unwrap() = takes;
    }

    /// What Alice has said, as it reached Bob.
    pub(super) fn reached_bob(&self) -> Vec<String> {
        let sent = self.remote.sent.lock().unwrap();
        let hers = sent.iter().filter(|(chat, _)| chat.local != Author::Bridge);
        hers.map(|(_, text)| text.clone()).collect()
    }

    /// How often both sides were told that something is given up: Alice, Bob.
    async fn tellings(&self) -> (usize, usize) {
        let to_alice = self.said().await.iter().filter(|said| said.contains("given up")).count();
        let sent = self.remote.sent.lock().unwrap();
        let to_bob = sent.iter().filter(|(chat, text)| {
            chat.local == Author::Bridge && text.contains("have waited for 7 days")
        });
        (to_alice, to_bob.count())
    }

    async fn open_rows(&self) -> u64 {
        let mut tx = self.db.read().await.unwrap();
        tx.matrix_inbox().count_pending(&room(), alice()).await.unwrap().messages
    }

    /// A message of Bob's that waits since 1970.
    async fn waiting_from_bob(&self) -> PendingRemoteEvent {
        let event = RemoteEvent { chat: chat(), sent_at_ms: None, kind: message(ENCRYPTED) };
        let mut tx = self.db.begin().await.unwrap();
        tx.remote_inbox().insert(&event).await.unwrap();
        tx.remote_inbox().wait_from_now((&chat(), Lane::Messages), 0).await.unwrap();
        let messages = (&chat(), Lane::Messages);
        let row = tx.remote_inbox().load_pending(messages, None, 10).await.unwrap().pop();
        tx.commit().await.unwrap();
        row.unwrap()
    }
}

#[tokio::test]
async fn what_waited_too_long_is_given_up_once_and_the_rest_goes_in_order() {
    let mut world = World::new().await;
    world.takes(Takes::Nothing).await;
    world.alice_says("$1", "one").await;
    world.alice_says("$2", "two").await;
    world.clock.pass(HOUR);
    world.alice_says("$3", "three").await;
    world.alice_says("$4", "four").await;
    world.clock.pass(WEEK - HOUR - Duration::from_millis(1));
    world.look_again().await;
    assert_eq!((world.open_rows().await, world.tellings().await), (4, (0, 0)), "not yet");

    world.clock.pass(Duration::from_millis(1));
    world.look_again().await;
    assert_eq!((world.open_rows().await, world.tellings().await), (2, (1, 1)));
    world.restart();
    world.look_again().await;
    assert_eq!((world.open_rows().await, world.tellings().await), (2, (1, 1)), "exactly once");

    world.takes(Takes::Everything).await;
    world.look_again().await;
    let reached = world.reached_bob();
    let expired = reached.iter().filter(|text| *text == "one" || *text == "two").count();
    println!("safety: expired_from_matrix: {expired} of 2 messages sent, told 1 time each");
    assert_eq!(reached, ["three", "four"]);
}

#[tokio::test]
async fn what_was_decided_while_the_bridge_was_away_counts_however_late() {
    let mut world = World::new().await;
    world.takes(Takes::Nothing).await;
    world.alice_says("$1", "one").await;
    world.clock.pass(2 * WEEK);
    world.takes(Takes::Everything).await;
    world.restart();
    world.look_again().await;
    assert_eq!(world.reached_bob(), ["one"]);
    assert_eq!(world.tellings().await, (0, 0));
}

#[tokio::test]
async fn nothing_is_given_up_by_a_clock_that_was_set_of_late() {
    let world = World::new().await;
    let portal = world.portal().await;
    world.takes(Takes::Nothing).await;
    world.alice_says("$1", "hi").await;
    let from_bob = world.waiting_from_bob().await;
    world.clock.set_ahead(2 * WEEK);
    for is_given_up in [false, true] {
        Drain::<OwnedRoomId>::drain(&*world.hub, &room()).await;
        assert_eq!(world.open_rows().await, u64::from(!is_given_up));
        let expired = world.hub.expire_from_contact(&from_bob, &portal, Vain::NoSignedDevice);
        assert_eq!(expired.await.unwrap(), is_given_up);
        let times = usize::from(is_given_up);
        assert_eq!(world.tellings().await, (2 * times, 2 * times), "once for each direction");
        world.clock.settles();
    }
}

#[tokio::test]
async fn a_room_key_may_take_a_minute_whatever_the_clock_is_set_to() {
    let world = World::new().await;
    world.alice_writes("$1", "hi").await;
    world.alice_writes("$2", "hi").await;
    let mut tx = world.db.read().await.unwrap();
    let rows = tx.matrix_inbox().load_pending(&room(), None, 2).await.unwrap();
    drop(tx);
    let portal = world.portal().await;
    let missing = async |row| {
        let missing = DecryptError::MissingRoomKey { withheld: None };
        world.hub.cannot_read(row, &portal, missing).await.unwrap()
    };
    assert_matches!(missing(&rows[0]).await, Step::Wait(_));
    world.clock.set_ahead(HOUR);
    assert_matches!(missing(&rows[0]).await, Step::Wait(_));
    world.clock.pass(Duration::from_secs(59));
    assert_matches!(missing(&rows[0]).await, Step::Wait(wait) if wait <= Duration::from_secs(1));
    assert_matches!(missing(&rows[1]).await, Step::Wait(_));
    world.clock.pass(Duration::from_secs(1));
    assert_eq!(missing(&rows[0]).await, Step::Done);
    assert_matches!(missing(&rows[1]).await, Step::Wait(_));
    let said = world.said().await;
    let told = said.iter().filter(|text| text.contains("your client did not send its key"));
    assert_eq!((told.count(), world.open_rows().await), (1, 1));
}

#[tokio::test]
async fn a_later_batch_is_told_again() {
    let world = World::new().await;
    world.takes(Takes::Nothing).await;
    for (id, pause) in [("$1", HOUR / 2), ("$2", HOUR), ("$3", HOUR)] {
        world.alice_says(id, "hi").await;
        world.clock.pass(pause);
    }
    world.clock.pass(WEEK - 5 * HOUR / 2);
    for tellings in [(1, 1), (1, 1), (2, 2)] {
        world.look_again().await;
        assert_eq!(world.tellings().await, tellings);
        world.clock.pass(HOUR * 3 / 4);
    }
    assert_eq!(world.open_rows().await, 0);
}

#[tokio::test]
async fn a_server_that_stays_away_ends_the_wait_with_its_own_words() {
    let world = World::new().await;
    world.takes(Takes::Outage).await;
    world.alice_says("$1", "hi").await;
    world.clock.pass(WEEK);
    world.look_again().await;
    assert_eq!(world.open_rows().await, 0);
    let said = world.said().await;
    assert!(said.iter().any(|text| text.contains("server does not answer")), "{said:?}");
    assert_eq!(world.tellings().await, (1, 0), "whoever cannot be reached is not told");
}

#[tokio::test]
async fn a_message_of_a_contact_is_given_up_once_both_sides_can_be_told() {
    let world = World::new().await;
    let portal = world.portal().await;
    let row = world.waiting_from_bob().await;
    assert!(!world.hub.expire_from_contact(&row, &portal, Vain::NoSignedDevice).await.unwrap());
    world.clock.pass(WEEK);
    world.takes(Takes::Outage).await;
    assert!(!world.hub.expire_from_contact(&row, &portal, Vain::NoSignedDevice).await.unwrap());
    assert_eq!(world.tellings().await, (0, 0), "its author could not be told");

    world.takes(Takes::Everything).await;
    for vain in [Vain::NoSignedDevice, Vain::OwnIdentity] {
        let row = world.waiting_from_bob().await;
        assert!(world.hub.expire_from_contact(&row, &portal, vain).await.unwrap());
    }
    assert_eq!(world.tellings().await, (1, 1));
}

#[tokio::test]
async fn what_a_device_sent_that_nobody_decided_about_is_told_as_given_up() {
    let world = World::new().await;
    for _ in 0..2 {
        world.bob(&chat(), RemoteEventKind::Expired).await;
    }
    assert_eq!(world.tellings().await, (1, 1));
    let mut tx = world.db.read().await.unwrap();
    assert!(tx.remote_inbox().pending_chats().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_event_that_waits_is_dated_when_it_is_found_to_wait() {
    let world = World::new().await;
    world.takes(Takes::Outage).await;
    world.clock.pass(HOUR);
    // Bob cannot be told yet, so the event stays.
    world.bob(&chat(), RemoteEventKind::Expired).await;
    world.clock.pass(HOUR);
    world.look_again().await;
    let mut tx = world.db.read().await.unwrap();
    let waiting = tx.remote_inbox().load_pending((&chat(), Lane::Reports), None, 10).await.unwrap();
    let since: Vec<_> = waiting.iter().map(|row| row.waits_since_ms).collect();
    assert_eq!(since, [Some(60 * 60 * 1000)]);
}

#[tokio::test]
async fn a_contact_hears_nothing_of_a_device_that_may_not_be_the_persons() {
    for (vain, tellings) in [(Vain::UnsignedDevice, (1, 0)), (Vain::OwnIdentity, (1, 1))] {
        let world = World::new().await;
        world.alice_writes("$1", "hi").await;
        world.clock.pass(WEEK);
        let mut tx = world.db.read().await.unwrap();
        let row = tx.matrix_inbox().load_pending(&room(), None, 1).await.unwrap().pop().unwrap();
        drop(tx);
        let portal = world.portal().await;
        assert!(world.hub.expire_from_person(&row, &portal, vain).await.unwrap());
        assert_eq!((world.open_rows().await, world.tellings().await), (0, tellings));
    }
}
