//! Prekey bundles: what a device publishes so that others can start sessions with it.
//!
//! Spec: XEP-0384 0.3 section 4.3 and 0.9 section 5.3.2. The two namespaces name the same parts
//! differently; `wire::bundle_names` holds the names.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minidom::Element;
use rand_core::{CryptoRng, RngCore};

use super::{
    Namespace,
    debug::hidden_debug,
    error::{InvalidBundle, InvalidElement},
    identity::{self, IdentityKey, IdentityKeyPair},
    keys::PublicKey,
    limits::{MAX_BUNDLE_PREKEYS, MAX_KEY_BYTES},
    prekeys::Prekeys,
    wire::{self, BundleNames},
};

hidden_debug!(Bundle);

/// A bundle whose keys and signature have been checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    namespace: Namespace,
    identity: IdentityKey,
    /// The identity's Ed25519 form with the sign bit it signs with.
    identity_ed25519: [u8; 32],
    signed_prekey: Prekey,
    signature: [u8; 64],
    prekeys: Vec<Prekey>,
}

/// The public half of a prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prekey {
    pub(crate) id: u32,
    pub(crate) key: PublicKey,
}

impl Bundle {
    pub(crate) fn of(namespace: Namespace, identity: &IdentityKeyPair, prekeys: &Prekeys) -> Self {
        let signed = prekeys.signed();
        let one_time = prekeys.one_time().iter();
        Self {
            namespace,
            identity: identity.public(),
            identity_ed25519: identity.ed25519(),
            signed_prekey: Prekey { id: signed.id, key: signed.key.public() },
            signature: signed.signature,
            prekeys: one_time.map(|(id, key)| Prekey { id: *id, key: key.public() }).collect(),
        }
    }

    /// The PEP node and item id under which a device's bundle is published.
    pub fn node_and_item(namespace: Namespace, device: super::DeviceId) -> (String, String) {
        match namespace {
            Namespace::Legacy => {
                (format!("eu.siacs.conversations.axolotl.bundles:{device}"), "current".to_owned())
            }
            Namespace::V2 => ("urn:xmpp:omemo:2:bundles".to_owned(), device.to_string()),
        }
    }

    /// Which version of OMEMO it is for.
    pub const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Whose bundle it is.
    pub const fn identity(&self) -> IdentityKey {
        self.identity
    }

    pub(crate) const fn identity_ed25519(&self) -> &[u8; 32] {
        &self.identity_ed25519
    }

    pub(crate) const fn signed_prekey(&self) -> Prekey {
        self.signed_prekey
    }

    /// One of the one-time prekeys, at random, so that two people rarely take the same one.
    pub(crate) fn pick_prekey(&self, rng: &mut (impl CryptoRng + RngCore)) -> Option<Prekey> {
        let count = u64::try_from(self.prekeys.len()).ok()?;
        let index = usize::try_from(rng.next_u64().checked_rem(count)?).ok()?;
        self.prekeys.get(index).copied()
    }

    /// Reads and checks a `<bundle>`.
    ///
    /// # Errors
    /// [`InvalidBundle`] when a part is missing or malformed, the identity key is no key, or the
    /// signed prekey is not signed by it.
    pub fn from_element(namespace: Namespace, element: &Element) -> Result<Self, InvalidBundle> {
        let names = wire::bundle_names(namespace);
        if !element.is("bundle", namespace.uri()) {
            return Err(InvalidElement::Name("bundle").into());
        }
        let signed = required_child(element, namespace, names.signed_prekey)?;
        let signed_prekey = Prekey {
            id: prekey_id(signed, names.signed_prekey_id, names.signed_prekey)?,
            key: public_key(signed, namespace, names.signed_prekey)?,
        };
        let signature = required_child(element, namespace, names.signature)?;
        let signature: [u8; 64] = base64_text(signature, names.signature)?
            .try_into()
            .map_err(|_| InvalidElement::Length(names.signature))?;
        let identity = required_child(element, namespace, names.identity)?;
        let identity = base64_text(identity, names.identity)?;
        let (identity_ed25519, signature) =
            wire::decode_bundle_identity(namespace, &identity, signature)
                .ok_or(InvalidBundle::Key)?;

        let message = wire::encode_key(namespace, &signed_prekey.key);
        if !identity::verify(&identity_ed25519, &message, &signature) {
            return Err(InvalidBundle::Signature);
        }
        let prekeys = read_prekeys(element, namespace, names)?;
        let identity = IdentityKey::from_ed25519(&identity_ed25519).ok_or(InvalidBundle::Key)?;
        Ok(Self { namespace, identity, identity_ed25519, signed_prekey, signature, prekeys })
    }

    /// The element to publish.
    pub fn to_element(&self) -> Element {
        let names = wire::bundle_names(self.namespace);
        let uri = self.namespace.uri();
        let text =
            |name: &str, bytes: &[u8]| Element::builder(name, uri).append(STANDARD.encode(bytes));
        let prekey_text = |name: &str, prekey: &Prekey| {
            text(name, &wire::encode_key(self.namespace, &prekey.key))
        };
        let prekeys = self.prekeys.iter().map(|prekey| {
            prekey_text(names.prekey, prekey).attr(names.prekey_id.into(), prekey.id).build()
        });
        let signed = prekey_text(names.signed_prekey, &self.signed_prekey)
            .attr(names.signed_prekey_id.into(), self.signed_prekey.id);
        let identity =
            wire::encode_identity(self.namespace, &self.identity, &self.identity_ed25519);
        let signature =
            wire::encode_bundle_signature(self.namespace, &self.identity_ed25519, &self.signature);
        Element::builder("bundle", uri)
            .append(signed.build())
            .append(text(names.signature, &signature).build())
            .append(text(names.identity, &identity).build())
            .append(Element::builder(names.prekeys, uri).append_all(prekeys).build())
            .build()
    }
}

fn read_prekeys(
    bundle: &Element,
    namespace: Namespace,
    names: &BundleNames,
) -> Result<Vec<Prekey>, InvalidBundle> {
    let list = required_child(bundle, namespace, names.prekeys)?;
    let entries = list.children().filter(|child| child.is(names.prekey, namespace.uri()));
    let prekeys = entries.take(MAX_BUNDLE_PREKEYS).map(|entry| {
        Ok(Prekey {
            id: prekey_id(entry, names.prekey_id, names.prekey)?,
            key: public_key(entry, namespace, names.prekey)?,
        })
    });
    let prekeys = prekeys.collect::<Result<Vec<_>, InvalidBundle>>()?;
    if prekeys.is_empty() { Err(InvalidBundle::NoPrekey) } else { Ok(prekeys) }
}

fn required_child<'a>(
    element: &'a Element,
    namespace: Namespace,
    name: &'static str,
) -> Result<&'a Element, InvalidElement> {
    element.get_child(name, namespace.uri()).ok_or(InvalidElement::Missing(name))
}

fn prekey_id(
    element: &Element,
    attribute: &rxml::NcNameStr,
    name: &'static str,
) -> Result<u32, InvalidElement> {
    let id = element.attr(attribute).and_then(|id| id.parse().ok());
    id.ok_or(InvalidElement::Id(name))
}

fn public_key(
    element: &Element,
    namespace: Namespace,
    name: &'static str,
) -> Result<PublicKey, InvalidBundle> {
    let bytes = base64_text(element, name)?;
    wire::decode_key(namespace, &bytes).ok_or(InvalidBundle::Key)
}

/// The bytes of an element that holds base64, white space allowed.
pub(crate) fn base64_text(
    element: &Element,
    name: &'static str,
) -> Result<Vec<u8>, InvalidElement> {
    wire::decode_base64(&element.text(), MAX_KEY_BYTES, name)
}
