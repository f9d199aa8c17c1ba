//! The symmetric primitives: HKDF, HMAC, AES-CBC and AES-GCM, with the sizes that OMEMO uses.
//!
//! Knows no key's meaning.

use aes::Aes256;
use aes_gcm::{AeadInPlace, Aes128Gcm};
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyInit, KeyIvInit, block_padding::Pkcs7};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// HKDF with SHA-256 (RFC 5869). `N` must not exceed 8160 bytes.
pub(crate) fn hkdf<const N: usize>(
    salt: &[u8; 32],
    key_material: &[u8],
    info: &[u8],
) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) }
    let mut output = Zeroizing::new([0; N]);
    #[expect(clippy::expect_used, reason = "only fails for lengths that do not compile")]
    Hkdf::<Sha256>::new(Some(salt), key_material)
        .expand(info, output.as_mut())
        .expect("length is within bounds");
    output
}

/// HMAC with SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any key length is valid");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Whether `tag` is the beginning of the HMAC, compared in constant time.
pub(crate) fn hmac_matches<const N: usize>(key: &[u8; 32], parts: &[&[u8]], tag: &[u8; N]) -> bool {
    const { assert!(N >= 8 && N <= 32) }
    let expected = hmac(key, parts);
    expected.get(..N).is_some_and(|expected| expected.ct_eq(tag).into())
}

/// Keys for AES-256-CBC and its HMAC, derived from one message or payload key.
pub(crate) struct CbcKeys {
    encryption: Zeroizing<[u8; 32]>,
    authentication: Zeroizing<[u8; 32]>,
    iv: Zeroizing<[u8; 16]>,
}

impl CbcKeys {
    pub(crate) fn derive(key: &[u8; 32], info: &[u8]) -> Self {
        let bytes = hkdf::<80>(&[0; 32], key, info);
        let mut keys = Self {
            encryption: Zeroizing::new([0; 32]),
            authentication: Zeroizing::new([0; 32]),
            iv: Zeroizing::new([0; 16]),
        };
        let (encryption, rest) = bytes.split_at(32);
        let (authentication, iv) = rest.split_at(32);
        keys.encryption.copy_from_slice(encryption);
        keys.authentication.copy_from_slice(authentication);
        keys.iv.copy_from_slice(iv);
        keys
    }

    #[cfg(test)]
    pub(crate) fn of(encryption: &[u8; 32], authentication: &[u8; 32], iv: &[u8; 16]) -> Self {
        Self {
            encryption: Zeroizing::new(*encryption),
            authentication: Zeroizing::new(*authentication),
            iv: Zeroizing::new(*iv),
        }
    }

    pub(crate) fn authentication(&self) -> &[u8; 32] {
        &self.authentication
    }

    /// AES-256-CBC with PKCS#7 padding.
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        cbc::Encryptor::<Aes256>::new((&*self.encryption).into(), (&*self.iv).into())
            .encrypt_padded_vec_mut::<Pkcs7>(plaintext)
    }

    /// The inverse. Only for what has been authenticated: padding errors are told apart here.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        cbc::Decryptor::<Aes256>::new((&*self.encryption).into(), (&*self.iv).into())
            .decrypt_padded_vec_mut::<Pkcs7>(ciphertext)
            .ok()
            .map(Zeroizing::new)
    }
}

/// AES-128-GCM in place. `None` when the plaintext is longer than GCM allows.
pub(crate) fn gcm_encrypt(key: &[u8; 16], iv: &[u8; 12], buffer: &mut [u8]) -> Option<[u8; 16]> {
    let tag = Aes128Gcm::new(key.into()).encrypt_in_place_detached(iv.into(), b"", buffer);
    tag.ok().map(Into::into)
}

/// The inverse. `false` when the tag is wrong; `buffer` holds nothing useful then.
pub(crate) fn gcm_decrypt(
    key: &[u8; 16],
    iv: &[u8; 12],
    buffer: &mut [u8],
    tag: &[u8; 16],
) -> bool {
    let cipher = Aes128Gcm::new(key.into());
    cipher.decrypt_in_place_detached(iv.into(), b"", buffer, tag.into()).is_ok()
}
