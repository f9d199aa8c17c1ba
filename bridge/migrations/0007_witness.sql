-- lineage: changes when a database that was an older copy is taken up again. commits: raised by every commit.
-- rolled_back: 1 in a backup, and in a database found older than its witness, until that is put right.
ALTER TABLE store_owner ADD COLUMN lineage TEXT;
ALTER TABLE store_owner ADD COLUMN commits BIGINT NOT NULL DEFAULT 0;
ALTER TABLE store_owner ADD COLUMN rolled_back BIGINT NOT NULL DEFAULT 0;
