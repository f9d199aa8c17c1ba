//! The small sync: what devices are sent, whose devices changed, how many keys are left.
//!
//! It is made before every share, when a room key is missing, while waiting as a loaded device,
//! and from time to time for every published one. The waiting is done outside the device's task,
//! which ignores an answer that another sync has overtaken.

use std::{sync::Arc, time::Duration};

use e2ee::matrix::{Machine, SyncOutcome};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, api::client::sync::sync_events};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Devices, Shared,
    device::{Device, Exchange},
    directory::{Directory, Interest, Slot},
};
use crate::{
    matrix::{Identity, MatrixError},
    store::{GhostStage, StoreError},
};

/// How long a device that could not sync waits before it tries again.
const PAUSE: Duration = Duration::from_secs(5);

/// Where the next sync of a device begins.
struct Position {
    user: OwnedUserId,
    device: OwnedDeviceId,
    since: Option<String>,
}

impl Device {
    /// Fetches what has come, and answers it.
    pub(super) async fn sync(&mut self) -> Result<Exchange, MatrixError> {
        let machine = self.ready().await?;
        let since = machine.sync_token().await?;
        let answer =
            self.shared.client.small_sync(self.who(&machine), since, Duration::ZERO).await?;
        self.take_sync(&machine, answer).await
    }

    async fn take_sync(
        &mut self,
        machine: &Machine,
        answer: sync_events::v3::Response,
    ) -> Result<Exchange, MatrixError> {
        let mut outcome = machine.receive_sync(answer).await?;
        let changed = outcome.changed_users.clone();
        self.verifying.heard_of(std::mem::take(&mut outcome.verifying));
        self.ring(outcome);
        // What has ended is gone with the next sync, whatever becomes of the requests.
        self.look_at_verifications(machine).await?;
        let exchange = self.exchange(machine).await;
        let was_asked = |user: &&OwnedUserId| {
            exchange.as_ref().is_ok_and(|exchange| exchange.queried.contains(*user))
        };
        // The machine may not have noted it: it swallows a fault of its store here.
        self.shared.asked.strike(&self.user, changed.iter().filter(|user| !was_asked(user)));
        let exchange = exchange?;
        self.look_at_verifications(machine).await?;
        Ok(exchange)
    }

    /// What the sync brought is committed: others may look at it.
    fn ring(&self, outcome: SyncOutcome) {
        let Shared { events, namespace, .. } = &*self.shared;
        outcome.rooms.iter().for_each(|room| events.keys_arrived(room));
        let changed: Vec<OwnedUserId> =
            outcome.changed_users.into_iter().filter(|user| !namespace.is_ours(user)).collect();
        if !changed.is_empty() {
            events.device_lists_changed(&changed);
        }
    }

    async fn position(&mut self) -> Result<Position, MatrixError> {
        let machine = self.ready().await?;
        Ok(Position {
            user: self.user.clone(),
            device: machine.device_id().to_owned(),
            since: machine.sync_token().await?,
        })
    }

    /// Takes the answer of a waiting call, unless another sync was faster.
    async fn take_waited(
        &mut self,
        since: Option<String>,
        answer: sync_events::v3::Response,
    ) -> Result<(), MatrixError> {
        let machine = self.ready().await?;
        if machine.sync_token().await? == since {
            self.take_sync(&machine, answer).await?;
        }
        self.remind_of_verifications();
        Ok(())
    }
}

impl Directory {
    /// Waits for messages as one loaded device, whenever there is a place, until its task ends.
    ///
    /// Where it is loaded in the place of another, that begins when it has been so for a while, or expects something:
    /// most are unloaded before, and a wait that is broken off costs the homeserver as much as another.
    pub(super) async fn wait_for_messages(&self, slot: &Slot) {
        let settled = async {
            if slot.is_crowded {
                sleep(self.limits.settled).await;
            }
        };
        tokio::select! {
            () = slot.ended().cancelled() => return,
            () = self.stop.cancelled() => return,
            () = slot.listens() => {}
            () = settled => {}
        }
        loop {
            let wait = async {
                if let Err(error) = self.wait_in_turn(slot).await {
                    tracing::debug!(error = %error, "matrix.sync.waiting_failed");
                    sleep(PAUSE).await;
                }
            };
            tokio::select! {
                () = slot.ended().cancelled() => return,
                () = self.stop.cancelled() => return,
                () = wait => {}
            }
        }
    }

    async fn wait_in_turn(&self, slot: &Slot) -> Result<(), MatrixError> {
        let _place = self.waiting.acquire().await.map_err(|_| MatrixError::PutAway)?;
        self.wait_once(slot).await
    }

    async fn wait_once(&self, slot: &Slot) -> Result<(), MatrixError> {
        let Position { user, device, since } = self
            .call_slot(slot, |device| {
                Box::pin(async move {
                    let position = device.position().await;
                    device.settle(position)
                })
            })
            .await??;
        let who = Identity::device(&user, &device);
        let answer = self.shared().client.small_sync(who, since.clone(), self.limits.wait).await;
        self.call_slot(slot, |device| {
            Box::pin(async move {
                let taken = match answer {
                    Ok(answer) => device.take_waited(since, answer).await,
                    Err(error) => Err(error.into()),
                };
                device.settle(taken)
            })
        })
        .await?
    }
}

impl Devices {
    /// Lets one device sync; what fails is tried again by the next sweep.
    pub(super) async fn sync(&self, user: &UserId, interest: Interest) {
        let synced = self
            .directory
            .call(user, interest, |device| {
                Box::pin(async move {
                    let synced = device.sync().await.map(drop);
                    device.remind_of_verifications();
                    device.settle(synced)
                })
            })
            .await;
        if let Err(error) | Ok(Err(error)) = synced {
            tracing::debug!(error = %error, "matrix.sync.failed");
        }
    }

    /// Every published device looks into its inbox, at once and every [`Self::sweep`]; those that
    /// take the place of others are published.
    pub(super) async fn sweep_until_stopped(self: Arc<Self>) {
        let sweeping = async {
            loop {
                let begun = Instant::now();
                self.sweep_once().await;
                sleep_until(begun + self.sweep).await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sweeping => {}
        }
    }

    async fn sweep_once(&self) {
        let ghosts = async {
            let mut tx = self.shared.db.read().await?;
            let mut ghosts = tx.ghosts().load_by_stage(GhostStage::Replaced).await?;
            ghosts.extend(tx.ghosts().load_by_stage(GhostStage::Published).await?);
            Ok::<_, StoreError>(ghosts)
        };
        match ghosts.await {
            Ok(ghosts) => {
                for ghost in ghosts {
                    self.sync(&ghost.user_id, Interest::Passing).await;
                }
            }
            Err(error) => tracing::warn!(error = %error, "matrix.sweep.failed"),
        }
    }
}
