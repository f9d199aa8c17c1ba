-- The prekeys of ours that a held stanza needs, sealed: NULL where there are none.
ALTER TABLE xmpp_inbox ADD COLUMN prekeys BYTEA;
