-- server_name, component: what the ids of ghosts and the addresses of Matrix users end in; NULL before the first start
-- that notes them.
ALTER TABLE store_owner ADD COLUMN server_name TEXT;
ALTER TABLE store_owner ADD COLUMN component TEXT;
