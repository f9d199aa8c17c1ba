-- Identities of a contact's devices that a person has said no to. They are kept out under every device number, and
-- whatever the devices present that had them.
CREATE TABLE xmpp_distrusted (
    local_user TEXT NOT NULL,
    contact TEXT NOT NULL,
    identity TEXT NOT NULL,
    PRIMARY KEY (local_user, contact, identity)
);
INSERT INTO xmpp_distrusted (local_user, contact, identity)
    SELECT DISTINCT local_user, contact, identity FROM xmpp_pins WHERE trust = 'distrusted';
