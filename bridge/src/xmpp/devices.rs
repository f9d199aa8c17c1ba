//! The devices and bundles of contacts: fetched, kept, refreshed by pushes (XEP-0384, XEP-0163).

use std::collections::{BTreeMap, BTreeSet};

use e2ee::omemo::{Bundle, DeviceId, DeviceList, Namespace};
use futures_util::{StreamExt as _, stream};
use minidom::Element;
use tokio::time::timeout;

use super::{
    core::{Core, PATIENCE},
    link::RequestError,
    xml::{El, PUBSUB, PUBSUB_EVENT},
};
use crate::{
    error_chain,
    network::{Author, ChatKey},
    queue::aside,
    store::{KnownDevices, StoreError},
};

/// A server that did not answer is not asked again for this long: each question takes as long as
/// we are patient, and others wait for their turn.
const SILENT_FOR_MS: u64 = 30 * 1000;
/// Bundles asked for at the same time.
const AT_ONCE: usize = 8;
/// A bundle that could not be had is asked for again after this long.
const MISSING_FOR_MS: u64 = 10 * 60 * 1000;
/// One that was not answered for, after this long.
const UNANSWERED_FOR_MS: u64 = 30 * 1000;
/// An empty list is asked for again after this long.
const EMPTY_FOR_MS: i64 = 10 * 60 * 1000;

/// A contact's devices in both namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Devices {
    pub legacy: Vec<DeviceId>,
    pub v2: Vec<DeviceId>,
}

impl Devices {
    pub(super) fn of(&self, namespace: Namespace) -> &[DeviceId] {
        match namespace {
            Namespace::Legacy => &self.legacy,
            Namespace::V2 => &self.v2,
        }
    }

    pub(super) fn all(&self) -> BTreeSet<DeviceId> {
        self.legacy.iter().chain(&self.v2).copied().collect()
    }

    /// These devices, without any others.
    pub(super) fn only(&self, wanted: &BTreeSet<DeviceId>) -> Self {
        let only =
            |ids: &[DeviceId]| ids.iter().filter(|id| wanted.contains(id)).copied().collect();
        Self { legacy: only(&self.legacy), v2: only(&self.v2) }
    }

    /// Who reads a message that goes out in this namespace: the devices that have it and, beside a
    /// legacy message, those that have only omemo:2. A client reads the element that it knows.
    pub(super) fn audiences(&self, namespace: Namespace) -> Vec<(Namespace, Vec<DeviceId>)> {
        let mut audiences = vec![(namespace, self.of(namespace).to_vec())];
        if namespace == Namespace::Legacy {
            let only_v2 = self.v2.iter().filter(|device| !self.legacy.contains(device));
            audiences.push((Namespace::V2, only_v2.copied().collect()));
        }
        audiences.retain(|(_, devices)| !devices.is_empty());
        audiences
    }

    /// The namespaces to try, best first: omemo:2 when every device has it, else legacy.
    pub(super) fn preference(&self) -> Vec<Namespace> {
        let all_have_v2 = self.legacy.iter().all(|device| self.v2.contains(device));
        let order = if all_have_v2 {
            [Namespace::V2, Namespace::Legacy]
        } else {
            [Namespace::Legacy, Namespace::V2]
        };
        order.into_iter().filter(|namespace| !self.of(*namespace).is_empty()).collect()
    }
}

/// Why a contact's devices are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevicesError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Their server did not answer or was not found, or ours is not connected. Servers say "not
    /// found" also of one that is being started.
    #[error("the contact's server did not answer")]
    NoAnswer,
}

/// What fetching one item has shown.
enum Fetched {
    Item(Element),
    /// There is none.
    Nothing,
    /// There may be one, but not for us.
    Hidden,
}

impl Core {
    /// The contact's devices, asked for once per stream and kept fresh by pushes from then on.
    pub(super) async fn ensure_devices(&self, chat: &ChatKey) -> Result<Devices, DevicesError> {
        let known = self.load_devices(chat).await?;
        if let Some(devices) = &known
            && self.seen.is_list_fresh(chat)
        {
            return Ok(devices.clone());
        }
        match (self.fetch_devices(chat).await, known) {
            // Better the devices of yesterday than none: pushes and errors will tell.
            (Err(DevicesError::NoAnswer), Some(devices)) if !devices.all().is_empty() => {
                Ok(devices)
            }
            (fetched, _) => fetched,
        }
    }

    /// `None` when either list is unknown, or both are empty and that was a while ago.
    pub(super) async fn load_devices(&self, chat: &ChatKey) -> Result<Option<Devices>, StoreError> {
        let mut tx = self.db.read().await?;
        let legacy = tx.xmpp_omemo().find_devices(chat, Namespace::Legacy).await?;
        let v2 = tx.xmpp_omemo().find_devices(chat, Namespace::V2).await?;
        let (Some(legacy), Some(v2)) = (legacy, v2) else { return Ok(None) };
        let age_ms = self.now_ms().saturating_sub(legacy.known_ms.max(v2.known_ms));
        let is_recent = (0..=EMPTY_FOR_MS).contains(&age_ms);
        if legacy.devices.is_empty() && v2.devices.is_empty() && !is_recent {
            return Ok(None);
        }
        Ok(Some(Devices { legacy: legacy.devices, v2: v2.devices }))
    }

    async fn fetch_devices(&self, chat: &ChatKey) -> Result<Devices, DevicesError> {
        let pushes = |namespace| (namespace, self.seen.pushes(chat, namespace));
        let before = Namespace::ALL.map(pushes);
        // Subscribed first, so that no change falls between the list and the first push.
        for namespace in Namespace::ALL {
            self.subscribe_to(chat, namespace.device_list_node()).await;
        }
        let (legacy, v2) = tokio::join!(
            self.fetch_list(chat, Namespace::Legacy),
            self.fetch_list(chat, Namespace::V2)
        );
        let lists = [(Namespace::Legacy, legacy?), (Namespace::V2, v2?)];
        let mut devices = Devices::default();
        let mut all_visible = true;
        let mut tx = self.db.begin().await?;
        for (namespace, list) in lists {
            let is_pushed = !before.contains(&pushes(namespace));
            let list = match list {
                // A push that came meanwhile is as new as the answer, or newer.
                Some(_) if is_pushed => {
                    let known = tx.xmpp_omemo().find_devices(chat, namespace).await?;
                    known.map(|known| known.devices).unwrap_or_default()
                }
                Some(list) => {
                    let known = KnownDevices { devices: list, known_ms: self.now_ms() };
                    tx.xmpp_omemo().save_devices(chat, namespace, &known).await?;
                    known.devices
                }
                // What cannot be seen now is not gone.
                None => {
                    all_visible = false;
                    let known = tx.xmpp_omemo().find_devices(chat, namespace).await?;
                    known.map(|known| known.devices).unwrap_or_default()
                }
            };
            match namespace {
                Namespace::Legacy => devices.legacy = list,
                Namespace::V2 => devices.v2 = list,
            }
        }
        if all_visible && chat.local == Author::Bridge {
            tx.xmpp_omemo().forget_unlisted_pins(chat).await?;
        }
        tx.commit().await?;
        if all_visible {
            self.seen.list_is_fresh(chat);
        }
        Ok(devices)
    }

    /// `None` when the list is hidden from us or unreadable.
    async fn fetch_list(
        &self,
        chat: &ChatKey,
        namespace: Namespace,
    ) -> Result<Option<Vec<DeviceId>>, DevicesError> {
        Ok(match self.fetch_item(chat, namespace.device_list_node(), None).await? {
            Fetched::Item(element) => {
                // A list that cannot be read tells nothing of what is in it.
                DeviceList::from_element(namespace, &element).ok().map(|list| list.devices)
            }
            Fetched::Nothing => Some(Vec::new()),
            Fetched::Hidden => None,
        })
    }

    async fn fetch_item(
        &self,
        chat: &ChatKey,
        node: &str,
        item: Option<&str>,
    ) -> Result<Fetched, DevicesError> {
        let items = match item {
            Some(id) => El::new("items", PUBSUB)
                .attr("node", node)
                .child(El::new("item", PUBSUB).attr("id", id)),
            None => El::new("items", PUBSUB).attr("node", node).attr("max_items", "1"),
        };
        let request = El::new("pubsub", PUBSUB).child(items).build();
        match self.ask(chat, "get", request).await {
            Ok(Some(answer)) => Ok(first_item(&answer, PUBSUB, node)
                .map_or(Fetched::Nothing, |content| Fetched::Item(content.clone()))),
            Ok(None) => Ok(Fetched::Nothing),
            Err(RequestError::Refused(condition)) => match condition.as_str() {
                condition if is_of_silence(condition) => Err(DevicesError::NoAnswer),
                "resource-constraint" | "internal-server-error" => Err(DevicesError::NoAnswer),
                "forbidden" | "not-authorized" | "subscription-required" => Ok(Fetched::Hidden),
                _ => Ok(Fetched::Nothing),
            },
            Err(RequestError::Down | RequestError::Busy | RequestError::TimedOut) => {
                Err(DevicesError::NoAnswer)
            }
        }
    }

    /// Asks the contact's account something in the name of the chat's Matrix user.
    pub(super) async fn ask(
        &self,
        chat: &ChatKey,
        kind: &str,
        payload: Element,
    ) -> Result<Option<Element>, RequestError> {
        let (own, contact) = self.jids(chat).map_err(|_| RequestError::Down)?;
        let id = self.random_id();
        let stanza = El::stanza("iq")
            .attr("type", kind)
            .attr("id", id.as_str())
            .attr("from", own.as_str())
            .attr("to", contact.as_str())
            .child(payload)
            .build();
        let domain = contact.domain().as_str();
        if self.seen.is_silent(domain, self.clock.now_ms()) {
            return Err(RequestError::TimedOut);
        }
        aside(async {
            let slot = self.seen.slots_of(domain).acquire_owned();
            let slot = timeout(PATIENCE, slot).await.map_err(|_| RequestError::Busy)?;
            // Those before may have learnt that it does not answer.
            if self.seen.is_silent(domain, self.clock.now_ms()) {
                return Err(RequestError::TimedOut);
            }
            let answer = self.link.request(&stanza, &id, contact.as_str(), PATIENCE).await;
            let is_silent = match &answer {
                Err(RequestError::TimedOut) => true,
                Err(RequestError::Refused(condition)) => is_of_silence(condition),
                Ok(_) | Err(RequestError::Down | RequestError::Busy) => false,
            };
            if is_silent {
                let until_ms = self.clock.now_ms().saturating_add(SILENT_FOR_MS);
                self.seen.is_now_silent(domain, until_ms);
            }
            drop(slot);
            answer
        })
        .await
    }

    /// Subscribes to a contact's node without waiting for the answer: where it is refused, the
    /// list is fetched again on the next stream.
    async fn subscribe_to(&self, chat: &ChatKey, node: &str) {
        let Ok((own, contact)) = self.jids(chat) else { return };
        let subscribe = El::new("subscribe", PUBSUB).attr("node", node).attr("jid", own.as_str());
        let stanza = El::stanza("iq")
            .attr("type", "set")
            .attr("id", self.random_id())
            .attr("from", own.as_str())
            .attr("to", contact.as_str())
            .child(El::new("pubsub", PUBSUB).child(subscribe))
            .build();
        let _ = self.link.write(&stanza).await;
    }

    /// Fetches bundles, several at a time. Devices whose bundle cannot be had or used are left
    /// out, and not asked for again for a while.
    pub(super) async fn fetch_bundles(
        &self,
        chat: &ChatKey,
        namespace: Namespace,
        devices: Vec<DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Bundle>, DevicesError> {
        let now_ms = self.clock.now_ms();
        let wanted = devices
            .into_iter()
            .filter(|device| !self.seen.is_bundle_missing(chat, *device, namespace, now_ms));
        let fetched: Vec<_> = stream::iter(wanted)
            .map(|device| async move { (device, self.fetch_bundle(chat, namespace, device).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut bundles = BTreeMap::new();
        for (device, bundle) in fetched {
            let missing_for_ms = match bundle {
                Ok(Some(bundle)) => {
                    bundles.insert(device, bundle);
                    continue;
                }
                Ok(None) => MISSING_FOR_MS,
                // One device whose bundle cannot be had does not stop the message to the others.
                Err(DevicesError::NoAnswer) => UNANSWERED_FOR_MS,
                Err(error) => return Err(error),
            };
            let until_ms = now_ms.saturating_add(missing_for_ms);
            self.seen.bundle_is_missing(chat, device, namespace, until_ms);
        }
        Ok(bundles)
    }

    async fn fetch_bundle(
        &self,
        chat: &ChatKey,
        namespace: Namespace,
        device: DeviceId,
    ) -> Result<Option<Bundle>, DevicesError> {
        let (node, item) = Bundle::node_and_item(namespace, device);
        // Legacy clients name the item as they like: there is one item per node.
        let item = (namespace == Namespace::V2).then_some(item.as_str());
        let Fetched::Item(element) = self.fetch_item(chat, &node, item).await? else {
            return Ok(None);
        };
        match Bundle::from_element(namespace, &element) {
            Ok(bundle) => Ok(Some(bundle)),
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    "xmpp.devices: a contact's bundle is unusable"
                );
                Ok(None)
            }
        }
    }

    /// Takes a push. It counts only for the JID it came from, and only from people we have met.
    pub(super) async fn receive_push(&self, chat: &ChatKey, event: &Element) {
        for namespace in Namespace::ALL {
            let Some(content) = first_item(event, PUBSUB_EVENT, namespace.device_list_node())
            else {
                continue;
            };
            let Ok(list) = DeviceList::from_element(namespace, content) else { continue };
            match self.save_pushed(chat, namespace, list).await {
                Ok(true) => self.events.unblocked(chat),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(
                        error = error_chain(&error),
                        "xmpp.devices: a push could not be stored"
                    );
                    self.seen.forget(chat);
                }
            }
        }
    }

    /// Returns whether the list has changed.
    async fn save_pushed(
        &self,
        chat: &ChatKey,
        namespace: Namespace,
        list: DeviceList,
    ) -> Result<bool, StoreError> {
        if !self.db.read().await?.xmpp_roster().has_met(chat).await? {
            return Ok(false);
        }
        let known = KnownDevices { devices: list.devices, known_ms: self.now_ms() };
        let mut tx = self.db.begin().await?;
        // Counted while no other transaction writes: who sees it sees what it counts.
        self.seen.pushed(chat, namespace);
        let changed = tx.xmpp_omemo().save_devices(chat, namespace, &known).await?;
        if changed && chat.local == Author::Bridge {
            tx.xmpp_omemo().forget_unlisted_pins(chat).await?;
        }
        tx.commit().await?;
        self.seen.bundles_may_be_new(chat);
        Ok(changed)
    }
}

/// Stanza error conditions with which a server says that another one does not answer.
fn is_of_silence(condition: &str) -> bool {
    matches!(condition, "remote-server-not-found" | "remote-server-timeout")
}

/// The content of the newest item of a node.
fn first_item<'a>(parent: &'a Element, namespace: &str, node: &str) -> Option<&'a Element> {
    parent
        .children()
        .find(|child| child.is("items", namespace) && child.attr("node") == Some(node))?
        .children()
        .find(|child| child.is("item", namespace))?
        .children()
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(legacy: &[u32], v2: &[u32]) -> Devices {
        let ids = |ids: &[u32]| ids.iter().filter_map(|id| DeviceId::new(*id)).collect();
        Devices { legacy: ids(legacy), v2: ids(v2) }
    }

    #[test]
    fn omemo_2_is_for_contacts_who_have_it_everywhere() {
        use Namespace::{Legacy, V2};
        assert_eq!(devices(&[], &[]).preference(), []);
        assert_eq!(devices(&[1], &[]).preference(), [Legacy]);
        assert_eq!(devices(&[], &[1]).preference(), [V2]);
        assert_eq!(devices(&[1, 2], &[1, 2, 3]).preference(), [V2, Legacy]);
        assert_eq!(devices(&[1, 2], &[1]).preference(), [Legacy, V2]);
    }

    #[test]
    fn a_device_that_has_only_omemo_2_reads_beside_legacy_ones() {
        use Namespace::{Legacy, V2};
        let audiences = |devices: &Devices, namespace| {
            let ids = |ids: Vec<DeviceId>| ids.iter().map(|id| id.value()).collect::<Vec<_>>();
            let audiences = devices.audiences(namespace);
            audiences.into_iter().map(|(namespace, devices)| (namespace, ids(devices))).collect()
        };
        let mixed = devices(&[1, 2], &[2, 3]);
        let both: Vec<_> = audiences(&mixed, Legacy);
        assert_eq!(both, [(Legacy, vec![1, 2]), (V2, vec![3])]);
        let one: Vec<_> = audiences(&mixed, V2);
        assert_eq!(one, [(V2, vec![2, 3])]);
        let one: Vec<_> = audiences(&devices(&[1], &[1]), Legacy);
        assert_eq!(one, [(Legacy, vec![1])]);
    }

    #[test]
    fn an_item_counts_only_for_its_node() {
        let event: Element = "<event xmlns='http://jabber.org/protocol/pubsub#event'>\
             <items node='other'><item id='1'><a xmlns='x'/></item></items>\
             <items node='wanted'><item id='1'><b xmlns='x'/></item></items></event>"
            .parse()
            .unwrap();
        assert_eq!(first_item(&event, PUBSUB_EVENT, "wanted").unwrap().name(), "b");
        assert!(first_item(&event, PUBSUB_EVENT, "none").is_none());
        assert!(first_item(&event, PUBSUB, "wanted").is_none());
    }
}
