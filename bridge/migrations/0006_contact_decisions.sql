-- What a contact has decided about a Matrix user's identity: the latest word of the one about the other.
-- trust: emoji, fingerprint (compared so, and trusted), distrusted. Trust is about master_key alone; distrust
-- lasts whatever identity the user presents later.
CREATE TABLE contact_decisions (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    trust TEXT NOT NULL,
    master_key TEXT NOT NULL,
    decided_ms BIGINT NOT NULL,
    PRIMARY KEY (local_user, contact)
);
