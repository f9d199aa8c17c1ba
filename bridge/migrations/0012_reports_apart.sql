-- is_message: 1 also for events that came before there was that column, so that they keep their order.
UPDATE remote_inbox SET is_message = 1;
-- Messages and reports are read apart.
DROP INDEX remote_inbox_chat;
CREATE INDEX remote_inbox_chat
    ON remote_inbox (local_user, contact, is_message, id, size_bytes, waits_since_ms);
