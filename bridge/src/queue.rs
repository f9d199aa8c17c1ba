//! One worker per portal: work of one conversation is done in order, and no conversation waits
//! for another.
//!
//! The work itself is in the store; this only knows which keys have some. A doorbell may ring
//! late or twice, and rings while a worker is busy make it look again. Whoever waits for a stranger's server steps
//! [`aside`], so that it holds up nobody else.

use std::{
    collections::HashMap,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Queues that work at the same time at most; the others wait for their turn.
const BUSY_QUEUES: usize = 64;

/// Queues that may be aside at the same time, beside the busy ones: each keeps what it works on in memory.
const ASIDE_QUEUES: usize = 1024;

/// How a queue was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left.
    Empty,
    /// The rest waits for a doorbell, or for this long.
    Blocked {
        /// When to look again without a doorbell.
        retry_in: Duration,
    },
    /// A fault that may pass: it is tried again, at longer and longer intervals.
    Failed,
}

/// Does the work of one key.
#[async_trait]
pub trait Drain<K>: Send + Sync + 'static {
    /// Does what can be done now.
    async fn drain(&self, key: &K) -> Drained;
}

/// The workers of one kind of queue.
pub struct Queues<K> {
    work: Weak<dyn Drain<K>>,
    workers: Mutex<HashMap<K, Worker>>,
    busy: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

struct Worker {
    doorbell: Arc<Notify>,
    rung: bool,
}

/// A queue's place among the busy ones while it works.
struct Turn {
    busy: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    place: Mutex<Place>,
}

#[derive(Default)]
struct Place {
    busy: Option<OwnedSemaphorePermit>,
    aside: Option<OwnedSemaphorePermit>,
    /// What the work waits for aside, of which there may be several things at the same time.
    waits: usize,
}

tokio::task_local! {
    static TURN: Arc<Turn>;
}

/// Waits for something that takes as long as a stranger likes, or for somebody who does. Another queue has this one's turn
/// meanwhile. Where all are busy afterwards, the work goes on beside them and not in a line behind them: they may be
/// waiting for something that this queue holds. Outside of a queue this just waits.
pub async fn aside<T>(wait: impl Future<Output = T>) -> T {
    let turn = TURN.try_with(Arc::clone).ok();
    let _aside = turn.as_deref().map(Turn::step_aside);
    wait.await
}

/// A wait aside, until this is dropped.
struct Aside<'t>(&'t Turn);

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.come_back();
    }
}

impl Turn {
    fn step_aside(&self) -> Aside<'_> {
        let mut place = self.lock();
        place.waits = place.waits.saturating_add(1);
        if place.busy.is_some()
            && let Ok(aside) = self.aside.clone().try_acquire_owned()
        {
            (place.busy, place.aside) = (None, Some(aside));
        }
        Aside(self)
    }

    fn come_back(&self) {
        let mut place = self.lock();
        place.waits = place.waits.saturating_sub(1);
        if place.waits == 0
            && place.busy.is_none()
            && let Ok(busy) = self.busy.clone().try_acquire_owned()
        {
            (place.busy, place.aside) = (Some(busy), None);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Queues<K> {
    /// No worker yet. Tasks run on `tracker` and end after `stop`, between two pieces of work, or
    /// when whoever does the work is gone.
    pub fn new(
        work: Weak<dyn Drain<K>>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            work,
            workers: Mutex::default(),
            busy: Arc::new(Semaphore::new(BUSY_QUEUES)),
            aside: Arc::new(Semaphore::new(ASIDE_QUEUES)),
            tracker,
            stop,
        })
    }

    /// Says that there may be work for this key.
    pub fn ring(self: &Arc<Self>, key: K) {
        let doorbell = {
            let mut workers = self.lock();
            if let Some(worker) = workers.get_mut(&key) {
                worker.rung = true;
                worker.doorbell.notify_one();
                return;
            }
            let doorbell = Arc::new(Notify::new());
            workers.insert(key.clone(), Worker { doorbell: doorbell.clone(), rung: true });
            doorbell
        };
        let queues = self.clone();
        self.tracker.spawn(async move { queues.work(key, doorbell).await });
    }

    async fn work(&self, key: K, doorbell: Arc<Notify>) {
        let mut faults = after_faults();
        while self.take_ring_or_leave(&key) {
            let drained = {
                let Ok(permit) = self.busy.clone().acquire_owned().await else { break };
                if self.stop.is_cancelled() {
                    break;
                }
                let Some(work) = self.work.upgrade() else { break };
                let drain = TURN.scope(self.turn(permit), work.drain(&key));
                AssertUnwindSafe(drain).catch_unwind().await.unwrap_or_else(|_| {
                    tracing::error!("queue.panicked: a piece of work waits");
                    Drained::Failed
                })
            };
            let retry_in = match drained {
                Drained::Empty => None,
                Drained::Blocked { retry_in } => Some(retry_in),
                Drained::Failed => faults.next(),
            };
            if drained != Drained::Failed {
                faults = after_faults();
            }
            let Some(retry_in) = retry_in else { continue };
            tokio::select! {
                () = doorbell.notified() => {}
                () = tokio::time::sleep(retry_in) => {}
                () = self.stop.cancelled() => break,
            }
            if let Some(worker) = self.lock().get_mut(&key) {
                worker.rung = true;
            }
        }
    }

    fn turn(&self, permit: OwnedSemaphorePermit) -> Arc<Turn> {
        let place = Mutex::new(Place { busy: Some(permit), ..Place::default() });
        Arc::new(Turn { busy: self.busy.clone(), aside: self.aside.clone(), place })
    }

    /// Whether somebody rang since the last look; without a ring the worker is gone.
    fn take_ring_or_leave(&self, key: &K) -> bool {
        let mut workers = self.lock();
        match workers.get_mut(key) {
            Some(worker) if worker.rung => {
                worker.rung = false;
                true
            }
            _ => {
                workers.remove(key);
                false
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waits after one fault that follows another.
fn after_faults() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(60))
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Cannot finish as long as it has waits; counts how often it looked.
    struct Counter {
        waits: Mutex<Vec<Duration>>,
        looks: AtomicUsize,
        looked: Notify,
    }

    #[async_trait]
    impl Drain<u8> for Counter {
        async fn drain(&self, _: &u8) -> Drained {
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.looked.notify_one();
            match self.waits.lock().unwrap().pop() {
                Some(retry_in) => Drained::Blocked { retry_in },
                None => Drained::Empty,
            }
        }
    }

    fn counter(waits: &[Duration]) -> Arc<Counter> {
        Arc::new(Counter {
            waits: Mutex::new(waits.to_vec()),
            looks: AtomicUsize::new(0),
            looked: Notify::new(),
        })
    }

    fn queues(
        work: &Arc<Counter>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Queues<u8>> {
        let work: Weak<Counter> = Arc::downgrade(work);
        Queues::new(work, tracker.clone(), stop)
    }

    #[tokio::test]
    async fn a_blocked_queue_is_looked_at_again_by_the_bell_and_by_itself() {
        let tracker = TaskTracker::new();
        let work = counter(&[Duration::from_millis(1), Duration::from_secs(3600)]);
        let queues = queues(&work, &tracker, CancellationToken::new());
        queues.ring(1);
        work.looked.notified().await;
        queues.ring(1);
        tracker.close();
        tracker.wait().await;
        assert_eq!(work.looks.load(Ordering::SeqCst), 3);
        assert!(queues.lock().is_empty());
    }

    /// Waits for strangers, of whom there are as many as it is told, at two servers each; nobody else waits.
    struct Strangers {
        number: usize,
        wait: Semaphore,
        is_aside: bool,
        done: Semaphore,
    }

    #[async_trait]
    impl Drain<usize> for Strangers {
        async fn drain(&self, key: &usize) -> Drained {
            let wait = || async { drop(self.wait.acquire().await) };
            match (*key < self.number, self.is_aside) {
                (true, true) => {
                    tokio::join!(aside(wait()), aside(wait()));
                }
                (true, false) => wait().await,
                (false, _) => {}
            }
            self.done.add_permits(1);
            Drained::Empty
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_stranger_holds_up_nobody_else() {
        for (is_aside, number, is_done) in [
            (true, ASIDE_QUEUES, true),
            (false, BUSY_QUEUES, false),
            (true, ASIDE_QUEUES + 100, false),
        ] {
            let tracker = TaskTracker::new();
            let (wait, done) = (Semaphore::new(0), Semaphore::new(0));
            let work = Arc::new(Strangers { number, wait, is_aside, done });
            let strangers: Weak<Strangers> = Arc::downgrade(&work);
            let queues = Queues::new(strangers, tracker.clone(), CancellationToken::new());
            (0..=number).for_each(|key| queues.ring(key));
            let other = tokio::time::timeout(Duration::from_secs(20), work.done.acquire()).await;
            assert_eq!(other.is_ok(), is_done, "{number} strangers, aside: {is_aside}");
            work.wait.add_permits(2);
            tracker.close();
            tracker.wait().await;
            // Everybody has their turn in the end, and gives it back.
            assert_eq!(queues.busy.available_permits(), BUSY_QUEUES);
            assert_eq!(queues.aside.available_permits(), ASIDE_QUEUES);
            assert!(queues.lock().is_empty());
        }
    }

    /// Needs what all keys share, and holds it while a stranger takes their time.
    struct Sharers {
        shared: tokio::sync::Mutex<()>,
        done: AtomicUsize,
    }

    #[async_trait]
    impl Drain<usize> for Sharers {
        async fn drain(&self, _: &usize) -> Drained {
            let _shared = aside(self.shared.lock()).await;
            aside(tokio::time::sleep(Duration::from_secs(1))).await;
            self.done.fetch_add(1, Ordering::SeqCst);
            Drained::Empty
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_what_all_wait_for_gets_on() {
        const KEYS: usize = 2 * (BUSY_QUEUES + ASIDE_QUEUES);
        let tracker = TaskTracker::new();
        let shared = tokio::sync::Mutex::default();
        let work = Arc::new(Sharers { shared, done: AtomicUsize::default() });
        let sharers: Weak<Sharers> = Arc::downgrade(&work);
        let queues = Queues::new(sharers, tracker.clone(), CancellationToken::new());
        (0..KEYS).for_each(|key| queues.ring(key));
        tracker.close();
        let day = Duration::from_secs(24 * 60 * 60);
        tokio::time::timeout(day, tracker.wait()).await.expect("nobody waits in a circle");
        assert_eq!(work.done.load(Ordering::SeqCst), KEYS);
    }

    /// Gives a wait up, and looks who has the turn then.
    struct Hasty(Mutex<Vec<(bool, usize)>>);

    #[async_trait]
    impl Drain<usize> for Hasty {
        async fn drain(&self, _: &usize) -> Drained {
            let wait = aside(std::future::pending::<()>());
            tokio::time::timeout(Duration::from_secs(1), wait).await.unwrap_err();
            TURN.with(|turn| {
                let place = turn.lock();
                self.0.lock().unwrap().push((place.busy.is_some(), place.waits));
            });
            Drained::Empty
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_a_wait_up_has_the_turn_again() {
        let tracker = TaskTracker::new();
        let work = Arc::new(Hasty(Mutex::default()));
        let hasty: Weak<Hasty> = Arc::downgrade(&work);
        Queues::new(hasty, tracker.clone(), CancellationToken::new()).ring(1);
        tracker.close();
        tracker.wait().await;
        assert_eq!(*work.0.lock().unwrap(), [(true, 0)]);
    }

    #[tokio::test]
    async fn a_stop_ends_a_waiting_worker() {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let work = counter(&[Duration::from_secs(3600)]);
        queues(&work, &tracker, stop.clone()).ring(1);
        work.looked.notified().await;
        stop.cancel();
        tracker.close();
        tracker.wait().await;
        assert_eq!(work.looks.load(Ordering::SeqCst), 1);
    }
}
