//! The way out: writing stanzas to the stream that is up, and IQ requests with their answers.
//!
//! Owns the waiting requests. Knows nothing of sockets.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use minidom::Element;
use tokio::sync::{mpsc, oneshot};

use super::{stanza, xml};

/// Stanzas that wait for the socket. A full queue makes its writer wait.
pub(super) const QUEUE: usize = 256;
/// Requests that wait for an answer. Those to our own server are beside this.
const MAX_WAITING: usize = 4096;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the XMPP server is not connected")]
    Down,
    #[error("too many requests wait for an answer")]
    Busy,
    #[error("the request was not answered in time")]
    TimedOut,
    /// The stanza error's condition.
    #[error("the request was refused")]
    Refused(String),
}

/// An answer to a request: the result's payload, or the error's condition.
type Answer = Result<Option<Element>, String>;

/// The connection as the rest of the component sees it.
#[derive(Default)]
pub(super) struct Link(Mutex<State>);

#[derive(Default)]
struct State {
    out: Option<mpsc::Sender<Vec<u8>>>,
    was_up: bool,
    /// Stanzas that came and were dealt with.
    taken: u64,
    waiting: HashMap<String, Waiting>,
}

struct Waiting {
    /// Only an answer from here counts.
    peer: String,
    answer: oneshot::Sender<Answer>,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is up; what it is to send comes out of the returned queue.
    pub(super) fn up(&self) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut state = self.state();
        state.out = Some(sender);
        state.was_up = true;
        receiver
    }

    /// Whether a stream has come up since this was last asked.
    pub(super) fn was_up(&self) -> bool {
        std::mem::take(&mut self.state().was_up)
    }

    /// The stream is gone: nobody will answer any more.
    pub(super) fn down(&self) {
        let mut state = self.state();
        state.out = None;
        state.waiting.clear();
    }

    pub(super) fn is_up(&self) -> bool {
        self.state().out.is_some()
    }

    /// Writes whole stanzas; they are gone if the stream goes down.
    pub(super) async fn write_bytes(&self, bytes: Vec<u8>) -> Result<(), RequestError> {
        let out = self.state().out.clone().ok_or(RequestError::Down)?;
        out.send(bytes).await.map_err(|_| RequestError::Down)
    }

    /// Writes a stanza; it is gone if the stream goes down.
    pub(super) async fn write(&self, stanza: &Element) -> Result<(), RequestError> {
        self.write_bytes(xml::to_bytes(stanza)).await
    }

    /// Sends an IQ request and waits for its answer. The stanza has the id `id` and goes to
    /// `peer`.
    pub(super) async fn request(
        &self,
        stanza: &Element,
        id: &str,
        peer: &str,
        patience: Duration,
    ) -> Result<Option<Element>, RequestError> {
        if self.state().waiting.len() >= MAX_WAITING {
            return Err(RequestError::Busy);
        }
        let answer = tokio::time::timeout(patience, self.ask(stanza, id, peer)).await;
        answer.map_err(|_| RequestError::TimedOut)??.map_err(RequestError::Refused)
    }

    /// As [`Self::request`], to our own server, which answers behind all that it has sent us
    /// before: as long as we are dealing with that, the answer is not late.
    pub(super) async fn request_in_turn(
        &self,
        stanza: &Element,
        id: &str,
        peer: &str,
        patience: Duration,
    ) -> Result<Option<Element>, RequestError> {
        let answer = tokio::select! {
            answer = self.ask(stanza, id, peer) => answer,
            () = self.idle_for(patience) => Err(RequestError::TimedOut),
        };
        answer?.map_err(RequestError::Refused)
    }

    async fn ask(&self, stanza: &Element, id: &str, peer: &str) -> Result<Answer, RequestError> {
        let receiver = self.expect(id, peer)?;
        let _expected = Expected { link: self, id };
        self.write(stanza).await?;
        receiver.await.map_err(|_| RequestError::Down)
    }

    fn expect(&self, id: &str, peer: &str) -> Result<oneshot::Receiver<Answer>, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.out.is_none() {
            return Err(RequestError::Down);
        }
        state.waiting.insert(id.to_owned(), Waiting { peer: peer.to_owned(), answer: sender });
        Ok(receiver)
    }

    /// Requests that wait for an answer.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether a stanza could be written without a wait for the socket.
    pub(super) fn has_room(&self) -> bool {
        self.state().out.as_ref().is_some_and(|out| out.capacity() > 0)
    }

    /// A stanza that came was dealt with.
    pub(super) fn taken(&self) {
        let mut state = self.state();
        state.taken = state.taken.wrapping_add(1);
    }

    /// Returns when nothing was dealt with for so long.
    async fn idle_for(&self, patience: Duration) {
        let mut before = self.state().taken;
        loop {
            tokio::time::sleep(patience).await;
            let now = self.state().taken;
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Hands an IQ to the request it answers. Returns whether there was one.
    pub(super) fn answer(&self, from: &str, iq: &Element) -> bool {
        let Some(id) = iq.attr("id") else { return false };
        let mut state = self.state();
        if state.waiting.get(id).is_none_or(|waiting| waiting.peer != from) {
            return false;
        }
        let Some(waiting) = state.waiting.remove(id) else { return false };
        let answer = match iq.attr("type") {
            Some("error") => Err(stanza::error_condition(iq)),
            _ => Ok(iq.children().next().cloned()),
        };
        // Whoever asked may have stopped waiting.
        let _ = waiting.answer.send(answer);
        true
    }
}

/// A request that waits for its answer, as long as somebody waits for that.
struct Expected<'l> {
    link: &'l Link,
    id: &'l str,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.link.state().waiting.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iq(text: &str) -> Element {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_one_who_was_asked_can_answer() {
        let link = Link::default();
        let mut out = link.up();
        let request = iq("<iq xmlns='jabber:component:accept' type='get' id='q1' to='bob@x'/>");
        let asked = link.request(&request, "q1", "bob@x", Duration::from_secs(5));
        let answered = async {
            out.recv().await.unwrap();
            let forged =
                iq("<iq xmlns='jabber:component:accept' type='result' id='q1'><a xmlns='f'/></iq>");
            assert!(!link.answer("mallory@x", &forged));
            let real =
                iq("<iq xmlns='jabber:component:accept' type='result' id='q1'><b xmlns='r'/></iq>");
            assert!(link.answer("bob@x", &real));
            assert!(!link.answer("bob@x", &real), "an answer counts once");
        };
        let (answer, ()) = tokio::join!(asked, answered);
        assert_eq!(answer.unwrap().unwrap().name(), "b");
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_server_is_not_late_while_we_deal_with_what_it_sent_before() {
        let link = Link::default();
        let _out = link.up();
        let ping = iq("<iq xmlns='jabber:component:accept' type='get' id='p' to='us'/>");
        let asked = link.request_in_turn(&ping, "p", "us", Duration::from_secs(30));
        let backlog = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                link.taken();
            }
            let pong = iq("<iq xmlns='jabber:component:accept' type='result' id='p'/>");
            assert!(link.answer("us", &pong));
        };
        let (answer, ()) = tokio::join!(asked, backlog);
        assert_eq!(answer, Ok(None));
        let asked = link.request_in_turn(&ping, "p", "us", Duration::from_secs(30));
        assert_eq!(asked.await, Err(RequestError::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_is_busy_and_has_room_for_our_own_server() {
        let link = Link::default();
        let _out = link.up();
        let waiting: Vec<_> =
            (0..MAX_WAITING).map(|number| link.expect(&number.to_string(), "slow@x")).collect();
        assert!(waiting.iter().all(Result::is_ok));
        let request = iq("<iq xmlns='jabber:component:accept' type='get' id='q' to='bob@x'/>");
        let asked = link.request(&request, "q", "bob@x", Duration::from_secs(5)).await;
        assert_eq!(asked, Err(RequestError::Busy));
        assert!(link.expect("ping", "us").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_early_leaves_nothing_behind() {
        let link = Link::default();
        let _out = link.up();
        let request = iq("<iq xmlns='jabber:component:accept' type='get' id='q' to='bob@x'/>");
        let (long, short) = (Duration::from_secs(20), Duration::from_secs(3));
        let asked = link.request(&request, "q", "bob@x", long);
        assert!(tokio::time::timeout(short, asked).await.is_err());
        assert_eq!(link.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_fails_in_time_when_refused_and_when_the_stream_goes_down() {
        let link = Link::default();
        let request = iq("<iq xmlns='jabber:component:accept' type='get' id='q1' to='bob@x'/>");
        let ask = || link.request(&request, "q1", "bob@x", Duration::from_secs(5));
        assert_eq!(ask().await, Err(RequestError::Down));

        let _out = link.up();
        assert_eq!(ask().await, Err(RequestError::TimedOut));

        let refusal =
            iq("<iq xmlns='jabber:component:accept' type='error' id='q1'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>");
        let (answer, _) = tokio::join!(ask(), async { link.answer("bob@x", &refusal) });
        assert_eq!(answer, Err(RequestError::Refused("item-not-found".into())));

        let (answer, ()) = tokio::join!(ask(), async { link.down() });
        assert_eq!(answer, Err(RequestError::Down));
    }
}
