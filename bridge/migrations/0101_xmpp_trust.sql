-- trust: pinned, verified, waiting, distrusted. A time of 0 is before times were kept.
-- was_verified: the device was verified once, under this identity or an earlier one.
ALTER TABLE xmpp_pins ADD COLUMN trust TEXT NOT NULL DEFAULT 'pinned';
ALTER TABLE xmpp_pins ADD COLUMN since_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE xmpp_pins ADD COLUMN was_verified BIGINT NOT NULL DEFAULT 0;
ALTER TABLE xmpp_pins ADD COLUMN changed_ms BIGINT;
