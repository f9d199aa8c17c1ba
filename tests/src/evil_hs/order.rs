//! The rules that stand, and which of them a request meets.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context, Result};
use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Request;
use super::rule::{Rewrite, Rule, Stage};
use crate::journal::SOON;

/// All rules that stand, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<Vec<Arc<Standing>>>);

/// A rule that stands, and how often it has been applied.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) rule: Rule,
    applied: watch::Sender<usize>,
    /// Requests that fitted.
    met: AtomicUsize,
    left: AtomicUsize,
    /// Requests that were overtaken.
    pub(super) overtaken: AtomicUsize,
    /// When the order is dropped.
    pub(super) ended: CancellationToken,
}

/// A rule that stands until this is dropped.
#[derive(Debug)]
pub struct Order {
    standing: Arc<Standing>,
    all: Weak<Orders>,
}

impl Orders {
    /// Lets a rule stand until the order is dropped.
    pub(super) fn obey(self: &Arc<Self>, rule: Rule) -> Order {
        let left = AtomicUsize::new(rule.times);
        let (met, overtaken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (applied, ended) = (watch::channel(0).0, CancellationToken::new());
        let standing = Arc::new(Standing { rule, applied, met, left, overtaken, ended });
        self.lock().push(standing.clone());
        Order { standing, all: Arc::downgrade(self) }
    }

    /// The newest rule that fits, has something to do at this stage, and whose turn it is. Every one that fits counts the
    /// request, so that none is in the way of another's turn.
    pub(super) fn find(&self, request: &Request, stage: Stage) -> Option<Arc<Standing>> {
        let mut found = None;
        for order in self.lock().iter() {
            let is_asked =
                order.is_left() && order.rule.action.stage() == stage && order.rule.fits(request);
            if is_asked && order.meet() {
                found = Some(order.clone());
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Standing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Waits until the rule has been applied so many times.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn applied(&self, times: usize) -> Result<()> {
        let mut applied = self.standing.applied.subscribe();
        let waited = timeout(SOON * 2, applied.wait_for(|count| *count >= times));
        waited.await.with_context(|| format!("not {times} times in time: {self}"))??;
        Ok(())
    }

    /// How often the rule has been applied.
    pub fn times_applied(&self) -> usize {
        *self.standing.applied.borrow()
    }

    /// How many requests arrived behind a later one, by [`super::Fault::Overtaken`].
    pub fn times_overtaken(&self) -> usize {
        self.standing.overtaken.load(Ordering::SeqCst)
    }
}

/// The rule, and what has become of it.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { rule, met, .. } = &*self.standing;
        let (applied, met) = (self.times_applied(), met.load(Ordering::SeqCst));
        write!(f, "{rule}: applied {applied} times to {met} requests that fitted")
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.standing.ended.cancel();
        if let Some(all) = self.all.upgrade() {
            all.lock().retain(|standing| !Arc::ptr_eq(standing, &self.standing));
        }
    }
}

impl Standing {
    /// Counts a request that fits, and says whether it is the one of so many that the rule is for.
    fn meet(&self) -> bool {
        (self.met.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(self.rule.every)
    }

    /// Uses the rule once, unless it is used up.
    pub(super) fn take(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        if taken {
            self.applied.send_modify(|count| *count += 1);
        }
        taken
    }

    /// Rewrites a body, where there is something to rewrite and the rule is not used up.
    pub(super) fn rewrite(&self, rewrite: &Rewrite, body: &mut Bytes) {
        if let Some(rewritten) = rewrite.of(body).filter(|_| self.take()) {
            *body = rewritten;
        }
    }

    fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::super::{Fault, Link};
    use super::*;

    fn request(link: Link, path: &str, user: Option<&str>) -> Request {
        let (method, path, user) = (Method::PUT, path.to_owned(), user.map(str::to_owned));
        Request { link, method, path, user, device: None, body: Value::Null }
    }

    /// How often each of these rules is applied to so many rounds of requests to these paths.
    fn applied(rules: Vec<Rule>, rounds: usize, paths: &[(Link, &str)]) -> Vec<usize> {
        let all = Arc::<Orders>::default();
        let orders: Vec<Order> = rules.into_iter().map(|rule| all.obey(rule)).collect();
        for (link, path) in paths.iter().cycle().take(rounds * paths.len()) {
            if let Some(order) = all.find(&request(*link, path, None), Stage::Request) {
                assert!(order.take());
            }
        }
        orders.iter().map(Order::times_applied).collect()
    }

    #[test]
    fn two_rules_that_fit_have_each_their_turn() {
        let rules = "
            rule = [
                { link = 'client', every = 2, fault = 'block' },
                { link = 'client', every = 3, fault = 'duplicate' },
            ]";
        let rules = Rule::parse_all(rules).unwrap();
        // The newer one also has the sixth and the twelfth.
        assert_eq!(applied(rules, 12, &[(Link::Client, "/sync")]), [4, 4]);
    }

    #[test]
    fn every_rule_of_a_flaky_homeserver_is_applied() {
        let file = crate::paths::peers().join("../rules/flaky.toml");
        let paths = [
            (Link::Client, "/sync"),
            (Link::Client, "/rooms/!r/send/m.room.encrypted/1"),
            (Link::Client, "/keys/query"),
            (Link::Push, "/transactions/1"),
        ];
        let applied = applied(Rule::read_all(&file).unwrap(), 200, &paths);
        assert!(applied.iter().all(|times| *times > 0), "{applied:?}");
    }

    #[test]
    fn a_rule_is_for_the_requests_of_one_user() {
        let rule = Rule::fault(Link::Client, None, "/keys/", Fault::Block).by("@ghost:hs");
        let by = |user| request(Link::Client, "/keys/upload", user);
        assert!(rule.fits(&by(Some("@ghost:hs"))));
        assert!(!rule.fits(&by(Some("@gephyra:hs"))) && !rule.fits(&by(None)));
    }
}
