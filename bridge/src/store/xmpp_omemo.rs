//! OMEMO state: our devices, the sessions with contacts' devices, and their device lists. Whom the
//! devices belong to is in [`super::xmpp_pins`].

use e2ee::omemo::{DeviceId, Namespace};
use sqlx::AnyConnection;
use zeroize::Zeroizing;

use crate::network::{Author, ChatKey};

use super::{Cell, Sealer, StoreError, Transaction, chat_columns::local_user};

const ACCOUNTS: &str = "xmpp_accounts";
const SESSIONS: &str = "xmpp_sessions";
const DEVICE_LISTS: &str = "xmpp_device_lists";

/// Remedies of one contact that are remembered: both kinds for more devices than are ever listed. Whoever makes up more
/// gets none.
const MAX_REMEDIES: i64 = 256;

/// The devices a contact has announced in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevices {
    /// The devices, in the list's order.
    pub devices: Vec<DeviceId>,
    /// When that was learnt, in milliseconds since 1970.
    pub known_ms: i64,
}

/// What is done about a contact's device at most once in a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// A new session in the place of a broken one.
    NewSession(Namespace),
    /// Its client is told of our device.
    Announcement,
}

impl Remedy {
    const fn column(self) -> &'static str {
        match self {
            Self::NewSession(namespace) => namespace_column(namespace),
            Self::Announcement => "announcement",
        }
    }
}

/// All OMEMO state.
pub struct XmppOmemo<'t> {
    pub(super) conn: &'t mut AnyConnection,
    pub(super) sealer: &'t Sealer,
}

const fn namespace_column(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Legacy => "legacy",
        Namespace::V2 => "v2",
    }
}

impl Transaction {
    /// Devices, sessions and pins of OMEMO.
    pub fn xmpp_omemo(&mut self) -> XmppOmemo<'_> {
        let (conn, sealer) = self.parts();
        XmppOmemo { conn, sealer }
    }
}

impl XmppOmemo<'_> {
    /// The OMEMO device of an author, as [`Self::save_account`] got it.
    ///
    /// # Errors
    /// When the database failed or the row cannot be opened.
    pub async fn find_account(
        &mut self,
        author: &Author,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let user = local_user(author);
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT account FROM xmpp_accounts WHERE local_user = $1")
                .bind(user)
                .fetch_optional(&mut *self.conn)
                .await?;
        let cell = Cell { table: ACCOUNTS, column: "account", row: &[user] };
        row.map(|(sealed,)| self.sealer.open(cell, &sealed)).transpose()
    }

    /// Whether an author has an OMEMO device.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn has_account(&mut self, author: &Author) -> Result<bool, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT local_user FROM xmpp_accounts WHERE local_user = $1")
                .bind(local_user(author))
                .fetch_optional(&mut *self.conn)
                .await?;
        Ok(row.is_some())
    }

    /// Stores the OMEMO device of an author.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn save_account(&mut self, author: &Author, bytes: &[u8]) -> Result<(), StoreError> {
        let user = local_user(author);
        let cell = Cell { table: ACCOUNTS, column: "account", row: &[user] };
        let sealed = self.sealer.seal(cell, bytes)?;
        sqlx::query(
            "INSERT INTO xmpp_accounts (local_user, account) VALUES ($1, $2) \
             ON CONFLICT (local_user) DO UPDATE SET account = excluded.account",
        )
        .bind(user)
        .bind(sealed)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// The sessions with a contact's device, as [`Self::save_sessions`] got them.
    ///
    /// # Errors
    /// When the database failed or the row cannot be opened.
    pub async fn find_sessions(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        namespace: Namespace,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as(
            "SELECT sessions FROM xmpp_sessions WHERE local_user = $1 AND contact = $2 \
             AND device_id = $3 AND namespace = $4",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .bind(namespace_column(namespace))
        .fetch_optional(&mut *self.conn)
        .await?;
        let (id, name) = (device.to_string(), namespace_column(namespace));
        let key = [local_user(&chat.local), chat.contact.as_str(), &id, name];
        let cell = Cell { table: SESSIONS, column: "sessions", row: &key };
        row.map(|(sealed,)| self.sealer.open(cell, &sealed)).transpose()
    }

    /// Stores the sessions with a contact's device in place of what was.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn save_sessions(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        namespace: Namespace,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (id, name) = (device.to_string(), namespace_column(namespace));
        let key = [local_user(&chat.local), chat.contact.as_str(), &id, name];
        let cell = Cell { table: SESSIONS, column: "sessions", row: &key };
        let sealed = self.sealer.seal(cell, bytes)?;
        sqlx::query(
            "INSERT INTO xmpp_sessions (local_user, contact, device_id, namespace, sessions) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (local_user, contact, device_id, namespace) \
             DO UPDATE SET sessions = excluded.sessions",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .bind(name)
        .bind(sealed)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// What is known of a contact's devices in one namespace; `None` when it was never asked.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_devices(
        &mut self,
        chat: &ChatKey,
        namespace: Namespace,
    ) -> Result<Option<KnownDevices>, StoreError> {
        let row: Option<(String, i64)> = sqlx::query_as(
            "SELECT devices, known_ms FROM xmpp_device_lists \
             WHERE local_user = $1 AND contact = $2 AND namespace = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(namespace_column(namespace))
        .fetch_optional(&mut *self.conn)
        .await?;
        let corrupt = StoreError::Corrupt { table: DEVICE_LISTS, column: "devices" };
        let Some((devices, known_ms)) = row else { return Ok(None) };
        let devices = devices
            .split(',')
            .filter(|id| !id.is_empty())
            .map(|id| id.parse().ok().and_then(DeviceId::new))
            .collect::<Option<Vec<_>>>()
            .ok_or(corrupt)?;
        Ok(Some(KnownDevices { devices, known_ms }))
    }

    /// Stores a contact's device list. Returns whether it differs from what was known.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn save_devices(
        &mut self,
        chat: &ChatKey,
        namespace: Namespace,
        known: &KnownDevices,
    ) -> Result<bool, StoreError> {
        let before = self.find_devices(chat, namespace).await?;
        let ids: Vec<String> = known.devices.iter().map(ToString::to_string).collect();
        sqlx::query(
            "INSERT INTO xmpp_device_lists (local_user, contact, namespace, devices, known_ms) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (local_user, contact, namespace) \
             DO UPDATE SET devices = excluded.devices, known_ms = excluded.known_ms",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(namespace_column(namespace))
        .bind(ids.join(","))
        .bind(known.known_ms)
        .execute(&mut *self.conn)
        .await?;
        Ok(before.is_none_or(|before| before.devices != known.devices))
    }

    /// Whether [`Self::use_remedy`] would remember it.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn is_remedy_due(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        remedy: Remedy,
        before_ms: i64,
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT healed_ms FROM xmpp_heals WHERE local_user = $1 AND contact = $2 \
             AND device_id = $3 AND namespace = $4 AND healed_ms > $5",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .bind(remedy.column())
        .bind(before_ms)
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_none())
    }

    /// Remembers that something is done about a device now, unless it was after `before_ms` too (both in milliseconds
    /// since 1970), or for as many others of this contact as are remembered. Returns whether it is to be done.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn use_remedy(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        remedy: Remedy,
        (now_ms, before_ms): (i64, i64),
    ) -> Result<bool, StoreError> {
        sqlx::query(
            "DELETE FROM xmpp_heals WHERE local_user = $1 AND contact = $2 AND healed_ms <= $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(before_ms)
        .execute(&mut *self.conn)
        .await?;
        let (remembered,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM xmpp_heals WHERE local_user = $1 AND contact = $2",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_one(&mut *self.conn)
        .await?;
        if remembered >= MAX_REMEDIES {
            return Ok(false);
        }
        let result = sqlx::query(
            "INSERT INTO xmpp_heals (local_user, contact, device_id, namespace, healed_ms) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (local_user, contact, device_id, namespace) DO NOTHING",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .bind(remedy.column())
        .bind(now_ms)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}
