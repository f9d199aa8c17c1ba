//! What a second device of the receiver can do, when it may also alter the stanza on its way to
//! the first.
//!
//! Every recipient device knows the payload's key and tag. Legacy OMEMO protects the payload with
//! AES-GCM alone, which does not commit to its key: whoever knows it can write another text under
//! the same tag. That is a limit of the protocol and cannot be mended here. In `urn:xmpp:omemo:2`
//! the tag is an HMAC, and no second text has it.

use aes::{
    Aes128,
    cipher::{BlockEncrypt, KeyInit},
};

use super::people::{Person, alice, text};
use crate::omemo::{
    DecryptError, EncryptedElement, Namespace, crypto,
    wire::ratchet_message::decode_ratchet_message,
};

/// Alice's message to both of Bob's devices, and the key that the laptop finds in it.
fn message_to_both(namespace: Namespace) -> (Person, Person, EncryptedElement, Vec<u8>) {
    let mut alice = alice();
    let mut phone = Person::new("bob@example.org", 3);
    let mut laptop = Person::new("bob@example.org", 4);
    for device in [&mut phone, &mut laptop] {
        let hello = alice.say(device, namespace, "hello");
        device.hear(&alice, &hello);
        let answer = device.say(&alice, namespace, "answer");
        alice.hear(device, &answer);
    }
    let recipients = vec![alice.recipient(&phone, namespace), alice.recipient(&laptop, namespace)];
    let payload = text(namespace, "the meeting is at noon, in the usual place");
    let encrypted = alice.try_encrypt("bob@example.org", recipients, &payload).unwrap();
    let element = encrypted.element;
    let entry = element.find_key("bob@example.org", laptop.device()).unwrap();
    let message = decode_ratchet_message(namespace, &entry.data).unwrap();
    let mut sessions = laptop.sessions_with(alice.jid, alice.device(), namespace).unwrap();
    let (_, key) = sessions.decrypt(&message).unwrap();
    (alice, phone, element, key.to_vec())
}

#[test]
fn a_legacy_text_can_be_forged_by_another_device_of_the_receiver() {
    let (alice, mut phone, mut element, key) = message_to_both(Namespace::Legacy);
    let (key, tag) = (key[..16].try_into().unwrap(), key[16..].try_into().unwrap());
    element.payload = Some(forge(&key, &element.iv.unwrap(), tag));
    let heard = phone.hear(&alice, &element);
    let forged = heard.starts_with("the meeting is cancelled, ");
    println!("safety: co_recipient_legacy: {} of 1 forged texts shown", usize::from(forged));
    assert!(forged, "Alice never said so");
}

#[test]
fn an_omemo_2_text_cannot() {
    let (alice, mut phone, element, _key) = message_to_both(Namespace::V2);
    let original = element.payload.clone().unwrap();
    for position in 0..original.len() {
        let mut altered = element.clone();
        altered.payload.as_mut().unwrap()[position] ^= 1;
        assert_eq!(phone.receive(&alice, &altered).unwrap_err(), DecryptError::Payload);
    }
    println!("safety: co_recipient_v2: {} texts, 0 opened", original.len());
    assert!(phone.hear(&alice, &element).contains("noon"));
}

/// A ciphertext of another text under the same key, IV and tag: three chosen blocks, and a last
/// one that makes the tag come out right, tried until it is text as well.
fn forge(key: &[u8; 16], iv: &[u8; 12], tag: [u8; 16]) -> Vec<u8> {
    const BLOCKS: u32 = 4;
    let mut keystream = [0; 64];
    crypto::gcm_encrypt(key, iv, &mut keystream).unwrap();
    // The tag of nothing is the mask of every tag under this key and IV.
    let mask = u128::from_be_bytes(crypto::gcm_encrypt(key, iv, &mut []).unwrap());
    let mut hash_key = aes::Block::default();
    Aes128::new(key.into()).encrypt_block(&mut hash_key);
    let hash_key = u128::from_be_bytes(hash_key.into());
    let wanted = u128::from_be_bytes(tag) ^ mask;
    let length = multiply(u128::from(BLOCKS * 128), hash_key);
    let undo = power(multiply(hash_key, hash_key), u128::MAX - 1);

    (0_u32..)
        .find_map(|attempt| {
            let text = format!("the meeting is cancelled, {attempt:>21}!");
            let mut ciphertext = text.into_bytes();
            ciphertext.resize(64, 0);
            ciphertext.iter_mut().zip(keystream).for_each(|(byte, key)| *byte ^= key);
            let hash = ciphertext[..48].chunks(16).fold(0, |hash, block| {
                multiply(hash ^ u128::from_be_bytes(block.try_into().unwrap()), hash_key)
            });
            // (hash ^ last) * H * H ^ length * H is to be what is wanted.
            let last = multiply(wanted ^ length, undo) ^ hash;
            ciphertext[48..].copy_from_slice(&last.to_be_bytes());
            let plain: Vec<u8> =
                ciphertext[48..].iter().zip(&keystream[48..]).map(|(a, b)| a ^ b).collect();
            std::str::from_utf8(&plain).is_ok().then_some(ciphertext)
        })
        .unwrap()
}

/// Multiplication in the field of GHASH (NIST SP 800-38D, 6.3).
fn multiply(x: u128, y: u128) -> u128 {
    let (mut product, mut factor) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            product ^= factor;
        }
        let carry = factor & 1;
        factor >>= 1;
        if carry == 1 {
            factor ^= 0xe1 << 120;
        }
    }
    product
}

fn power(base: u128, mut exponent: u128) -> u128 {
    // One is the first bit.
    let (mut result, mut square) = (1 << 127, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    result
}
