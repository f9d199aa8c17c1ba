-- seen_ms: as of other rows that end by age. Of these records only: hashes of Olm messages, and who withheld a room key.
ALTER TABLE crypto_records ADD COLUMN seen_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX crypto_records_seen ON crypto_records (seen_ms) WHERE kind IN ('olm_hash', 'withheld');
-- When housekeeping last looked: a bridge without traffic goes on forgetting.
ALTER TABLE store_owner ADD COLUMN looked_ms BIGINT NOT NULL DEFAULT 0;
