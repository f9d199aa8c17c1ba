-- seen_ms: when housekeeping first found the row; 0 until then.
ALTER TABLE message_map ADD COLUMN seen_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE megolm_index ADD COLUMN seen_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE crypto_room_keys ADD COLUMN seen_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX message_map_seen ON message_map (seen_ms);
CREATE INDEX megolm_index_seen ON megolm_index (seen_ms);
CREATE INDEX crypto_room_keys_seen ON crypto_room_keys (seen_ms);
CREATE INDEX crypto_room_keys_session ON crypto_room_keys (room_id, session_id);
CREATE INDEX megolm_index_event ON megolm_index (event_id);
