//! One loaded device: its machine, and what its task does with it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use e2ee::matrix::{DeviceRole, Machine, Request, RequestBody, Response};
use matrix_sdk_crypto::store::CryptoStore;
use ruma::{DeviceId, OwnedUserId, UserId};
use tokio::sync::Notify;

use super::{Shared, claims::Claims, uploads::Uploads, verify::Verifying};
use crate::{
    matrix::{ClientError, Identity, MatrixError, error::DeviceFault},
    store::{Ghost, GhostStage, SqlCryptoStore},
};

/// Rounds of requests that may follow from each other before the rest waits for the next sync.
const MAX_ROUNDS: usize = 4;

/// One device of ours. Everything it does is done by its one task.
pub(super) struct Device {
    pub(super) user: OwnedUserId,
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Option<Arc<Machine>>,
    pub(super) verifying: Verifying,
    pub(super) uploads: Uploads,
    pub(super) claims: Claims,
    /// The homeserver has said that it does not know this device.
    pub(super) is_unknown: bool,
    /// When another device took the place of one that was gone, in milliseconds since 1970.
    pub(super) replaced_ms: Option<i64>,
    /// Kinds of requests whose failure the operator was told, since the last one that did not fail.
    told: BTreeSet<&'static str>,
    pub(super) needs: Arc<Needs>,
}

/// What a loaded device needs of those who look after it.
#[derive(Default)]
pub(super) struct Needs {
    /// It must stay loaded: it has something in memory that is nowhere else.
    pub busy: AtomicBool,
    /// It expects something to come: it is to wait for that.
    pub listen: Notify,
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
    pub(super) fn new(user: OwnedUserId, shared: Arc<Shared>, needs: Arc<Needs>) -> Self {
        Self {
            user,
            shared,
            machine: None,
            verifying: Verifying::default(),
            uploads: Uploads::default(),
            claims: Claims::default(),
            is_unknown: false,
            replaced_ms: None,
            told: BTreeSet::new(),
            needs,
        }
    }

    pub(super) fn who<'a>(&'a self, machine: &'a Machine) -> Identity<'a> {
        Identity::device(&self.user, machine.device_id())
    }

    /// The machine of the published device.
    pub(super) async fn ready(&mut self) -> Result<Arc<Machine>, MatrixError> {
        if let Some(machine) = &self.machine {
            return Ok(machine.clone());
        }
        if std::mem::take(&mut self.is_unknown) {
            self.replace_if_gone().await?;
        }
        let machine = Arc::new(self.load_published().await?);
        self.claims = Claims::default();
        self.verifying.clear();
        self.machine = Some(machine.clone());
        Ok(machine)
    }

    /// Throws the machine away after a fault that may have left it ahead of its store, and when
    /// the homeserver does not know its device.
    pub(super) fn settle<T, E: DeviceFault>(&mut self, result: Result<T, E>) -> Result<T, E> {
        let Err(error) = &result else { return result };
        let is_unknown = error.is_unknown_device();
        self.is_unknown |= is_unknown;
        if is_unknown || error.is_machine_fault() {
            self.needs.busy.store(false, Ordering::Relaxed);
            self.shared.asked.forget(&self.user);
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

    /// Sends what the machine wants to send by itself, and what follows from it. One request that
    /// the homeserver does not take stops no other: the machine offers it again the next time.
    ///
    /// # Errors
    /// When something failed that may succeed if it is tried again, after all the rest was sent.
    /// What the homeserver refuses for good is no error, nor are keys that it does not take.
    pub(super) async fn exchange(&mut self, machine: &Machine) -> Result<Exchange, MatrixError> {
        let mut exchange = Exchange::default();
        for _ in 0..MAX_ROUNDS {
            let mut requests = machine.requests().await?;
            let now_ms = self.shared.now_ms();
            self.claims.hold_back(&mut requests, now_ms);
            if self.uploads.are_paused(now_ms) {
                requests.retain(|request| !matches!(request.body, RequestBody::KeysUpload(_)));
            }
            if requests.is_empty() || !self.send_each(machine, requests, &mut exchange).await? {
                break;
            }
        }
        Ok(exchange)
    }

    /// Sends each of these requests, whatever becomes of the others. Returns whether all were taken.
    async fn send_each(
        &mut self,
        machine: &Machine,
        requests: Vec<Request>,
        exchange: &mut Exchange,
    ) -> Result<bool, MatrixError> {
        let (mut all_taken, mut fault) = (true, None);
        for request in requests {
            let kind = kind_of(&request.body);
            match self.send_one(machine, request, exchange).await {
                Ok(()) => {
                    self.told.remove(kind);
                }
                Err(MatrixError::Client(error)) if !error.is_unknown_device() => {
                    all_taken = false;
                    self.tell_of_failure(kind, &error);
                    if kind == KEYS_UPLOAD {
                        self.uploads.pause(self.shared.now_ms());
                    } else if error.is_temporary() {
                        fault.get_or_insert(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        fault.map_or(Ok(all_taken), |error| Err(error.into()))
    }

    /// Once, until one of its kind has succeeded.
    fn tell_of_failure(&mut self, kind: &'static str, error: &ClientError) {
        if self.told.insert(kind) {
            tracing::warn!(kind, error = %crate::error_chain(error), "matrix.request.failed: it is tried again");
        }
    }

    /// Sends requests in order, to the first that fails, and gives the machine their answers.
    pub(super) async fn send_all(
        &mut self,
        machine: &Machine,
        requests: Vec<Request>,
    ) -> Result<Exchange, MatrixError> {
        let mut exchange = Exchange::default();
        for request in requests {
            self.send_one(machine, request, &mut exchange).await?;
        }
        Ok(exchange)
    }

    async fn send_one(
        &mut self,
        machine: &Machine,
        Request { id, body }: Request,
        exchange: &mut Exchange,
    ) -> Result<(), MatrixError> {
        let asked: Vec<OwnedUserId> = match &body {
            RequestBody::KeysQuery(query) => query.device_keys.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let response = self.send(machine.device_id(), body).await?;
        come_to_failpoint(&response);
        exchange.queried.extend(asked);
        if let Response::KeysQuery(answer) = &response {
            exchange.silent_servers.extend(answer.failures.keys().cloned());
        }
        Ok(machine.receive_response(&id, &response).await?)
    }

    async fn send(
        &mut self,
        device: &DeviceId,
        body: RequestBody,
    ) -> Result<Response, MatrixError> {
        let client = self.shared.client.clone();
        let user = self.user.clone();
        let who = Identity::device(&user, device);
        Ok(match body {
            RequestBody::KeysUpload(request) => {
                Response::KeysUpload(self.upload_keys(device, request).await?)
            }
            RequestBody::SigningKeysUpload(request) => {
                Response::SigningKeysUpload(client.upload_signing_keys(who, request).await?)
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

const KEYS_UPLOAD: &str = "keys/upload";

/// What a request asks for, as the operator is told.
fn kind_of(body: &RequestBody) -> &'static str {
    match body {
        RequestBody::SigningKeysUpload(_) => "keys/device_signing/upload",
        RequestBody::KeysUpload(_) => KEYS_UPLOAD,
        RequestBody::SignaturesUpload(_) => "keys/signatures/upload",
        RequestBody::KeysQuery(_) => "keys/query",
        RequestBody::KeysClaim(_) => "keys/claim",
        RequestBody::ToDevice(_) => "sendToDevice",
        RequestBody::RoomEvent { .. } => "send",
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
