-- XMPP. local_user is empty where the bridge itself talks.

-- stanza is NULL once it is done: the row stays to recognise a repetition. state: pending, held, done.
CREATE TABLE xmpp_inbox (
    id BIGINT PRIMARY KEY,
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    hash TEXT NOT NULL,
    state TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    stanza BYTEA
);
CREATE INDEX xmpp_inbox_chat ON xmpp_inbox (local_user, contact, state, id);
CREATE INDEX xmpp_inbox_hash ON xmpp_inbox (local_user, contact, hash);
CREATE INDEX xmpp_inbox_state ON xmpp_inbox (state, received_ms);

-- message_id and security are NULL for what is no message of a person (receipts, empty OMEMO messages).
CREATE TABLE xmpp_outbox (
    id BIGINT PRIMARY KEY,
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    message_id TEXT,
    security TEXT,
    stanza BYTEA NOT NULL
);

CREATE TABLE xmpp_accounts (
    local_user TEXT PRIMARY KEY,
    account BYTEA NOT NULL
);

CREATE TABLE xmpp_names (
    local_user TEXT PRIMARY KEY,
    name BYTEA NOT NULL
);

CREATE TABLE xmpp_sessions (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    device_id BIGINT NOT NULL,
    namespace TEXT NOT NULL,
    sessions BYTEA NOT NULL,
    PRIMARY KEY (local_user, contact, device_id, namespace)
);

-- changed_to: the identity that the device presents now and nobody has approved yet.
CREATE TABLE xmpp_pins (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    device_id BIGINT NOT NULL,
    identity TEXT NOT NULL,
    changed_to TEXT,
    PRIMARY KEY (local_user, contact, device_id)
);

-- devices: numbers, separated by commas.
CREATE TABLE xmpp_device_lists (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    namespace TEXT NOT NULL,
    devices TEXT NOT NULL,
    known_ms BIGINT NOT NULL,
    PRIMARY KEY (local_user, contact, namespace)
);

-- When a broken session with a device was last replaced.
CREATE TABLE xmpp_heals (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    device_id BIGINT NOT NULL,
    namespace TEXT NOT NULL,
    healed_ms BIGINT NOT NULL,
    PRIMARY KEY (local_user, contact, device_id, namespace)
);

-- Everyone ever met. asked: whether a presence subscription was asked for.
CREATE TABLE xmpp_contacts (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    asked BIGINT NOT NULL,
    PRIMARY KEY (local_user, contact)
);

CREATE TABLE xmpp_subscribers (
    local_user TEXT NOT NULL,
    node TEXT NOT NULL,
    subscriber TEXT NOT NULL,
    PRIMARY KEY (local_user, node, subscriber)
);
