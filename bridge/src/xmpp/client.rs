//! The component as the portal sees it.

use std::sync::Arc;

use async_trait::async_trait;
use minidom::Element;
use rand_core::CryptoRngCore;
use tokio_util::sync::CancellationToken;

use super::{
    XmppConfig,
    core::Core,
    encrypt::{devices_error, failed, temporary},
    pep::{Node, vcard},
    trust::PresentedDevice,
    uri::AccountUri,
    xml::{El, NICK, PUBSUB},
};
use crate::{
    clock::Clock,
    error_chain,
    network::{
        Author, ChatKey, Decider, DeviceDecision, Inquiries, NetworkClient, OutgoingMessage,
        OwnDevice, RemoteDevice, RemoteEvents, RemoteUserId, SendError, Sent, Undecided,
        VerifyUriError,
    },
    store::{Database, StoreError},
};

/// Longest name that is carried.
const MAX_NAME_CHARS: usize = 100;

/// The component: one login that serves every Matrix user.
pub struct XmppClient(Arc<Core>);

impl XmppClient {
    /// A component that is not connected yet; [`NetworkClient::run`] connects it.
    pub fn new(
        config: XmppConfig,
        db: Database,
        clock: Arc<dyn Clock>,
        rng: Box<dyn CryptoRngCore + Send>,
        events: Arc<dyn RemoteEvents>,
        inquiries: Arc<dyn Inquiries>,
    ) -> Arc<Self> {
        Arc::new(Self(Core::new(config, db, clock, rng, events, inquiries)))
    }

    #[cfg(test)]
    pub(super) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.0)
    }

    async fn save_name(&self, author: &Author, name: &str) -> Result<bool, StoreError> {
        if self.0.db.read().await?.xmpp_roster().find_name(author).await?.as_deref() == Some(name) {
            return Ok(false);
        }
        let mut tx = self.0.db.begin().await?;
        tx.xmpp_roster().save_name(author, name).await?;
        tx.commit().await?;
        self.0.publish_to_all(author, Node::Nick).await?;
        Ok(true)
    }

    async fn chat_with(&self, contact: &RemoteUserId) -> ChatKey {
        let known = async { self.0.db.read().await?.xmpp_roster().find_chat_with(contact).await };
        let known = known.await.unwrap_or_else(|error: StoreError| {
            tracing::error!(error = error_chain(&error), "xmpp.roster: the store failed");
            None
        });
        known.unwrap_or_else(|| ChatKey { local: Author::Bridge, contact: contact.clone() })
    }
}

#[async_trait]
impl NetworkClient for XmppClient {
    async fn run(&self, stop: CancellationToken) {
        let core = &self.0;
        tokio::select! {
            () = async { tokio::join!(core.ring_for_all(), core.keep_connected()); } => {}
            () = core.expire_now_and_then() => {}
            () = async { stop.cancelled().await; core.stop.cancel(); std::future::pending().await } => {}
        }
        core.stop.cancel();
        core.tasks.close();
        core.tasks.wait().await;
    }

    async fn send(&self, message: OutgoingMessage) -> Result<Sent, SendError> {
        self.0.send_message(&message).await
    }

    async fn decide(
        &self,
        chat: &ChatKey,
        fingerprints: &[String],
        decision: DeviceDecision,
        decided_by: &Decider,
    ) -> Result<usize, SendError> {
        let decided = self.0.decide_about(chat, fingerprints, decision, decided_by).await;
        decided.map_err(devices_error)
    }

    async fn undecided(&self, chat: &ChatKey) -> Result<Undecided, SendError> {
        self.0.load_undecided(chat).await.map_err(temporary)
    }

    async fn new_devices_wait(&self, chat: &ChatKey) -> Result<bool, SendError> {
        let wait = async { self.0.db.read().await?.xmpp_omemo().new_devices_wait(chat).await };
        wait.await.map_err(temporary)
    }

    async fn own_uri(&self, author: &Author) -> Result<String, SendError> {
        let jid = self.0.addresses.jid(author);
        let jid = jid.map_err(|error| SendError::Rejected(error.to_string()))?;
        let account = self.0.ensure_account(author).await.map_err(failed)?;
        let devices = vec![(account.device_id(), account.identity_key())];
        Ok(AccountUri { jid, devices }.to_text())
    }

    async fn own_device(&self, author: &Author) -> Result<OwnDevice, SendError> {
        let account = self.0.ensure_account(author).await.map_err(failed)?;
        let fingerprint = account.identity_key().fingerprint();
        Ok(OwnDevice { id: account.device_id().to_string(), fingerprint })
    }

    async fn match_uri(&self, chat: &ChatKey, uri: &str) -> Result<Vec<String>, VerifyUriError> {
        self.0.match_uri(chat, uri).await
    }

    async fn contact_name(&self, contact: &RemoteUserId) -> Option<String> {
        let chat = self.chat_with(contact).await;
        let items = El::new("items", PUBSUB).attr("node", NICK).attr("max_items", "1");
        let request = El::new("pubsub", PUBSUB).child(items).build();
        let answer = self.0.ask(&chat, "get", request).await.ok().flatten();
        if let Some(name) = answer.as_ref().and_then(read_nick).and_then(usable_name) {
            return Some(name);
        }
        let request = El::new("vCard", vcard::TEMP).build();
        let answer = self.0.ask(&chat, "get", request).await.ok().flatten()?;
        vcard::read_temp(&answer).and_then(usable_name)
    }

    async fn publish_name(&self, user: &ruma::UserId, name: &str) {
        let Some(name) = usable_name(name.to_owned()) else { return };
        if let Err(error) = self.save_name(&Author::Person(user.to_owned()), &name).await {
            tracing::error!(error = error_chain(&error), "xmpp.pep: a name could not be stored");
        }
    }

    async fn devices(&self, chat: &ChatKey) -> Result<Vec<RemoteDevice>, SendError> {
        let presented = self.0.presented_devices(chat).await.map_err(devices_error)?;
        Ok(presented.iter().map(PresentedDevice::describe).collect())
    }
}

fn read_nick(answer: &Element) -> Option<String> {
    let item = answer.get_child("items", PUBSUB)?.get_child("item", PUBSUB)?;
    Some(item.get_child("nick", NICK)?.text())
}

fn usable_name(name: String) -> Option<String> {
    let name: String =
        name.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    (!name.is_empty()).then_some(name)
}
