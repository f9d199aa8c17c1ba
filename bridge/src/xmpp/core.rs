//! What all parts of the component share.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use e2ee::omemo::{Account, DeviceId, Namespace, StateError};
use jid::BareJid;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use rand_core::CryptoRngCore;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    XmppConfig,
    address::{Addresses, NoAddress},
    adhoc::Forms,
    heal::Broken,
    link::Link,
};
use crate::{
    clock::Clock,
    network::{Author, ChatKey, Inquiries, RemoteEvents},
    queue::Queues,
    store::{Database, StoreError, Transaction},
};

/// How long a contact's server may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Questions to one server at the same time; the others wait for an answer to one of these.
pub(super) const SLOTS: usize = 64;

/// The component.
pub(super) struct Core {
    pub config: XmppConfig,
    pub addresses: Addresses,
    pub db: Database,
    pub clock: Arc<dyn Clock>,
    rng: Mutex<Box<dyn CryptoRngCore + Send>>,
    pub events: Arc<dyn RemoteEvents>,
    /// Who answers contacts that fill in forms.
    pub inquiries: Arc<dyn Inquiries>,
    /// Who fills them in.
    pub forms: Forms,
    pub link: Link,
    /// Everything that runs beside the stream.
    pub tasks: TaskTracker,
    /// Cancelled when the component is to stop.
    pub stop: CancellationToken,
    /// Sessions that are being replaced.
    healing: Mutex<HashSet<Broken>>,
    /// Decrypts what is in the inbox.
    pub inbox: Arc<Queues<ChatKey>>,
    /// This, for tasks beside the stream.
    me: Weak<Self>,
    /// Something is in the outbox.
    pub outbox_bell: Notify,
    pub seen: Seen,
}

/// What was learnt since the stream came up: only to spare questions.
#[derive(Default)]
pub(super) struct Seen(Mutex<SeenInner>);

#[derive(Default)]
struct SeenInner {
    /// Device lists that were fetched on this stream; pushes keep them fresh from then on.
    lists: HashSet<ChatKey>,
    /// Bundles that could not be had, until when not to ask again (milliseconds since 1970).
    missing: HashMap<(ChatKey, DeviceId, Namespace), u64>,
    /// Devices whose published identity was compared with the pinned one.
    checked: HashSet<(ChatKey, DeviceId)>,
    /// Contacts' clients that were told of our devices since they came online, by full JID.
    online: HashMap<String, HashSet<ChatKey>>,
    /// How many device lists each contact has pushed.
    pushes: HashMap<(ChatKey, Namespace), u64>,
    /// Servers that did not answer, until when not to ask them again (milliseconds since 1970).
    silent: HashMap<String, u64>,
    /// Who asks a server something has one of these.
    slots: HashMap<String, Arc<Semaphore>>,
    /// Whose devices of ours each JID and each server has caused to be made, and since when.
    made: HashMap<String, (u64, HashSet<Author>)>,
}

/// Devices of our users that one JID may cause to be made in [`NEW_ACCOUNTS_PERIOD_MS`].
const MAX_NEW_ACCOUNTS: usize = 50;
/// And one server, with all its users.
const MAX_NEW_ACCOUNTS_OF_SERVER: usize = 1000;
const NEW_ACCOUNTS_PERIOD_MS: u64 = 60 * 60 * 1000;

/// No question is put off for longer. What is put off until later was put off by a clock that was ahead then.
const LONGEST_PAUSE_MS: u64 = 10 * 60 * 1000;

/// Whether a question is put off until a time (both in milliseconds since 1970).
fn is_put_off(until_ms: u64, now_ms: u64) -> bool {
    until_ms > now_ms && until_ms - now_ms <= LONGEST_PAUSE_MS
}

/// How many answers are remembered before all are forgotten.
const MAX_SEEN: usize = 10_000;

impl SeenInner {
    /// Forgets answers, but not who has made how much work.
    fn forget(&mut self) {
        let made = std::mem::take(&mut self.made);
        *self = Self { made, ..Self::default() };
    }
}

impl Seen {
    fn with<T>(&self, f: impl FnOnce(&mut SeenInner) -> T) -> T {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = seen
            .lists
            .len()
            .max(seen.missing.len())
            .max(seen.checked.len())
            .max(seen.online.len())
            .max(seen.pushes.len())
            .max(seen.silent.len());
        if most > MAX_SEEN {
            seen.forget();
        }
        f(&mut seen)
    }

    pub(super) fn forget_all(&self) {
        self.with(SeenInner::forget);
    }

    pub(super) fn forget(&self, chat: &ChatKey) {
        self.with(|seen| seen.lists.remove(chat));
        self.bundles_may_be_new(chat);
    }

    /// The contact has published something: bundles are worth asking for again.
    pub(super) fn bundles_may_be_new(&self, chat: &ChatKey) {
        self.with(|seen| {
            seen.missing.retain(|(other, ..), _| other != chat);
            seen.checked.retain(|(other, _)| other != chat);
        });
    }

    pub(super) fn is_checked(&self, chat: &ChatKey, device: DeviceId) -> bool {
        self.with(|seen| seen.checked.contains(&(chat.clone(), device)))
    }

    pub(super) fn is_now_checked(&self, chat: &ChatKey, device: DeviceId) {
        self.with(|seen| seen.checked.insert((chat.clone(), device)));
    }

    /// Whether this is the first presence of a contact's client since it went offline.
    pub(super) fn is_newly_online(&self, chat: &ChatKey, client: &str) -> bool {
        self.with(|seen| seen.online.entry(client.to_owned()).or_default().insert(chat.clone()))
    }

    /// Whether this JID, or server, may cause the device of this user of ours to be made now.
    fn may_make_account(&self, requester: &str, author: &Author, most: usize, now_ms: u64) -> bool {
        self.with(|seen| {
            if seen.made.len() >= MAX_SEEN {
                let is_recent =
                    |since_ms: u64| now_ms.saturating_sub(since_ms) <= NEW_ACCOUNTS_PERIOD_MS;
                seen.made.retain(|_, (since_ms, _)| is_recent(*since_ms));
                if seen.made.len() >= MAX_SEEN {
                    return false;
                }
            }
            let made = seen.made.entry(requester.to_owned());
            let (since_ms, authors) = made.or_insert_with(|| (now_ms, HashSet::new()));
            if now_ms.saturating_sub(*since_ms) > NEW_ACCOUNTS_PERIOD_MS {
                (*since_ms, *authors) = (now_ms, HashSet::new());
            }
            if authors.len() < most {
                authors.insert(author.clone());
            }
            authors.contains(author)
        })
    }

    /// How many device lists this contact has pushed.
    pub(super) fn pushes(&self, chat: &ChatKey, namespace: Namespace) -> u64 {
        let key = (chat.clone(), namespace);
        self.with(|seen| seen.pushes.get(&key).copied().unwrap_or_default())
    }

    pub(super) fn pushed(&self, chat: &ChatKey, namespace: Namespace) {
        self.with(|seen| *seen.pushes.entry((chat.clone(), namespace)).or_default() += 1);
    }

    pub(super) fn is_silent(&self, domain: &str, now_ms: u64) -> bool {
        self.with(|seen| {
            seen.silent.get(domain).is_some_and(|until_ms| is_put_off(*until_ms, now_ms))
        })
    }

    pub(super) fn is_now_silent(&self, domain: &str, until_ms: u64) {
        self.with(|seen| seen.silent.insert(domain.to_owned(), until_ms));
    }

    /// What a question to a server needs while it is asked.
    pub(super) fn slots_of(&self, domain: &str) -> Arc<Semaphore> {
        self.with(|seen| {
            if seen.slots.len() >= MAX_SEEN {
                seen.slots.retain(|_, slots| Arc::strong_count(slots) > 1);
            }
            let slots = seen.slots.entry(domain.to_owned());
            slots.or_insert_with(|| Arc::new(Semaphore::new(SLOTS))).clone()
        })
    }

    pub(super) fn went_offline(&self, client: &str) {
        self.with(|seen| seen.online.remove(client));
    }

    pub(super) fn list_is_fresh(&self, chat: &ChatKey) {
        self.with(|seen| seen.lists.insert(chat.clone()));
    }

    pub(super) fn is_list_fresh(&self, chat: &ChatKey) -> bool {
        self.with(|seen| seen.lists.contains(chat))
    }

    pub(super) fn bundle_is_missing(
        &self,
        chat: &ChatKey,
        device: DeviceId,
        namespace: Namespace,
        until_ms: u64,
    ) {
        self.with(|seen| seen.missing.insert((chat.clone(), device, namespace), until_ms));
    }

    pub(super) fn is_bundle_missing(
        &self,
        chat: &ChatKey,
        device: DeviceId,
        namespace: Namespace,
        now_ms: u64,
    ) -> bool {
        let key = (chat.clone(), device, namespace);
        self.with(|seen| {
            seen.missing.get(&key).is_some_and(|until_ms| is_put_off(*until_ms, now_ms))
        })
    }
}

/// An OMEMO device of ours cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("stored OMEMO state cannot be read")]
    State(#[from] StateError),
}

/// An OMEMO device of ours, and whether its bundles must be published anew.
pub(super) struct LoadedAccount {
    pub account: Account,
    pub changed: bool,
}

impl Core {
    pub(super) fn new(
        config: XmppConfig,
        db: Database,
        clock: Arc<dyn Clock>,
        rng: Box<dyn CryptoRngCore + Send>,
        events: Arc<dyn RemoteEvents>,
        inquiries: Arc<dyn Inquiries>,
    ) -> Arc<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            inbox: Queues::new(me.clone(), tasks.clone(), stop.clone()),
            me: me.clone(),
            addresses: Addresses::new(config.component.clone()),
            config,
            db,
            clock,
            rng: Mutex::new(rng),
            events,
            inquiries,
            forms: Forms::default(),
            link: Link::default(),
            tasks,
            stop,
            outbox_bell: Notify::new(),
            healing: Mutex::default(),
            seen: Seen::default(),
        })
    }

    /// Starts something that the stream does not wait for, and a graceful stop does.
    pub(super) fn spawn<F>(&self, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(me) = self.me.upgrade() {
            self.tasks.spawn(task(me));
        }
    }

    pub(super) fn healing(&self) -> MutexGuard<'_, HashSet<Broken>> {
        self.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A generator of its own for one call, seeded from the injected one.
    pub(super) fn rng(&self) -> StdRng {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut seed);
        StdRng::from_seed(seed)
    }

    /// An id that nobody can guess.
    pub(super) fn random_id(&self) -> String {
        let mut bytes = [0; 16];
        self.rng().fill_bytes(&mut bytes);
        hex::encode(bytes)
    }

    /// The time as the store keeps it.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// Both addresses of a chat.
    pub(super) fn jids(&self, chat: &ChatKey) -> Result<(BareJid, BareJid), NoAddress> {
        let contact = BareJid::new(chat.contact.as_str()).map_err(|_| NoAddress)?;
        Ok((self.addresses.jid(&chat.local)?, contact))
    }

    /// The OMEMO device of an author, made on first use and kept fresh, inside a transaction.
    pub(super) async fn ensure_account_in(
        &self,
        tx: &mut Transaction,
        author: &Author,
    ) -> Result<LoadedAccount, AccountError> {
        let now = self.clock.now();
        let mut rng = self.rng();
        let loaded = match tx.xmpp_omemo().find_account(author).await? {
            Some(bytes) => {
                let mut account = Account::from_bytes(&bytes)?;
                let changed = account.maintain(now, &mut rng);
                LoadedAccount { account, changed }
            }
            None => LoadedAccount { account: Account::generate(now, &mut rng), changed: true },
        };
        if loaded.changed {
            tx.xmpp_omemo().save_account(author, &loaded.account.to_bytes()?).await?;
        }
        Ok(loaded)
    }

    /// Whether somebody may do something with a user of ours. Making a device costs room and
    /// time, so nobody makes them for thousands of names.
    pub(super) async fn admits(
        &self,
        requester: &BareJid,
        author: &Author,
    ) -> Result<bool, StoreError> {
        let exists = self.db.read().await?.xmpp_omemo().has_account(author).await?;
        let now_ms = self.clock.now_ms();
        let may_make = |who: &str, most| self.seen.may_make_account(who, author, most, now_ms);
        Ok(exists
            || may_make(requester.as_str(), MAX_NEW_ACCOUNTS)
                && may_make(requester.domain().as_str(), MAX_NEW_ACCOUNTS_OF_SERVER))
    }

    /// As [`Self::ensure_account_in`], in a transaction of its own that writes only if it must.
    pub(super) async fn ensure_account(&self, author: &Author) -> Result<Account, AccountError> {
        if let Some(bytes) = self.db.read().await?.xmpp_omemo().find_account(author).await? {
            let stored = Account::from_bytes(&bytes)?;
            if !stored.clone().maintain(self.clock.now(), &mut self.rng()) {
                return Ok(stored);
            }
        }
        let mut tx = self.db.begin().await?;
        let loaded = self.ensure_account_in(&mut tx, author).await?;
        tx.commit().await?;
        Ok(loaded.account)
    }
}
