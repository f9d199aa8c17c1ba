//! X3DH: the secret that starts a session.
//!
//! Knows keys and the HKDF label; knows no ids, signatures or sessions. Signatures are checked
//! when a bundle is read, ids are looked up by the machine.
//!
//! Spec: <https://signal.org/docs/specifications/x3dh/>, with a mandatory one-time prekey.

use zeroize::Zeroizing;

use super::{
    crypto,
    identity::{IdentityKey, IdentityKeyPair},
    keys::{PrivateKey, PublicKey, Secret},
    namespace::Labels,
};

/// The remote side's public keys, for the one who starts.
pub(crate) struct RemotePrekeys<'a> {
    pub(crate) identity: &'a IdentityKey,
    pub(crate) signed_prekey: &'a PublicKey,
    pub(crate) prekey: &'a PublicKey,
}

/// Our prekeys, for the one who answers.
pub(crate) struct OwnPrekeys<'a> {
    pub(crate) signed_prekey: &'a PrivateKey,
    pub(crate) prekey: &'a PrivateKey,
}

/// The shared secret of the one who starts. `None` when a public key is of low order.
pub(crate) fn initiate(
    labels: &Labels,
    identity: &IdentityKeyPair,
    ephemeral: &PrivateKey,
    remote: &RemotePrekeys<'_>,
) -> Option<Secret> {
    Some(derive(
        labels,
        &[
            identity.private().agree(remote.signed_prekey)?,
            ephemeral.agree(remote.identity.public_key())?,
            ephemeral.agree(remote.signed_prekey)?,
            ephemeral.agree(remote.prekey)?,
        ],
    ))
}

/// The shared secret of the one who answers. `None` when a public key is of low order.
pub(crate) fn respond(
    labels: &Labels,
    identity: &IdentityKeyPair,
    own: &OwnPrekeys<'_>,
    remote_identity: &IdentityKey,
    remote_ephemeral: &PublicKey,
) -> Option<Secret> {
    Some(derive(
        labels,
        &[
            own.signed_prekey.agree(remote_identity.public_key())?,
            identity.private().agree(remote_ephemeral)?,
            own.signed_prekey.agree(remote_ephemeral)?,
            own.prekey.agree(remote_ephemeral)?,
        ],
    ))
}

fn derive(labels: &Labels, agreements: &[Secret; 4]) -> Secret {
    let mut key_material = Zeroizing::new(Vec::with_capacity(32 * 5));
    key_material.extend_from_slice(&[0xff; 32]);
    for agreement in agreements {
        key_material.extend_from_slice(agreement.as_bytes());
    }
    Secret::from_bytes(&crypto::hkdf(&[0; 32], &key_material, labels.handshake))
}
