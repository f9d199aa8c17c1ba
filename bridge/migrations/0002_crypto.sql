-- The state of the Matrix machines, many devices in one set of tables.

CREATE TABLE crypto_tenants (
    tenant BIGINT PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    UNIQUE (user_id, device_id)
);

-- Other people's programs choose the keys, so they are blinded. value is NULL for kinds whose key says everything.
CREATE TABLE crypto_records (
    tenant BIGINT NOT NULL REFERENCES crypto_tenants (tenant),
    kind TEXT NOT NULL,
    key_blind BYTEA NOT NULL,
    sub_key_blind BYTEA NOT NULL,
    value BYTEA,
    PRIMARY KEY (tenant, kind, key_blind, sub_key_blind)
);

-- Received room keys. backed_up overrides what the pickle says.
CREATE TABLE crypto_room_keys (
    tenant BIGINT NOT NULL REFERENCES crypto_tenants (tenant),
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    sender_key TEXT NOT NULL,
    sender_data_type BIGINT NOT NULL,
    backed_up BIGINT NOT NULL,
    pickle BYTEA NOT NULL,
    PRIMARY KEY (tenant, room_id, session_id)
);
CREATE INDEX crypto_room_keys_sender
    ON crypto_room_keys (tenant, sender_key, sender_data_type, session_id);
