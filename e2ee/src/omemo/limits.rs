//! Every bound of the engine, in one place.

use std::time::Duration;

/// Message keys that one message may skip, and that all sessions with a device keep in all. They are stored anew with
/// each of its messages.
pub const MAX_SKIPPED_KEYS: usize = 1000;

/// Receiving chains a session keeps: the newest and five old ones, because the length of the
/// previous chain that a header announces cannot be relied on.
pub const MAX_RECEIVING_CHAINS: usize = 6;

/// Sessions kept per device and namespace: the current one and four old ones.
pub const MAX_SESSIONS: usize = 5;

/// Devices of one device list that are looked at. The rest is dropped.
pub const MAX_DEVICES: usize = 64;

/// Entries of one `<encrypted>` header.
pub const MAX_KEY_ENTRIES: usize = 2000;

/// Bytes of one `<key>`, decoded.
pub const MAX_KEY_BYTES: usize = 2048;

/// Bytes of one `<payload>`, decoded.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// Depth of elements inside a decrypted XEP-0420 envelope.
pub const MAX_ENVELOPE_DEPTH: usize = 32;

/// Prekeys of one bundle that are looked at.
pub const MAX_BUNDLE_PREKEYS: usize = 500;

/// One-time prekeys of a fresh or refilled bundle.
pub const PREKEYS: usize = 100;

/// Below this number of one-time prekeys a bundle is refilled.
pub const PREKEY_REFILL: usize = 25;

/// How long a signed prekey is published. The one before it is kept as long again.
pub const SIGNED_PREKEY_PERIOD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How far ahead of the clock a signed prekey may have been made. One that is further ahead counts as made now: until
/// its time comes it would not be replaced.
pub const SIGNED_PREKEY_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// From this message number on a ratchet key is stale and an answer is due (XEP-0384, 5.3).
pub const HEARTBEAT: u32 = 53;
