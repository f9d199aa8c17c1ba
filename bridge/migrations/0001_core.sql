-- Written for SQLite and PostgreSQL alike: TEXT, BIGINT and BYTEA only; a flag is a BIGINT of 0 or 1.
-- Columns of type BYTEA are sealed, bound to the row's unchanging key; those named *_blind stand for what
-- is only looked up. Ids from the other network can be longer than an index takes, so they are blinded there.

CREATE TABLE store_owner (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL,
    next_row_id BIGINT NOT NULL,
    canary BYTEA
);
INSERT INTO store_owner (id, epoch, next_row_id) VALUES (1, 0, 1);

-- content is NULL once the event is done: the row stays to recognise the event.
CREATE TABLE matrix_inbox (
    id BIGINT PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    origin_ts BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    content BYTEA
);
CREATE INDEX matrix_inbox_pending ON matrix_inbox (room_id, id) WHERE content IS NOT NULL;
CREATE INDEX matrix_inbox_done ON matrix_inbox (received_ms) WHERE content IS NULL;

-- local_user is empty where the bridge itself talks.
CREATE TABLE remote_inbox (
    id BIGINT PRIMARY KEY,
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    event BYTEA NOT NULL
);
CREATE INDEX remote_inbox_chat ON remote_inbox (local_user, contact, id);

CREATE TABLE matrix_outbox (
    id BIGINT PRIMARY KEY,
    txn_id TEXT NOT NULL UNIQUE,
    room_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    content BYTEA NOT NULL,
    reference BYTEA
);
CREATE INDEX matrix_outbox_room ON matrix_outbox (room_id, id);

CREATE TABLE portals (
    room_id TEXT PRIMARY KEY,
    network TEXT NOT NULL,
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    ghost TEXT NOT NULL,
    encrypted BIGINT NOT NULL,
    plaintext TEXT NOT NULL,
    bot TEXT NOT NULL,
    state TEXT NOT NULL,
    UNIQUE (network, local_user, contact)
);

CREATE TABLE management_rooms (
    room_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL
);
CREATE INDEX management_rooms_user ON management_rooms (user_id);

CREATE TABLE ghosts (
    user_id TEXT PRIMARY KEY,
    remote_id TEXT UNIQUE,
    device_id TEXT NOT NULL,
    stage TEXT NOT NULL
);

CREATE TABLE message_map (
    id BIGINT PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_id TEXT NOT NULL,
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    author TEXT NOT NULL,
    remote_id TEXT,
    remote_id_blind BYTEA,
    matrix_leg TEXT NOT NULL,
    remote_leg TEXT NOT NULL,
    status TEXT NOT NULL
);
CREATE INDEX message_map_remote ON message_map (remote_id_blind, id);

CREATE TABLE matrix_pins (
    user_id TEXT PRIMARY KEY,
    master_key TEXT NOT NULL,
    pinned_ms BIGINT NOT NULL,
    new_master_key TEXT
);

CREATE TABLE notices (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (scope, subject, kind)
);

CREATE TABLE megolm_index (
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    message_index BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    origin_ts BIGINT NOT NULL,
    PRIMARY KEY (room_id, session_id, message_index)
);
