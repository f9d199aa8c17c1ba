//! A thousand messages between two people over a network that loses and reorders.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::RngCore as _};

use super::people::{Person, alice, bob, rng, text, words};
use crate::omemo::{Answer, EncryptedElement, Namespace, Payload, limits::MAX_RECEIVING_CHAINS};

const MESSAGES: u32 = 1000;

/// No message is overtaken by more younger ones than this. Each may have come in a ratchet chain
/// of its own, and a session keeps its newest chain and this many old ones.
const MAX_OVERTAKEN: usize = MAX_RECEIVING_CHAINS - 1;

/// More messages than this are never on their way to one person.
const WINDOW: usize = 8;

/// A message on its way.
struct InFlight {
    said: String,
    element: EncryptedElement,
    /// How many younger ones have been delivered before it.
    overtaken: usize,
}

struct World {
    people: [Person; 2],
    /// On their way to the person of the same index.
    in_flight: [Vec<InFlight>; 2],
    dice: ChaCha20Rng,
    namespace: Namespace,
    loss_percent: u32,
    heard: u32,
}

impl World {
    fn roll(&mut self, sides: u32) -> u32 {
        self.dice.next_u32() % sides
    }

    fn send(&mut self, speaker: usize, payload: &Payload, words: &str) {
        let [alice, bob] = &mut self.people;
        let (sender, receiver) = if speaker == 0 { (alice, bob) } else { (bob, alice) };
        let element = sender.send(receiver, payload);
        if self.roll(100) >= self.loss_percent {
            let said = words.to_owned();
            self.in_flight[1 - speaker].push(InFlight { said, element, overtaken: 0 });
        }
    }

    /// Delivers one message to the listener: any, or the oldest when it may wait no longer.
    fn deliver(&mut self, listener: usize) {
        let waiting = self.in_flight[listener].len();
        let Some(oldest) = self.in_flight[listener].first() else { return };
        // The oldest has been overtaken as often as any that left after it.
        let position = if waiting >= WINDOW || oldest.overtaken == MAX_OVERTAKEN {
            0
        } else {
            usize::try_from(self.roll(u32::try_from(waiting).unwrap())).unwrap()
        };
        let InFlight { said, element, .. } = self.in_flight[listener].remove(position);
        for older in &mut self.in_flight[listener][..position] {
            older.overtaken += 1;
        }
        let [alice, bob] = &mut self.people;
        let (receiver, sender) = if listener == 0 { (alice, bob) } else { (bob, alice) };
        let decrypted = receiver.receive(sender, &element).expect("every message opens");
        assert_eq!(decrypted.plaintext.as_ref().map_or(String::new(), words), said);
        assert!(receiver.receive(sender, &element).is_err(), "and opens once");
        self.heard += u32::from(!said.is_empty());
        if decrypted.answer == Answer::Due && self.roll(2) == 0 {
            self.send(listener, &Payload::Empty(self.namespace), "");
        }
    }

    fn run(mut self) -> u32 {
        for number in 0..MESSAGES {
            let speaker = usize::try_from(self.roll(2)).unwrap();
            let said = format!("message {number}");
            self.send(speaker, &text(self.namespace, &said), &said);
            for listener in [0, 1] {
                while self.in_flight[listener].len() >= WINDOW || self.roll(3) == 0 {
                    self.deliver(listener);
                    if self.in_flight[listener].is_empty() {
                        break;
                    }
                }
            }
        }
        while self.in_flight.iter().any(|waiting| !waiting.is_empty()) {
            self.deliver(0);
            self.deliver(1);
        }
        self.heard
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn what_arrives_opens_once(seed in any::<u64>(), loss_percent in 0_u32..40) {
        for namespace in Namespace::ALL {
            let world = World {
                people: [alice(), bob()],
                in_flight: [Vec::new(), Vec::new()],
                dice: rng(seed),
                namespace,
                loss_percent,
                heard: 0,
            };
            let heard = world.run();
            prop_assert!(heard > MESSAGES / 3);
            prop_assert!(loss_percent > 0 || heard == MESSAGES);
        }
    }
}
