-- remote_encrypted: 1 once a message was encrypted on the other network's leg, in either direction.
ALTER TABLE portals ADD COLUMN remote_encrypted BIGINT NOT NULL DEFAULT 0;
UPDATE portals SET remote_encrypted = 1 WHERE EXISTS (
    SELECT 1 FROM message_map WHERE message_map.local_user = portals.local_user
    AND message_map.contact = portals.contact AND message_map.remote_leg <> '"plaintext"'
);

-- Since when the event was found to wait; NULL while it does not, or while nobody has looked.
ALTER TABLE remote_inbox ADD COLUMN waits_since_ms BIGINT;

-- For what is said at intervals; 0 for what is said once.
ALTER TABLE notices ADD COLUMN told_ms BIGINT NOT NULL DEFAULT 0;
