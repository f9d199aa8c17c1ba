//! Public keys, as people are shown them.

use e2ee::matrix::{Machine, PublicKeys};
use ruma::UserId;

use super::{Devices, device::Device, directory::Interest};
use crate::matrix::{MatrixError, error::DeviceFault as _};

impl Device {
    /// See [`Devices::public_keys`].
    async fn public_keys(&mut self, of: &UserId) -> Result<PublicKeys, MatrixError> {
        let machine = self.ready().await?;
        match self.look_up(&machine, of).await {
            Err(error) if !error.is_machine_fault() => {
                tracing::info!(error = %crate::error_chain(&error), "matrix.keys.not_asked_for");
            }
            looked_up => looked_up?,
        }
        Ok(machine.public_keys(of).await?)
    }

    async fn look_up(&mut self, machine: &Machine, user: &UserId) -> Result<(), MatrixError> {
        self.sync().await?;
        machine.track(&[user.to_owned()].into()).await?;
        self.exchange(machine).await.map(drop)
    }
}

impl Devices {
    /// The public keys of a person or a ghost, as `ours` knows them: what they have verified is so
    /// for them only. Where the homeserver does not answer, as they were last known.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn public_keys(&self, ours: &UserId, of: &UserId) -> Result<PublicKeys, MatrixError> {
        let of = of.to_owned();
        self.directory
            .call(ours, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let keys = device.public_keys(&of).await;
                    device.settle(keys)
                })
            })
            .await?
    }
}
