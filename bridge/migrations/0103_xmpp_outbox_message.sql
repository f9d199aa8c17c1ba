-- Receipts and errors look for the message that they answer.
CREATE INDEX xmpp_outbox_message ON xmpp_outbox (local_user, contact, message_id);
-- Receipts and errors are recognised by nothing: nothing of them needs to stay.
DELETE FROM xmpp_inbox WHERE state = 'done' AND hash = '';
