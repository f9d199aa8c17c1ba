//! Forms that wait to be filled in, and how often who asks. In memory only: after a restart a form
//! is asked for anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Command;
use crate::xmpp::stanza::{Address, Refusal};

/// Commands that are worked on at the same time.
const MAX_AT_WORK: usize = 4;
/// Forms that wait at the same time, for one JID and for all.
const MAX_WAITING_OF_ONE: usize = 4;
const MAX_WAITING: usize = 1000;
/// How long a form waits.
const FORM_LIFETIME_MS: u64 = 10 * 60 * 1000;
/// Requests of one JID, and of one server with all its users, in [`PERIOD_MS`].
const MAX_REQUESTS: u32 = 20;
const MAX_REQUESTS_OF_SERVER: u32 = 200;
const PERIOD_MS: u64 = 60 * 1000;
/// Who has asked, at most, in [`PERIOD_MS`].
const MAX_ASKERS: usize = 10_000;

/// All forms.
pub(in crate::xmpp) struct Forms {
    inner: Mutex<Inner>,
    slots: Arc<Semaphore>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<String, Waiting>,
    /// By bare JID and by domain.
    asked: HashMap<String, Asked>,
}

struct Waiting {
    client: Address,
    command: Command,
    since_ms: u64,
}

#[derive(Clone, Copy)]
struct Asked {
    since_ms: u64,
    times: u32,
}

impl Default for Forms {
    fn default() -> Self {
        Self { inner: Mutex::default(), slots: Arc::new(Semaphore::new(MAX_AT_WORK)) }
    }
}

impl Forms {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is worked on now; it is as long as the permit lives.
    pub(super) fn begin(
        &self,
        from: &Address,
        now_ms: u64,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let bare = from.bare();
        let mut inner = self.inner();
        // No bare JID begins with an @.
        let server = format!("@{}", bare.domain());
        let admitted = inner.admits(&server, MAX_REQUESTS_OF_SERVER, now_ms)
            && inner.admits(bare.as_str(), MAX_REQUESTS, now_ms);
        drop(inner);
        if !admitted {
            return Err(Refusal::ResourceConstraint);
        }
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Refusal::ResourceConstraint)
    }

    /// A form was given out. The oldest of the same account may make room for it.
    pub(in crate::xmpp) fn wait(
        &self,
        session: String,
        client: &Address,
        command: Command,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let mut inner = self.inner();
        inner.waiting.retain(|_, form| now_ms.saturating_sub(form.since_ms) <= FORM_LIFETIME_MS);
        let bare = client.bare();
        let of_them = inner.waiting.iter().filter(|(_, form)| form.client.bare() == bare);
        let mut of_them: Vec<_> = of_them.map(|(id, form)| (form.since_ms, id.clone())).collect();
        of_them.sort();
        let too_many = (of_them.len() + 1).saturating_sub(MAX_WAITING_OF_ONE);
        for (_, oldest) in of_them.iter().take(too_many) {
            inner.waiting.remove(oldest);
        }
        if inner.waiting.len() >= MAX_WAITING {
            return Err(Refusal::ResourceConstraint);
        }
        let form = Waiting { client: client.clone(), command, since_ms: now_ms };
        inner.waiting.insert(session, form);
        Ok(())
    }

    /// A form comes back, or is given up. Only the client that has it can do that, and once.
    pub(in crate::xmpp) fn end(
        &self,
        session: &str,
        client: &Address,
        command: Command,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let mut inner = self.inner();
        match inner.waiting.get(session) {
            Some(form) if form.client == *client && form.command == command => {}
            _ => return Err(Refusal::BadSessionId),
        }
        let form = inner.waiting.remove(session).ok_or(Refusal::BadSessionId)?;
        let is_old = now_ms.saturating_sub(form.since_ms) > FORM_LIFETIME_MS;
        if is_old { Err(Refusal::SessionExpired) } else { Ok(()) }
    }
}

impl Inner {
    fn admits(&mut self, who: &str, most: u32, now_ms: u64) -> bool {
        let is_recent = |asked: &Asked| now_ms.saturating_sub(asked.since_ms) <= PERIOD_MS;
        if self.asked.len() >= MAX_ASKERS {
            self.asked.retain(|_, asked| is_recent(asked));
            if self.asked.len() >= MAX_ASKERS {
                return false;
            }
        }
        let fresh = Asked { since_ms: now_ms, times: 0 };
        let asked = self.asked.entry(who.to_owned()).or_insert(fresh);
        if !is_recent(asked) {
            *asked = fresh;
        }
        asked.times = asked.times.saturating_add(1);
        asked.times <= most
    }
}
