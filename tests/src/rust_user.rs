//! A person on a client built on matrix-sdk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt as _};
use matrix_sdk::deserialized_responses::{EncryptionInfo, ShieldState};
use matrix_sdk::encryption::EncryptionSettings;
use matrix_sdk::encryption::verification::SasVerification;
use matrix_sdk::ruma::api::client::filter::FilterDefinition;
use matrix_sdk::ruma::api::client::keys::claim_keys;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request, RoomPreset};
use matrix_sdk::ruma::events::InitialStateEvent;
use matrix_sdk::ruma::events::key::verification::VerificationMethod;
use matrix_sdk::ruma::events::receipt::ReceiptThread;
use matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::member::{MembershipState, OriginalSyncRoomMemberEvent};
use matrix_sdk::ruma::events::room::message::{
    OriginalSyncRoomMessageEvent, RoomMessageEventContent,
};
use matrix_sdk::ruma::{
    OneTimeKeyAlgorithm, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
};
use matrix_sdk::{Client, Room, config::SyncSettings};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::journal::{Journal, SOON, Writer, journal};
use crate::synapse::{Account, Synapse};

/// Events of a room that one sync brings; no more than the homeserver allows.
const TIMELINE: u32 = 1000;

/// What happens in the client's rooms.
#[derive(Debug, Clone)]
pub enum Happening {
    /// Somebody's message.
    Message(Message),
    /// An event that could not be decrypted.
    Undecryptable,
    /// Somebody joined a room.
    Joined(OwnedRoomId, OwnedUserId),
}

/// A message, and what the client thinks of its sender.
#[derive(Debug, Clone)]
pub struct Message {
    /// The room.
    pub room: OwnedRoomId,
    /// Its id.
    pub event: OwnedEventId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The text.
    pub body: String,
    /// How it was encrypted; `None` for a message in the clear.
    pub encryption: Option<EncryptionInfo>,
}

impl Message {
    /// Whether it came encrypted, and a client like Element would show no shield beside it, in the strict form too.
    pub fn is_unshielded(&self) -> bool {
        self.encryption.as_ref().is_some_and(|info| {
            let lax = info.verification_state.to_shield_state_lax();
            matches!(lax, ShieldState::None)
        })
    }
}

/// One signed-in device of one person. It stops syncing when it is dropped.
#[derive(Debug)]
pub struct RustUser {
    account: Account,
    client: Client,
    pub(crate) happenings: Journal<Happening>,
    _end: DropGuard,
}

impl RustUser {
    /// A new person whose device is signed by their own cross-signing keys.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn start(server: &Synapse, localpart: &str) -> Result<Self> {
        let account = server.register(localpart).await?;
        let settings =
            EncryptionSettings { auto_enable_cross_signing: true, ..EncryptionSettings::default() };
        let client = Client::builder()
            .homeserver_url(server.url())
            .with_encryption_settings(settings)
            .build()
            .await
            .context("building the Matrix client")?;
        let login = client.matrix_auth().login_username(&account.localpart, &account.password);
        login.initial_device_display_name("Rust").send().await.context("logging in")?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;

        let (writer, happenings) = journal();
        listen(&client, writer);
        client.sync_once(settings_of_sync()).await.context("the first sync")?;
        let end = CancellationToken::new();
        let (syncing, ended) = (client.clone(), end.clone());
        TaskTracker::new().spawn(async move {
            let sync = syncing.sync(settings_of_sync().timeout(Duration::from_secs(20)));
            ended.run_until_cancelled(sync).await
        });
        Ok(Self { account, client, happenings, _end: end.drop_guard() })
    }

    /// The full Matrix id.
    pub fn user_id(&self) -> &str {
        &self.account.user_id
    }

    /// The device id.
    ///
    /// # Errors
    /// When the client is logged out.
    pub fn device_id(&self) -> Result<String> {
        Ok(self.client.device_id().context("logged out")?.to_string())
    }

    /// The account, for logging in elsewhere.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Stores this person's keys on the homeserver, for their other devices; gives the key that opens them.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn make_recovery_key(&self) -> Result<String> {
        let recovery = self.client.encryption().recovery();
        recovery.enable().await.context("making a recovery key")
    }

    /// Makes an encrypted direct chat.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn create_chat_with(&self, user: &str) -> Result<Room> {
        let encryption = RoomEncryptionEventContent::with_recommended_defaults();
        let mut request = Request::new();
        request.invite = vec![UserId::parse(user)?];
        request.is_direct = true;
        request.preset = Some(RoomPreset::TrustedPrivateChat);
        request.initial_state =
            vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
        self.client.create_room(request).await.context("creating a room")
    }

    /// Waits for an invitation from somebody, and joins.
    ///
    /// # Errors
    /// When none comes.
    pub async fn accept_invitation_from(&self, user: &str) -> Result<Room> {
        let mut updates = self.client.subscribe_to_all_room_updates();
        let invited = async {
            loop {
                for room in self.client.invited_rooms() {
                    let invite = room.invite_details().await?;
                    if invite.inviter.is_some_and(|inviter| inviter.user_id() == user) {
                        return anyhow::Ok(room);
                    }
                }
                updates.recv().await.context("the client stopped")?;
            }
        };
        let room = tokio::time::timeout(SOON, invited).await.context("no invitation came")??;
        self.client.join_room_by_id(room.room_id()).await.context("joining")
    }

    /// Waits until somebody has joined a room.
    ///
    /// # Errors
    /// When they do not.
    pub async fn sees_join(&self, room: &RoomId, user: &str) -> Result<()> {
        self.happenings
            .wait_for(&format!("{user} to join"), SOON, |happening| match happening {
                Happening::Joined(where_, who) if where_ == room && who == user => Some(()),
                _ => None,
            })
            .await
    }

    /// Sends a text, encrypted where the room is.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn send(&self, room: &Room, body: &str) -> Result<()> {
        let content = RoomMessageEventContent::text_plain(body);
        room.send(content).await.context("sending")?;
        Ok(())
    }

    /// Has read a room up to this event, and says so.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn reads(&self, room: &Room, event: OwnedEventId) -> Result<()> {
        let receipt = room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, event);
        receipt.await.context("sending a receipt")
    }

    /// Waits until the client shows a message with this text.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn receives(&self, body: &str) -> Result<Message> {
        self.happenings
            .wait_for(&format!("`{body}`"), SOON, |happening| match happening {
                Happening::Message(message) if message.body == body => Some(message.clone()),
                _ => None,
            })
            .await
    }

    /// Asks somebody with whom this person has a direct chat to compare emoji, and waits for the emoji.
    ///
    /// # Errors
    /// When the other side does not want it, or it ends before.
    pub async fn compare_with(&self, user: &str) -> Result<SasVerification> {
        let identity = self.client.encryption().get_user_identity(&UserId::parse(user)?).await?;
        let identity = identity.context("they have no identity")?;
        let methods = vec![VerificationMethod::SasV1];
        let request = identity.request_verification_with_methods(methods).await?;
        let changes = request.changes();
        let ready = changes.filter(|_| std::future::ready(request.is_ready()));
        ensure!(request.is_ready() || comes(ready).await?, "the request was refused");
        let sas = request.start_sas().await?.context("the comparison could not begin")?;
        let changes = sas.changes();
        let shown = changes.filter(|_| std::future::ready(sas.can_be_presented()));
        ensure!(sas.can_be_presented() || comes(shown).await?, "nothing is shown");
        Ok(sas)
    }

    /// Says that the emoji are the same, and waits until the other side has said so too.
    ///
    /// # Errors
    /// When it ends in another way.
    pub async fn confirm(&self, sas: &SasVerification) -> Result<()> {
        sas.confirm().await?;
        let changes = sas.changes();
        let ended = changes.filter(|_| std::future::ready(sas.is_done() || sas.is_cancelled()));
        ensure!(sas.is_done() || comes(ended).await? && sas.is_done(), "it was cancelled");
        Ok(())
    }

    /// Takes a one-time key of somebody's device and does nothing with it.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn claim_one_time_key(&self, user: &str, device: &str) -> Result<()> {
        let device = [(device.into(), OneTimeKeyAlgorithm::SignedCurve25519)].into();
        let claim = claim_keys::v3::Request::new([(UserId::parse(user)?, device)].into());
        self.client.send(claim).await.context("claiming a one-time key").map(drop)
    }

    /// The devices of somebody, as the client knows them.
    ///
    /// # Errors
    /// When the client's store failed.
    pub async fn devices_of(&self, user: &str) -> Result<Vec<String>> {
        let user = UserId::parse(user)?;
        let devices = self.client.encryption().get_user_devices(&user).await?;
        Ok(devices.devices().map(|device| device.device_id().to_string()).collect())
    }

    /// How many events could not be decrypted.
    pub fn undecryptable(&self) -> usize {
        let failed = |happening: &&Happening| matches!(happening, Happening::Undecryptable);
        self.happenings.read(|all| all.iter().filter(failed).count())
    }
}

/// The client shows everything that happened while it did not look.
fn settings_of_sync() -> SyncSettings {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(TIMELINE.into());
    SyncSettings::default().filter(filter.into())
}

/// Whether a stream brings anything before it ends.
async fn comes<T>(stream: impl Stream<Item = T>) -> Result<bool> {
    let mut stream = std::pin::pin!(stream);
    Ok(tokio::time::timeout(SOON, stream.next()).await.context("it took too long")?.is_some())
}

fn listen(client: &Client, happenings: Writer<Happening>) {
    let writer = std::sync::Arc::new(happenings);
    let me = client.user_id().map(ToOwned::to_owned);
    let to = writer.clone();
    client.add_event_handler(
        move |event: OriginalSyncRoomMessageEvent,
              room: Room,
              encryption: Option<EncryptionInfo>| {
            if Some(&event.sender) != me.as_ref() {
                to.push(Happening::Message(Message {
                    room: room.room_id().to_owned(),
                    event: event.event_id,
                    sender: event.sender,
                    body: event.content.body().to_owned(),
                    encryption,
                }));
            }
            std::future::ready(())
        },
    );
    let to = writer.clone();
    client.add_event_handler(move |_: OriginalSyncRoomEncryptedEvent| {
        to.push(Happening::Undecryptable);
        std::future::ready(())
    });
    client.add_event_handler(move |event: OriginalSyncRoomMemberEvent, room: Room| {
        if event.content.membership == MembershipState::Join {
            let joined = Happening::Joined(room.room_id().to_owned(), event.state_key);
            writer.push(joined);
        }
        std::future::ready(())
    });
}
