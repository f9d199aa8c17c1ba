//! Two people, what they wrote, and what their clients have shown them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use matrix_sdk::Room;
use serde_json::{Value, json};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::figures::Mark;
use crate::evil_hs::forger::ForgedDevice;
use crate::omemo::{Namespace, OmemoUser};
use crate::rust_user::{Happening, RustUser};
use crate::world::World;

/// Between two messages of one side.
const PACE: Duration = Duration::from_millis(500);

/// Alice on Matrix and Bob on XMPP, in a chat that Alice opened.
#[derive(Debug)]
pub struct People {
    /// Alice's client.
    pub alice: RustUser,
    /// Bob's client.
    pub bob: OmemoUser,
    /// Bob's ghost.
    pub ghost: String,
    bot: String,
    room: Room,
    alices_jid: String,
    /// Alice's messages that the homeserver has taken.
    from_alice: Mutex<usize>,
    /// The stanzas of Bob's messages.
    from_bob: Mutex<Vec<String>>,
    seen: Mutex<Seen>,
}

/// What the clients have shown, in its order. A message is known by its number.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Bob's messages at Alice.
    pub at_alice: Vec<usize>,
    /// Alice's messages at Bob.
    pub at_bob: Vec<usize>,
    /// Events that Alice's client could not open, and messages that the bridge says it could not.
    pub unreadable_at_alice: usize,
    /// Stanzas that Bob's client could not open.
    pub unreadable_at_bob: Vec<String>,
    /// Stanzas that it has opened.
    pub opened_at_bob: BTreeSet<String>,
    /// Bob's stanzas that the bridge has confirmed to have.
    pub receipts: BTreeSet<String>,
    /// Bob's stanzas that came back.
    pub bounces: BTreeSet<String>,
    pub(super) read: Read,
}

/// How far the clients' journals were read.
#[derive(Debug, Default, Clone)]
pub(super) struct Read {
    at_alice: usize,
    at_bob: usize,
}

impl Seen {
    /// Whether anything since a mark is still to be shown: what the homeserver has taken, or the bridge has confirmed.
    pub(super) fn owes(&self, mark: &Mark, sent_by_alice: usize, sent_by_bob: &[String]) -> bool {
        let set = |shown: &[usize]| shown.iter().copied().collect::<BTreeSet<_>>();
        let (at_bob, at_alice) = (set(&self.at_bob), set(&self.at_alice));
        let mut bobs = sent_by_bob.iter().enumerate().skip(mark.from_bob);
        !(mark.from_alice..sent_by_alice).all(|number| at_bob.contains(&number))
            || bobs.any(|(number, it)| self.receipts.contains(it) && !at_alice.contains(&number))
    }
}

impl People {
    /// Both write once, so that every session stands. Alice also has a device that she has not signed: it is told that
    /// it gets no room key, so that a room key is more than one request.
    ///
    /// # Errors
    /// When a client does not come up.
    pub async fn meet(world: &World) -> Result<Self> {
        let alice = RustUser::start(&world.homeserver, "alice").await?;
        add_unsigned_device(world, &alice).await?;
        let bob = world.omemo_user("bob").await?;
        let ghost = world.ghost_of(bob.jid());
        let room = alice.create_chat_with(&ghost).await?;
        alice.sees_join(room.room_id(), &ghost).await?;
        let people = Self {
            bot: world.bridge.bot(),
            alices_jid: world.jid_of(alice.user_id()),
            alice,
            bob,
            ghost,
            room,
            from_alice: Mutex::default(),
            from_bob: Mutex::default(),
            seen: Mutex::default(),
        };
        people.alice_says().await?;
        people.bob.receives("Alice 0").await?;
        for _ in Namespace::BOTH {
            let number = people.bob_says().await?;
            people.alice.receives(&format!("Bob {number}")).await?;
        }
        Ok(people)
    }

    /// Alice writes the next message; gives its number.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn alice_says(&self) -> Result<usize> {
        let number = self.sent_by_alice();
        self.alice.send(&self.room, &format!("Alice {number}")).await?;
        *lock(&self.from_alice) += 1;
        Ok(number)
    }

    /// Bob writes the next message, in one namespace after the other; gives its number.
    ///
    /// # Errors
    /// When his client could not.
    pub async fn bob_says(&self) -> Result<usize> {
        let number = lock(&self.from_bob).len();
        let namespace =
            if number.is_multiple_of(2) { Namespace::Legacy } else { Namespace::Omemo2 };
        let text = format!("Bob {number}");
        let stanza = self.bob.send(&self.alices_jid, &text, namespace).await?;
        lock(&self.from_bob).push(stanza);
        Ok(number)
    }

    /// Both write, at a steady pace, until something has come to its end.
    ///
    /// # Errors
    /// When it fails, or a client does.
    pub async fn talk_while<T>(&self, something: impl Future<Output = Result<T>>) -> Result<T> {
        let done = CancellationToken::new();
        let alice = async {
            let mut pace = interval(PACE);
            while done.run_until_cancelled(pace.tick()).await.is_some() {
                self.alice_says().await?;
            }
            anyhow::Ok(())
        };
        let bob = async {
            let mut pace = interval(PACE);
            while done.run_until_cancelled(pace.tick()).await.is_some() {
                self.bob_says().await?;
            }
            anyhow::Ok(())
        };
        let something = async {
            let ended = something.await;
            done.cancel();
            ended
        };
        let (ended, alice, bob) = tokio::join!(something, alice, bob);
        alice.and(bob)?;
        ended
    }

    /// From the next message on, Bob's ghost encrypts under a new room key.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn ask_for_new_room_key(&self) -> Result<()> {
        self.alice.send(&self.room, "!xmpp rotate").await
    }

    /// Somebody takes a one-time key of Bob's ghost, which has to be replaced.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn use_up_one_time_key(&self) -> Result<()> {
        let devices = self.alice.devices_of(&self.ghost).await?;
        let device = devices.first().context("Bob's ghost has no device")?;
        self.alice.claim_one_time_key(&self.ghost, device).await
    }

    /// Bob's client begins new sessions, each with a prekey of Alice's device on XMPP. It forgets the old ones, so nothing
    /// that was encrypted for them may be on its way.
    ///
    /// # Errors
    /// When it could not.
    pub async fn use_up_prekey(&self) -> Result<()> {
        self.bob.replace_sessions_with(&self.alices_jid).await
    }

    /// How many messages of Alice's the homeserver has taken.
    pub fn sent_by_alice(&self) -> usize {
        *lock(&self.from_alice)
    }

    /// The stanzas of Bob's messages.
    pub fn sent_by_bob(&self) -> Vec<String> {
        lock(&self.from_bob).clone()
    }

    /// What both clients have shown by now.
    pub fn look<R>(&self, reader: impl FnOnce(&Seen) -> R) -> R {
        let mut seen = lock(&self.seen);
        self.alice.happenings.read(|all| {
            all.iter().skip(seen.read.at_alice).for_each(|one| self.take_at_alice(&mut seen, one));
            seen.read.at_alice = all.len();
        });
        self.bob.peer.lines().read(|all| {
            for line in all.iter().skip(seen.read.at_bob) {
                if let Ok(event) = serde_json::from_str(line) {
                    self.take_at_bob(&mut seen, &event);
                }
            }
            seen.read.at_bob = all.len();
        });
        reader(&seen)
    }

    fn take_at_alice(&self, seen: &mut Seen, happening: &Happening) {
        match happening {
            Happening::Message(message) if message.sender == self.bot => {
                let complains = message.body.contains("could not be decrypted");
                seen.unreadable_at_alice += usize::from(complains);
            }
            Happening::Message(message) => seen.at_alice.extend(number_in(&message.body, "Bob ")),
            Happening::Undecryptable => seen.unreadable_at_alice += 1,
            Happening::Joined(..) => {}
        }
    }

    fn take_at_bob(&self, seen: &mut Seen, event: &Value) {
        let text = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        match text("event").as_deref() {
            Some("message") => {
                seen.opened_at_bob.extend(text("stanza_id"));
                let is_alice = text("sender").as_deref() == Some(&self.alices_jid);
                let body = text("body").filter(|_| is_alice);
                seen.at_bob.extend(body.and_then(|body| number_in(&body, "Alice ")));
            }
            Some("empty") => seen.opened_at_bob.extend(text("stanza_id")),
            // One without a payload tells nobody anything.
            Some("undecryptable") if event.get("empty") != Some(&json!(true)) => {
                seen.unreadable_at_bob.extend(text("stanza_id"));
            }
            Some("receipt") => seen.receipts.extend(text("of")),
            Some("bounced") => seen.bounces.extend(text("of")),
            _ => {}
        }
    }
}

fn number_in(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn add_unsigned_device(world: &World, alice: &RustUser) -> Result<()> {
    let (http, account) = (reqwest::Client::builder().build()?, alice.account());
    let url = |path: &str| format!("{}/_matrix/client/v3/{path}", world.homeserver.url());
    let device = ForgedDevice::new(&account.user_id, "UNSIGNED");
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": account.localpart },
        "password": account.password,
        "device_id": device.id(),
    });
    let session: Value = http.post(url("login")).json(&login).send().await?.json().await?;
    let token = session.get("access_token").and_then(Value::as_str).context("no access token")?;
    let keys = json!({ "device_keys": device.keys()? });
    let answer = http.post(url("keys/upload")).bearer_auth(token).json(&keys).send().await?;
    ensure!(answer.status().is_success(), "the homeserver took no second device of Alice's");
    Ok(())
}
