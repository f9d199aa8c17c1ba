-- size_bytes: of the sealed stanza. Whoever measures what waits reads the index alone.
ALTER TABLE xmpp_inbox ADD COLUMN size_bytes BIGINT NOT NULL DEFAULT 0;
UPDATE xmpp_inbox SET size_bytes = LENGTH(stanza) WHERE stanza IS NOT NULL;
DROP INDEX xmpp_inbox_chat;
CREATE INDEX xmpp_inbox_chat ON xmpp_inbox (local_user, contact, state, id, size_bytes);
