//! The one database: SQLite by default, PostgreSQL by URL, the same SQL on both.
//!
//! Owns the connections, the lease of this process, the sealing of secret columns and one
//! repository per aggregate. Knows no protocol: what a message means is decided above.
//!
//! Everything that changes goes through [`Database::begin`]. The transaction is fenced: it fails
//! when another process has taken the database over. Writers are serialised on both databases,
//! so a transaction reads what it will change without a race; it must be short, and nobody may
//! hold one while waiting for something that opens another.
//!
//! Message bodies, keys and tokens are sealed ([`Sealer`]), each bound to its table, column and
//! row. Ids of people and rooms are not.

mod backlog;
mod backup;
mod chat_columns;
mod contact_decisions;
mod crypto;
mod database;
mod error;
mod ghosts;
mod housekeeping;
mod inbox_event;
mod key;
mod key_log;
mod lease;
mod management_rooms;
mod matrix_inbox;
mod matrix_outbox;
mod megolm_index;
mod message_map;
mod names;
mod notices;
mod pins;
mod portals;
mod program_address;
mod recovery;
mod remote_inbox;
mod sealer;
mod sequence;
mod transaction;
mod verifications;
mod witness;
mod xmpp_inbox;
mod xmpp_omemo;
mod xmpp_outbox;
mod xmpp_pins;
mod xmpp_roster;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    backlog::Backlog,
    backup::{BackupError, back_up, restore},
    contact_decisions::{ContactDecision, ContactDecisions, ContactTrust},
    crypto::{SqlCryptoStore, SqlCryptoStoreError},
    database::{ConnectError, Database, open_for_reading},
    error::StoreError,
    ghosts::{Ghost, GhostStage, Ghosts},
    housekeeping::{Forgotten, Housekeeping},
    inbox_event::MalformedEvent,
    key::{StoreKey, StoreKeyError},
    key_log::{KeyEvent, KeyLog, KeyLogCheck, KeyLogEntry, KeyLogRow, LoggedKey},
    lease::LeaseError,
    management_rooms::{ManagementRoom, ManagementRooms},
    matrix_inbox::{InboxEvent, InboxId, MatrixInbox, NewInboxEvent},
    matrix_outbox::{MatrixOutbox, MatrixOutboxId, NewOutboxEvent, OutboxEvent},
    megolm_index::{IndexCheck, MegolmIndex, MessagePosition},
    message_map::{DeliveryStatus, MappedMessage, MessageAuthor, MessageMap, SentMessage},
    names::{Names, NamesError},
    notices::{Notice, Notices},
    pins::{Pin, PinOutcome, PinState, Pins},
    portals::{
        BotPresence, NewPortal, Portal, PortalState, Portals, RemoteHistory, RoomEncryption,
    },
    recovery::Recovery,
    remote_inbox::{Lane, PendingRemoteEvent, RemoteInbox, RemoteInboxId},
    sealer::{Cell, SealError, Sealer},
    transaction::Transaction,
    verifications::{StoredVerification, VerificationStage, Verifications},
    xmpp_inbox::{PendingStanza, Repetition, StanzaId, XmppInbox},
    xmpp_omemo::{KnownDevices, Remedy, XmppOmemo},
    xmpp_outbox::{OutgoingStanza, OutgoingStanzaId, XmppOutbox},
    xmpp_pins::{DevicePin, PinChange, PinTrust, Presented},
    xmpp_roster::{Asked, XmppRoster},
};
