//! Which devices are loaded: at most one task for each, and a bounded number of them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use ruma::{OwnedUserId, UserId};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    DeviceLimits, Shared,
    device::{Device, Needs},
};
use crate::matrix::MatrixError;

/// What may wait in front of one device.
const QUEUE: usize = 32;

/// Why a device is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Somebody needs it, and will again.
    Wanted,
    /// It is looked after; it may be unloaded first.
    Passing,
}

type Job = Box<dyn for<'d> FnOnce(&'d mut Device) -> BoxFuture<'d, ()> + Send>;

/// The task of one loaded device.
pub(super) struct Slot {
    queue: mpsc::Sender<Job>,
    /// Cancelled when the task has ended, however it ended.
    ended: CancellationToken,
    retire: Notify,
    retiring: AtomicBool,
    last_wanted: AtomicU64,
    /// It was loaded in the place of another.
    pub(super) is_crowded: bool,
    needs: Arc<Needs>,
}

/// All loaded devices.
pub(super) struct Directory {
    shared: Arc<Shared>,
    slots: Mutex<HashMap<OwnedUserId, Arc<Slot>>>,
    uses: AtomicU64,
    pub(super) waiting: Semaphore,
    pub(super) limits: DeviceLimits,
    tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Directory {
    pub(super) fn new(
        shared: Arc<Shared>,
        tracker: TaskTracker,
        stop: CancellationToken,
        limits: DeviceLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            slots: Mutex::default(),
            uses: AtomicU64::new(1),
            waiting: Semaphore::new(limits.waiting),
            limits,
            tracker,
            stop,
        })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Lets the device of `user` do something, behind what it was asked before. The job is done
    /// to its end even if the caller goes away.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        user: &UserId,
        interest: Interest,
        job: F,
    ) -> Result<T, MatrixError>
    where
        F: for<'d> FnOnce(&'d mut Device) -> BoxFuture<'d, T> + Send + 'static,
        T: Send + 'static,
    {
        loop {
            let slot = self.ensure_loaded(user)?;
            if interest == Interest::Wanted {
                slot.last_wanted
                    .store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            }
            if let Ok(place) = slot.queue.reserve().await {
                let (reply, answer) = oneshot::channel();
                place.send(job_of(job, reply));
                return answer.await.map_err(|_| MatrixError::PutAway);
            }
            // It is being unloaded: its place is free when it has ended.
            slot.ended.cancelled().await;
        }
    }

    /// Like [`Self::call`], but only while this very task lives.
    pub(super) async fn call_slot<T, F>(&self, slot: &Slot, job: F) -> Result<T, MatrixError>
    where
        F: for<'d> FnOnce(&'d mut Device) -> BoxFuture<'d, T> + Send + 'static,
        T: Send + 'static,
    {
        let place = slot.queue.reserve().await.map_err(|_| MatrixError::PutAway)?;
        let (reply, answer) = oneshot::channel();
        place.send(job_of(job, reply));
        answer.await.map_err(|_| MatrixError::PutAway)
    }

    fn ensure_loaded(self: &Arc<Self>, user: &UserId) -> Result<Arc<Slot>, MatrixError> {
        if self.stop.is_cancelled() {
            return Err(MatrixError::PutAway);
        }
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(user).filter(|slot| !slot.ended.is_cancelled()) {
            return Ok(slot.clone());
        }
        slots.retain(|_, slot| !slot.ended.is_cancelled());
        let is_crowded = slots.len() >= self.limits.loaded;
        if is_crowded {
            retire_one(&slots);
        }
        let slot = self.spawn(user, is_crowded);
        slots.insert(user.to_owned(), slot.clone());
        Ok(slot)
    }

    fn spawn(self: &Arc<Self>, user: &UserId, is_crowded: bool) -> Arc<Slot> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let slot = Arc::new(Slot {
            queue,
            ended: CancellationToken::new(),
            retire: Notify::new(),
            retiring: AtomicBool::new(false),
            last_wanted: AtomicU64::new(0),
            is_crowded,
            needs: Arc::default(),
        });
        let device = Device::new(user.to_owned(), self.shared.clone(), slot.needs.clone());
        let ended = slot.ended.clone().drop_guard();
        self.tracker.spawn(run(device, jobs, slot.clone(), self.stop.clone(), ended));
        let (directory, waiting_slot) = (Arc::clone(self), slot.clone());
        self.tracker.spawn(async move { directory.wait_for_messages(&waiting_slot).await });
        slot
    }
}

impl Slot {
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Returns when the device expects something to come.
    pub(super) async fn listens(&self) {
        self.needs.listen.notified().await;
    }

    /// Nothing waits in front of it and nobody is about to queue.
    fn is_idle(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
            && !self.needs.busy.load(Ordering::Relaxed)
    }
}

fn job_of<T, F>(job: F, reply: oneshot::Sender<T>) -> Job
where
    F: for<'d> FnOnce(&'d mut Device) -> BoxFuture<'d, T> + Send + 'static,
    T: Send + 'static,
{
    Box::new(move |device| {
        Box::pin(async move {
            // The caller may be gone; the job is done all the same.
            let _ = reply.send(job(device).await);
        })
    })
}

/// Asks the idle device that nobody has wanted for longest to end.
fn retire_one(slots: &HashMap<OwnedUserId, Arc<Slot>>) {
    let candidate = slots
        .values()
        .filter(|slot| slot.is_idle() && !slot.retiring.load(Ordering::Relaxed))
        .min_by_key(|slot| slot.last_wanted.load(Ordering::Relaxed));
    if let Some(slot) = candidate {
        slot.retiring.store(true, Ordering::Relaxed);
        slot.retire.notify_one();
    }
}

/// The task of one device. It ends when it is told to and its queue is empty.
async fn run(
    mut device: Device,
    mut jobs: mpsc::Receiver<Job>,
    slot: Arc<Slot>,
    stop: CancellationToken,
    ended: DropGuard,
) {
    let mut closing = false;
    loop {
        let job = tokio::select! {
            biased;
            job = jobs.recv() => job,
            () = slot.retire.notified(), if !closing => {
                if slot.needs.busy.load(Ordering::Relaxed) {
                    // It has become so since it was chosen.
                    slot.retiring.store(false, Ordering::Relaxed);
                    continue;
                }
                closing = true;
                jobs.close();
                continue;
            }
            () = stop.cancelled(), if !closing => {
                closing = true;
                jobs.close();
                continue;
            }
        };
        let Some(job) = job else { break };
        job(&mut device).await;
    }
    // The machine first: only then may another task own the device.
    drop(device);
    drop(ended);
}
