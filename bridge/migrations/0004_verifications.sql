-- Comparisons of keys under way between a Matrix user and a contact. The keys themselves live in memory only:
-- what stands here without a comparison behind it was interrupted, and both sides are told.

CREATE TABLE verifications (
    ghost TEXT NOT NULL,
    user_id TEXT NOT NULL,
    flow TEXT NOT NULL,
    contact TEXT NOT NULL,
    portal_room TEXT NOT NULL,
    -- NULL where it goes from device to device.
    flow_room TEXT,
    device_id TEXT,
    stage TEXT NOT NULL,
    -- The three numbers that the contact was shown, separated by blanks.
    shown TEXT,
    PRIMARY KEY (ghost, user_id, flow)
);
CREATE INDEX verifications_contact ON verifications (contact);
