//! One person on Matrix, and a chat with each of many contacts on XMPP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use matrix_sdk::Room;
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::crowd::{self, Crowd, Heard};
use crate::journal::Journal;
use crate::omemo::{Device, Namespace, OmemoUser};
use crate::rust_user::{Happening, RustUser};
use crate::world::World;

/// Contacts on clients that share no code with the bridge, one for each form of OMEMO.
const INDEPENDENT: [(&str, Namespace); 2] =
    [("bob", Namespace::Omemo2), ("bill", Namespace::Legacy)];

/// Rooms that are made at a time.
const AT_ONCE: usize = 8;

/// Messages of one side that are on their way.
const IN_FLIGHT: usize = 64;

/// Messages that Alice writes in a chat until she looks at what came in it.
const READS_AFTER: usize = 4;

/// For ever, where a journal is only followed.
const NEVER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The people and their chats.
#[derive(Debug)]
pub struct Chats {
    alice: RustUser,
    alices_jid: String,
    crowd: Crowd,
    independent: Vec<OmemoUser>,
    rooms: Vec<Room>,
    /// The newest message of a contact in each room, until Alice has looked at it.
    unread: Mutex<BTreeMap<OwnedRoomId, OwnedEventId>>,
    from_alice: Direction,
    from_contacts: Direction,
    /// What no client, or not the bridge, could open; and what came back.
    pub failures: watch::Sender<usize>,
    /// Messages of both sides that were shown, once each.
    pub shown: watch::Sender<usize>,
    is_over: CancellationToken,
}

/// What has become of the messages that one side wrote.
#[derive(Debug)]
struct Direction {
    shown: Mutex<Shown>,
    /// Who writes has one of these for each message that is on its way.
    free: Semaphore,
}

#[derive(Debug, Default)]
struct Shown {
    written: BTreeSet<usize>,
    numbers: BTreeSet<usize>,
    twice: usize,
}

impl Direction {
    fn new() -> Self {
        Self { shown: Mutex::default(), free: Semaphore::new(IN_FLIGHT) }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a message; tells whether it is shown for the first time.
    fn show(&self, number: usize) -> bool {
        let mut shown = self.lock();
        let is_first = shown.numbers.insert(number);
        if is_first {
            self.free.add_permits(1);
        } else {
            shown.twice += 1;
        }
        is_first
    }

    /// Waits until one more may be on its way, and notes that it is.
    async fn take_off(&self, number: usize) -> Result<()> {
        self.free.acquire().await?.forget();
        self.lock().written.insert(number);
        Ok(())
    }

    fn lost(&self) -> usize {
        let shown = self.lock();
        shown.written.difference(&shown.numbers).count()
    }
}

impl Chats {
    /// So many contacts, each with a room of their own and a session with Alice.
    ///
    /// # Errors
    /// When a client or a server refuses.
    pub async fn open(world: &World, contacts: usize) -> Result<Self> {
        let alice = RustUser::start(&world.homeserver, "alice").await?;
        let peers = INDEPENDENT.get(..contacts.min(INDEPENDENT.len())).unwrap_or_default();
        let alices_jid = world.jid_of(alice.user_id());
        let members = contacts - peers.len();
        let crowd = Crowd::join(&world.xmpp, members, alices_jid.clone()).await?;
        let mut independent = Vec::new();
        for (name, namespace) in peers {
            let device = Device { speaks: &[*namespace], ..Device::default() };
            independent.push(world.omemo_device(name, &device).await?);
        }
        let jids = (0..members).map(crowd::jid_of);
        let jids = jids.chain(independent.iter().map(|peer| peer.jid().to_owned()));
        let ghosts: Vec<String> = jids.map(|jid| world.ghost_of(&jid)).collect();
        let rooms = stream::iter(&ghosts).map(|ghost| open_room(&alice, ghost)).buffered(AT_ONCE);
        let rooms = rooms.try_collect().await?;
        Ok(Self {
            alice,
            alices_jid,
            crowd,
            independent,
            rooms,
            unread: Mutex::default(),
            from_alice: Direction::new(),
            from_contacts: Direction::new(),
            failures: watch::channel(0).0,
            shown: watch::channel(0).0,
            is_over: CancellationToken::new(),
        })
    }

    /// Nobody writes anything more. What is on its way arrives.
    pub fn fall_silent(&self) {
        self.is_over.cancel();
    }

    /// Messages that both sides have written.
    pub fn written(&self) -> usize {
        self.from_alice.lock().written.len() + self.from_contacts.lock().written.len()
    }

    /// How many messages were shown to nobody, and how often one was shown again.
    pub fn lost_and_twice(&self) -> (usize, usize) {
        let lost = self.from_alice.lost() + self.from_contacts.lost();
        (lost, self.from_alice.lock().twice + self.from_contacts.lock().twice)
    }

    /// Alice writes these messages, each in the chat whose turn it is, and reads there now and then.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn alice_writes(&self, numbers: impl Iterator<Item = usize>) -> Result<()> {
        for number in numbers {
            let room = self.rooms.get(number % self.rooms.len()).context("no such room")?;
            let may_go = self.is_over.run_until_cancelled(self.from_alice.take_off(number)).await;
            let Some(may_go) = may_go else { break };
            may_go?;
            self.alice.send(room, &format!("Alice {number}")).await?;
            if number / self.rooms.len() % READS_AFTER == READS_AFTER - 1 {
                let newest = self.unread().remove(room.room_id());
                if let Some(newest) = newest {
                    self.alice.reads(room, newest).await?;
                }
            }
        }
        Ok(())
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, OwnedEventId>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contacts write these messages, each in the chat whose turn it is.
    ///
    /// # Errors
    /// When a client could not.
    pub async fn contacts_write(&self, numbers: impl Iterator<Item = usize>) -> Result<()> {
        let members = self.rooms.len() - self.independent.len();
        for number in numbers {
            let (contact, text) = (number % self.rooms.len(), format!("Contact {number}"));
            let may_go = self.is_over.run_until_cancelled(self.from_contacts.take_off(number));
            let Some(may_go) = may_go.await else { break };
            may_go?;
            match contact.checked_sub(members) {
                None => self.crowd.says(contact, text).await?,
                Some(peer) => {
                    let (_, namespace) = INDEPENDENT.get(peer).context("no such contact")?;
                    let peer = self.independent.get(peer).context("no such contact")?;
                    peer.send(&self.alices_jid, &text, *namespace).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes note of all that is shown, until a client ends.
    ///
    /// # Errors
    /// When it has.
    pub async fn watch(&self) -> Result<()> {
        let alice = follow(&self.alice.happenings, |happening| match happening {
            Happening::Message(message) if message.body.contains("could not be decrypted") => {
                self.failed();
            }
            Happening::Message(message) => {
                self.unread().insert(message.room.clone(), message.event.clone());
                self.note(&self.from_contacts, &message.body, "Contact ");
            }
            Happening::Undecryptable => self.failed(),
            Happening::Joined(..) => {}
        });
        let crowd = follow(self.crowd.heard(), |heard| match heard {
            Heard::Text(text) => self.note(&self.from_alice, text, "Alice "),
            Heard::Unreadable | Heard::Bounced => self.failed(),
        });
        let independent = self.independent.iter().map(|peer| {
            follow(peer.peer.lines(), |line| {
                if let Ok(event) = serde_json::from_str::<Value>(line) {
                    self.take_line(&event);
                }
            })
        });
        tokio::try_join!(alice, crowd, futures_util::future::try_join_all(independent))?;
        Ok(())
    }

    fn take_line(&self, event: &Value) {
        let text = |field: &str| event.get(field).and_then(Value::as_str);
        match text("event") {
            Some("message") => self.note(&self.from_alice, text("body").unwrap_or(""), "Alice "),
            Some("undecryptable" | "bounced") => self.failed(),
            _ => {}
        }
    }

    fn note(&self, direction: &Direction, text: &str, prefix: &str) {
        if let Some(number) = text.strip_prefix(prefix).and_then(|number| number.parse().ok())
            && direction.show(number)
        {
            self.shown.send_modify(|shown| *shown += 1);
        }
    }

    fn failed(&self) {
        self.failures.send_modify(|failures| *failures += 1);
    }
}

async fn open_room(alice: &RustUser, ghost: &str) -> Result<Room> {
    let room = alice.create_chat_with(ghost).await?;
    alice.sees_join(room.room_id(), ghost).await?;
    Ok(room)
}

/// Shows every entry of a journal, old and new, until nobody writes it any more.
async fn follow<T>(journal: &Journal<T>, mut each: impl FnMut(&T)) -> Result<()> {
    let mut seen = 0;
    loop {
        let news = journal.wait_until("anything", NEVER, |all| {
            all.get(seen..).unwrap_or_default().iter().for_each(&mut each);
            let is_news = all.len() > seen;
            seen = all.len();
            is_news.then_some(())
        });
        news.await?;
    }
}
