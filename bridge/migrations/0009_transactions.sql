-- last_transaction: the highest number of a transaction whose events were committed; NULL before the first.
ALTER TABLE store_owner ADD COLUMN last_transaction BIGINT;
