//! The PEP nodes of our users and what is in them.

use e2ee::omemo::{Bundle, DeviceId, DeviceList, Namespace};
use minidom::Element;

use super::{IqError, vcard};
use crate::{
    error_chain,
    network::Author,
    xmpp::{
        core::Core,
        xml::{El, NICK},
    },
};

/// A node that our users have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xmpp) enum Node {
    Devices(Namespace),
    /// In legacy OMEMO every device has a node of its own; here it is named.
    Bundles(Namespace, Option<DeviceId>),
    Nick,
    Vcard,
}

const LEGACY_BUNDLES: &str = "eu.siacs.conversations.axolotl.bundles:";
const V2_BUNDLES: &str = "urn:xmpp:omemo:2:bundles";

impl Node {
    pub(in crate::xmpp) fn parse(name: &str) -> Option<Self> {
        if let Some(namespace) =
            Namespace::ALL.into_iter().find(|namespace| namespace.device_list_node() == name)
        {
            return Some(Self::Devices(namespace));
        }
        if let Some(id) = name.strip_prefix(LEGACY_BUNDLES) {
            let device = id.parse().ok().and_then(DeviceId::new)?;
            return Some(Self::Bundles(Namespace::Legacy, Some(device)));
        }
        match name {
            V2_BUNDLES => Some(Self::Bundles(Namespace::V2, None)),
            NICK => Some(Self::Nick),
            vcard::NODE => Some(Self::Vcard),
            _ => None,
        }
    }

    /// The name; for bundles, that of this device's.
    pub(in crate::xmpp) fn name(self, own: DeviceId) -> String {
        match self {
            Self::Devices(namespace) => namespace.device_list_node().to_owned(),
            Self::Bundles(Namespace::Legacy, device) => {
                format!("{LEGACY_BUNDLES}{}", device.unwrap_or(own))
            }
            Self::Bundles(Namespace::V2, _) => V2_BUNDLES.to_owned(),
            Self::Nick => NICK.to_owned(),
            Self::Vcard => vcard::NODE.to_owned(),
        }
    }
}

impl Core {
    /// The one item of a node, with its id; `None` when there is none.
    pub(super) async fn item(
        &self,
        author: &Author,
        node: Node,
    ) -> Result<Option<(String, Element)>, IqError> {
        let current = |element| Ok(Some(("current".to_owned(), element)));
        match node {
            Node::Devices(namespace) => {
                let account = self.ensure_account(author).await?;
                current(DeviceList::new(vec![account.device_id()]).to_element(namespace))
            }
            Node::Bundles(namespace, device) => {
                let account = self.ensure_account(author).await?;
                if device.is_some_and(|device| device != account.device_id()) {
                    return Ok(None);
                }
                let (_, id) = Bundle::node_and_item(namespace, account.device_id());
                Ok(Some((id, account.bundle(namespace).to_element())))
            }
            Node::Nick => match self.name_of(author).await {
                Some(name) => current(El::new("nick", NICK).text(&name).build()),
                None => Ok(None),
            },
            Node::Vcard => current(vcard::v4(self.name_of(author).await.as_deref())),
        }
    }

    /// How an author is called on XMPP.
    pub(in crate::xmpp) async fn name_of(&self, author: &Author) -> Option<String> {
        if Self::is_bridge(author) {
            return Some("Gephyra".to_owned());
        }
        match self.load_name(author).await {
            Ok(name) => name,
            Err(error) => {
                tracing::error!(error = error_chain(&error), "xmpp.pep: a name cannot be read");
                None
            }
        }
    }

    async fn load_name(&self, author: &Author) -> Result<Option<String>, crate::store::StoreError> {
        self.db.read().await?.xmpp_roster().find_name(author).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_come_back() {
        let own = DeviceId::new(7).unwrap();
        for name in [
            "eu.siacs.conversations.axolotl.devicelist",
            "urn:xmpp:omemo:2:devices",
            "eu.siacs.conversations.axolotl.bundles:7",
            "eu.siacs.conversations.axolotl.bundles:8",
            "urn:xmpp:omemo:2:bundles",
            "http://jabber.org/protocol/nick",
            "urn:xmpp:vcard4",
        ] {
            assert_eq!(Node::parse(name).unwrap().name(own), name);
        }
        for name in ["", "eu.siacs.conversations.axolotl.bundles:0", "urn:xmpp:avatar:data"] {
            assert_eq!(Node::parse(name), None, "{name}");
        }
    }
}
