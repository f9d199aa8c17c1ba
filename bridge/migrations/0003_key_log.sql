-- Every key that was first seen, changed or decided about, never altered. hash is chained over all rows, under a key
-- that is not in the database. local_user is empty for keys of Matrix users, and where the bridge itself talks; device
-- is empty for keys that are no device's.
CREATE TABLE key_log (
    seq BIGINT PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    leg TEXT NOT NULL,
    local_user TEXT NOT NULL,
    owner TEXT NOT NULL,
    device TEXT NOT NULL,
    public_key TEXT NOT NULL,
    event TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    hash BYTEA NOT NULL
);
