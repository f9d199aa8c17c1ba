//! What one OMEMO message and one session start cost, in both namespaces.

use std::{
    hint::black_box,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use criterion::{Criterion, criterion_group, criterion_main};
use e2ee::omemo::{
    Account, EncryptedElement, Machine, Namespace, OmemoChanges, Payload, Recipient, Sender,
    SessionList,
};
use minidom::Element;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const ALICE: &str = "alice%matrix.example@bridge.example";
const BOB: &str = "bob@example.org";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// A device and its sessions with the other one.
struct Side {
    jid: &'static str,
    account: Account,
    sessions: Option<SessionList>,
    rng: ChaCha20Rng,
}

impl Side {
    fn new(jid: &'static str, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Self { jid, account: Account::generate(now(), &mut rng), sessions: None, rng }
    }

    fn recipient(&self, other: &Self, namespace: Namespace) -> Recipient {
        Recipient {
            jid: other.jid.to_owned(),
            device: other.account.device_id(),
            sessions: self.sessions.clone(),
            bundle: self.sessions.is_none().then(|| other.account.bundle(namespace)),
            pinned: Some(other.account.identity_key()),
        }
    }

    fn encrypt(
        &mut self,
        recipient: Recipient,
        payload: &Payload,
    ) -> (EncryptedElement, OmemoChanges) {
        let to = recipient.jid.clone();
        let machine = Machine::new(&self.account, self.jid);
        #[expect(clippy::expect_used, reason = "a benchmark that cannot encrypt has no result")]
        let encrypted = machine
            .encrypt(&to, vec![recipient], payload, now(), &mut self.rng)
            .expect("the recipient has a session or a bundle");
        (encrypted.element, encrypted.changes)
    }

    fn decrypt(&self, from: &Self, element: &EncryptedElement) -> OmemoChanges {
        let sender = Sender {
            jid: from.jid.to_owned(),
            sessions: self.sessions.clone(),
            pinned: Some(from.account.identity_key()),
        };
        #[expect(clippy::expect_used, reason = "a benchmark that cannot decrypt has no result")]
        Machine::new(&self.account, self.jid)
            .decrypt(sender, element)
            .expect("the message is for this device")
            .changes
    }

    fn save(&mut self, changes: OmemoChanges) {
        self.account = changes.account.unwrap_or_else(|| self.account.clone());
        self.sessions = changes.sessions.into_iter().next().map(|change| change.sessions);
    }
}

fn payload(namespace: Namespace) -> Payload {
    let text = "An ordinary message of a few dozen letters.";
    match namespace {
        Namespace::Legacy => Payload::Body(text.to_owned()),
        Namespace::V2 => {
            Payload::Content(vec![Element::builder("body", "jabber:client").append(text).build()])
        }
    }
}

fn omemo(criterion: &mut Criterion) {
    for namespace in Namespace::ALL {
        let payload = payload(namespace);
        let mut group = criterion.benchmark_group(format!("omemo/{namespace:?}"));
        let (mut alice, mut bob) = (Side::new(ALICE, 1), Side::new(BOB, 2));

        let start = alice.recipient(&bob, namespace);
        group.bench_function("session start, sender", |bencher| {
            bencher.iter(|| black_box(alice.encrypt(start.clone(), &payload)));
        });
        let (first, changes) = alice.encrypt(start, &payload);
        alice.save(changes);
        group.bench_function("session start, receiver", |bencher| {
            bencher.iter(|| black_box(bob.decrypt(&alice, &first)));
        });
        bob.save(bob.decrypt(&alice, &first));
        let answer = bob.recipient(&alice, namespace);
        let (answer, changes) = bob.encrypt(answer, &payload);
        bob.save(changes);
        alice.save(alice.decrypt(&bob, &answer));
        // One more each way, so that neither side starts a new chain in what is measured.
        for _ in 0..2 {
            let (message, changes) = alice.encrypt(alice.recipient(&bob, namespace), &payload);
            alice.save(changes);
            bob.save(bob.decrypt(&alice, &message));
        }

        let recipient = alice.recipient(&bob, namespace);
        group.bench_function("encrypt", |bencher| {
            bencher.iter(|| black_box(alice.encrypt(recipient.clone(), &payload)));
        });
        let (message, _) = alice.encrypt(recipient, &payload);
        group.bench_function("decrypt", |bencher| {
            bencher.iter(|| black_box(bob.decrypt(&alice, &message)));
        });
        group.bench_function("store and load a session", |bencher| {
            bencher.iter(|| {
                let bytes = bob.sessions.as_ref().map(SessionList::to_bytes);
                let bytes = bytes.and_then(Result::ok).unwrap_or_default();
                black_box(SessionList::from_bytes(&bytes).is_ok())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, omemo);
criterion_main!(benches);
