//! Bringing a device into being: user, device, identity, keys. Each step is stored before the
//! next, and may be made twice; the identity is made once and stored before it is sent.
//!
//! Spec: <https://spec.matrix.org/v1.17/application-service-api/#application-service-device-management>

use e2ee::matrix::Machine;
use ruma::DeviceId;

use super::{device::Device, uploads::is_within};
use crate::{
    matrix::{Identity, MatrixError},
    store::{Ghost, GhostStage},
};

/// How long a device that took the place of one that was gone is not replaced in its turn.
const REPLACING_MS: i64 = 60 * 60 * 1000;

impl Device {
    /// See [`super::Devices::ensure_published`].
    pub(super) async fn ensure_published(&mut self) -> Result<(), MatrixError> {
        let result = self.make_known().await;
        self.settle(result)
    }

    /// Registers the user anew though that was done: a homeserver that was restored from a backup has forgotten those
    /// that were made since, and refuses everything to them.
    async fn make_known(&mut self) -> Result<(), MatrixError> {
        let ghost = self.ensure_planned().await?;
        if ghost.stage > GhostStage::Replaced {
            match self.shared.client.ensure_registered(&self.user).await {
                // It was registered; what can be done without the homeserver is not to wait for it.
                Err(error) if error.is_temporary() => {}
                registered => registered?,
            }
        }
        self.ready().await.map(drop)
    }

    /// Takes the ghost through the stages that are left, and loads its machine.
    pub(super) async fn load_published(&mut self) -> Result<Machine, MatrixError> {
        let mut ghost = self.ensure_planned().await?;
        if ghost.stage <= GhostStage::Replaced {
            self.register(&ghost).await?;
            ghost.stage = self.advance(GhostStage::Registered).await?;
        }
        let machine = self.load_machine(&ghost).await?;
        if ghost.stage == GhostStage::Registered {
            let requests = machine.publication().await?;
            self.send_all(&machine, requests).await?;
            machine.track(&[self.user.clone()].into()).await?;
            self.exchange(&machine).await?;
            self.advance(GhostStage::Published).await?;
        }
        Ok(machine)
    }

    /// Puts another device, under the same identity, in the place of the one that the homeserver
    /// said it does not know, if that is so: somebody has ended it there. Once an hour at most.
    pub(super) async fn replace_if_gone(&mut self) -> Result<(), MatrixError> {
        let now_ms = self.shared.now_ms();
        if is_within(REPLACING_MS, self.replaced_ms, now_ms) {
            return Ok(());
        }
        let ghost = self.ensure_planned().await?;
        let is_there = self.shared.client.has_device(&self.user, &ghost.device_id).await?;
        if ghost.stage <= GhostStage::Replaced || is_there {
            return Ok(());
        }
        let mut tx = self.shared.db.begin().await?;
        tx.recovery().replace_matrix_device(&self.user).await?;
        tx.commit().await?;
        self.replaced_ms = Some(now_ms);
        tracing::warn!(
            "matrix.device.replaced: the homeserver no longer had a device of the bridge; \
             what was sent to it is lost"
        );
        Ok(())
    }

    /// The ghost's row. Its device id is chosen here; only the restore of a backup and
    /// [`Self::replace_if_gone`] change it.
    async fn ensure_planned(&self) -> Result<Ghost, MatrixError> {
        let mut tx = self.shared.db.read().await?;
        let known = tx.ghosts().find(&self.user).await?;
        drop(tx);
        if let Some(ghost) = known {
            return Ok(ghost);
        }
        let namespace = &self.shared.namespace;
        let remote_id = namespace.contact_of(&self.user);
        if remote_id.is_none() && self.user != namespace.bot() {
            return Err(MatrixError::NotOurs);
        }
        let ghost = Ghost {
            user_id: self.user.clone(),
            remote_id,
            device_id: DeviceId::new(),
            stage: GhostStage::Planned,
        };
        let mut tx = self.shared.db.begin().await?;
        tx.ghosts().insert(&ghost).await?;
        tx.commit().await?;
        Ok(ghost)
    }

    async fn register(&self, ghost: &Ghost) -> Result<(), MatrixError> {
        let client = &self.shared.client;
        client.ensure_registered(&self.user).await?;
        let device = ghost.device_id.clone();
        client.put_device(Identity::user(&self.user), device, "Gephyra bridge").await?;
        // A database that was restored or begun anew does not know what it had before.
        Ok(client.delete_other_devices(&self.user, &ghost.device_id).await?)
    }

    async fn advance(&self, stage: GhostStage) -> Result<GhostStage, MatrixError> {
        let mut tx = self.shared.db.begin().await?;
        tx.ghosts().set_stage(&self.user, stage).await?;
        tx.commit().await?;
        Ok(stage)
    }
}
