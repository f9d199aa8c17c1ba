//! One loaded device: its machine, and what its task does with it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use e2ee::matrix::{DeviceRole, Machine, Request, RequestBody, Response};
use matrix_sdk_crypto::store::CryptoStore;
use ruma::{DeviceId, OwnedRoomId, OwnedUserId, UserId};

use super::{Shared, verify::Verifying};
use crate::{
    matrix::{Identity, MatrixError, error::MachineFault},
    store::{Ghost, GhostStage, SqlCryptoStore},
};

/// Rounds of requests that may follow from each other before the rest waits for the next sync.
const MAX_ROUNDS: usize = 4;

/// One device of ours. Everything it does is done by its one task.
pub(super) struct Device {
    pub(super) user: OwnedUserId,
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Option<Arc<Machine>>,
    /// Whose keys were asked for, by room, since the machine was loaded. A person who was away
    /// from all shared rooms may have changed devices meanwhile, and no sync says so.
    pub(super) asked: HashMap<OwnedRoomId, BTreeSet<OwnedUserId>>,
    pub(super) verifying: Verifying,
    /// Whether it must stay loaded.
    pub(super) busy: Arc<AtomicBool>,
}

/// What a round of requests has shown.
#[derive(Default)]
pub(super) struct Exchange {
    /// Whose keys the homeserver was asked for.
    pub queried: BTreeSet<OwnedUserId>,
    /// Servers that did not answer when keys of their users were asked for.
    pub silent_servers: BTreeSet<String>,
}

impl Exchange {
    pub fn add(&mut self, other: Self) {
        self.queried.extend(other.queried);
        self.silent_servers.extend(other.silent_servers);
    }
}

impl Device {
    pub(super) fn new(user: OwnedUserId, shared: Arc<Shared>, busy: Arc<AtomicBool>) -> Self {
        let verifying = Verifying::default();
        Self { user, shared, machine: None, asked: HashMap::new(), verifying, busy }
    }

    pub(super) fn who<'a>(&'a self, machine: &'a Machine) -> Identity<'a> {
        Identity::device(&self.user, machine.device_id())
    }

    /// The machine of the published device.
    pub(super) async fn ready(&mut self) -> Result<Arc<Machine>, MatrixError> {
        if let Some(machine) = &self.machine {
            return Ok(machine.clone());
        }
        let machine = Arc::new(self.load_published().await?);
        self.asked.clear();
        self.verifying.clear();
        self.machine = Some(machine.clone());
        Ok(machine)
    }

    /// Throws the machine away after a fault that may have left it ahead of its store.
    pub(super) fn settle<T, E: MachineFault>(&mut self, result: Result<T, E>) -> Result<T, E> {
        if result.as_ref().err().is_some_and(MachineFault::is_machine_fault) {
            self.busy.store(false, Ordering::Relaxed);
            if self.machine.take().is_some() {
                // Its verifications are gone; whoever knows of any looks.
                self.shared.events.verifications_changed(&self.user);
            }
        }
        result
    }

    /// Loads the machine of a stored ghost.
    pub(super) async fn load_machine(&self, ghost: &Ghost) -> Result<Machine, MatrixError> {
        let store = SqlCryptoStore::open(&self.shared.db, &self.user, &ghost.device_id).await?;
        if ghost.stage == GhostStage::Published && store.load_account().await?.is_none() {
            return Err(MatrixError::KeysLost);
        }
        Ok(Machine::load(&self.user, &ghost.device_id, store, DeviceRole::Full).await?)
    }

    /// Sends what the machine wants to send by itself, and what follows from it.
    pub(super) async fn exchange(&self, machine: &Machine) -> Result<Exchange, MatrixError> {
        let mut exchange = Exchange::default();
        for _ in 0..MAX_ROUNDS {
            let requests = machine.requests().await?;
            if requests.is_empty() {
                break;
            }
            exchange.add(self.send_all(machine, requests).await?);
        }
        Ok(exchange)
    }

    /// Sends requests in order and gives the machine their answers.
    pub(super) async fn send_all(
        &self,
        machine: &Machine,
        requests: Vec<Request>,
    ) -> Result<Exchange, MatrixError> {
        let mut exchange = Exchange::default();
        for Request { id, body } in requests {
            if let RequestBody::KeysQuery(query) = &body {
                exchange.queried.extend(query.device_keys.keys().cloned());
            }
            let response = self.send(machine.device_id(), body).await?;
            come_to_failpoint(&response);
            if let Response::KeysQuery(answer) = &response {
                exchange.silent_servers.extend(answer.failures.keys().cloned());
            }
            machine.receive_response(&id, &response).await?;
        }
        Ok(exchange)
    }

    async fn send(&self, device: &DeviceId, body: RequestBody) -> Result<Response, MatrixError> {
        let client = &self.shared.client;
        let who = Identity::device(&self.user, device);
        Ok(match body {
            RequestBody::SigningKeysUpload(request) => {
                Response::SigningKeysUpload(client.upload_signing_keys(who, request).await?)
            }
            RequestBody::KeysUpload(request) => {
                Response::KeysUpload(client.upload_keys(who, request).await?)
            }
            RequestBody::SignaturesUpload(request) => {
                Response::SignaturesUpload(client.upload_signatures(who, request).await?)
            }
            RequestBody::KeysQuery(request) => {
                Response::KeysQuery(client.fetch_keys(who, request).await?)
            }
            RequestBody::KeysClaim(request) => {
                Response::KeysClaim(client.claim_keys(who, request).await?)
            }
            RequestBody::ToDevice(request) => {
                Response::ToDevice(client.send_to_device(who, request).await?)
            }
            // They go through the room, encrypted: see `verify`.
            RequestBody::RoomEvent { .. } => return Err(MatrixError::NotEncrypted),
        })
    }

    /// Whether this user is on a server that was silent.
    pub(super) fn is_silent(exchange: &Exchange, user: &UserId) -> bool {
        exchange.silent_servers.contains(user.server_name().as_str())
    }
}

/// The homeserver has taken a request, and nobody here has noted it.
fn come_to_failpoint(response: &Response) {
    match response {
        Response::ToDevice(_) => {
            failpoint!("w08_room_key_sent");
        }
        Response::KeysUpload(_) => {
            failpoint!("w09_keys_uploaded");
        }
        Response::SigningKeysUpload(_) => {
            failpoint!("w09_identity_uploaded");
        }
        Response::KeysClaim(_) => {
            failpoint!("w09_keys_claimed");
        }
        _ => {}
    }
}
