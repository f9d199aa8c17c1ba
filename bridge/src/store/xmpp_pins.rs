//! The identities of contacts' OMEMO devices: what was seen first, what people decided, and what
//! the devices present now. One pin for each chat and device.
//!
//! A device is pinned on first use until any device of the contact was verified in the chat; from
//! then on a new one waits for a person's word. Whatever changes is in the key log too.

use std::collections::BTreeSet;

use e2ee::omemo::{DeviceId, IdentityKey, Namespace};

use crate::network::{ChatKey, Decider, DeviceDecision, DeviceTrust};

use super::{
    StoreError, XmppOmemo,
    chat_columns::local_user,
    key_log::{KeyEvent, KeyLog, KeyLogEntry, LoggedKey},
};

const TABLE: &str = "xmpp_pins";

/// The pin of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePin {
    /// The device.
    pub device: DeviceId,
    /// The identity that the trust is about.
    pub identity: IdentityKey,
    /// How far it is trusted.
    pub trust: PinTrust,
    /// Since when, in milliseconds since 1970; 0 when that was not kept.
    pub since_ms: i64,
    /// Another identity that the device presents.
    pub change: Option<PinChange>,
}

/// How far a pinned identity is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinTrust {
    /// On first use, or by approval.
    Pinned,
    /// People have compared it.
    Verified,
    /// Not yet: it came after the contact was verified, and nobody has approved it.
    Waiting,
    /// Not any more.
    Distrusted,
}

/// Another identity than the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinChange {
    /// What the device presents.
    pub identity: IdentityKey,
    /// Since when, in milliseconds since 1970; 0 when that was not kept.
    pub since_ms: i64,
    /// Whether it waits for approval, or is distrusted.
    pub trust: PinTrust,
}

/// What came of comparing a presented identity with the pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Presented {
    /// The device has no pin.
    Unpinned,
    /// It is the pinned one, or a change that is known.
    Known,
    /// It is another one than so far. It waits for a person's word.
    News,
    /// It is the pinned one again: a change has gone by itself.
    Returned,
}

impl DevicePin {
    /// Whether messages may be encrypted to this device.
    pub fn may_read(&self) -> bool {
        self.is_trusted() && self.change.is_none()
    }

    /// Whether the pinned identity itself is trusted, whatever the device presents now.
    pub fn is_trusted(&self) -> bool {
        matches!(self.trust, PinTrust::Pinned | PinTrust::Verified)
    }

    /// The identity that the device presents now.
    pub fn presented(&self) -> IdentityKey {
        self.change.map_or(self.identity, |change| change.identity)
    }

    /// The identity that the device presents and that waits for approval.
    pub fn waiting_change(&self) -> Option<IdentityKey> {
        let change = self.change.filter(|change| change.trust == PinTrust::Waiting)?;
        Some(change.identity)
    }

    /// What the device is to a person.
    pub fn device_trust(&self) -> DeviceTrust {
        match (self.change, self.trust) {
            (Some(PinChange { trust: PinTrust::Distrusted, .. }), _) => DeviceTrust::Distrusted,
            (Some(_), _) => DeviceTrust::Changed,
            (None, PinTrust::Pinned) => DeviceTrust::Pinned,
            (None, PinTrust::Verified) => DeviceTrust::Verified,
            (None, PinTrust::Waiting) => DeviceTrust::Waiting,
            (None, PinTrust::Distrusted) => DeviceTrust::Distrusted,
        }
    }

    /// Since when it is that, in milliseconds since 1970; `None` when that was not kept.
    pub fn device_trust_since_ms(&self) -> Option<i64> {
        let since_ms = self.change.map_or(self.since_ms, |change| change.since_ms);
        (since_ms > 0).then_some(since_ms)
    }
}

impl PinTrust {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Verified => "verified",
            Self::Waiting => "waiting",
            Self::Distrusted => "distrusted",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "pinned" => Ok(Self::Pinned),
            "verified" => Ok(Self::Verified),
            "waiting" => Ok(Self::Waiting),
            "distrusted" => Ok(Self::Distrusted),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "trust" }),
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    device_id: i64,
    identity: String,
    trust: String,
    since_ms: i64,
    changed_to: Option<String>,
    changed_ms: Option<i64>,
    changed_distrusted: i64,
}

impl TryFrom<Row> for DevicePin {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let change = row.changed_to.as_deref().map(parse_identity).transpose()?;
        Ok(Self {
            device: parse_device(row.device_id)?,
            identity: parse_identity(&row.identity)?,
            trust: PinTrust::parse(&row.trust)?,
            since_ms: row.since_ms,
            change: change.map(|identity| PinChange {
                identity,
                since_ms: row.changed_ms.unwrap_or_default(),
                trust: trust_of_change(row.changed_distrusted > 0),
            }),
        })
    }
}

fn trust_of_change(is_distrusted: bool) -> PinTrust {
    if is_distrusted { PinTrust::Distrusted } else { PinTrust::Waiting }
}

fn identity_column(identity: IdentityKey) -> String {
    hex::encode(identity.to_bytes())
}

fn parse_identity(text: &str) -> Result<IdentityKey, StoreError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .ok()
        .and_then(|()| IdentityKey::from_bytes(&bytes))
        .ok_or(StoreError::Corrupt { table: TABLE, column: "identity" })
}

fn parse_device(id: i64) -> Result<DeviceId, StoreError> {
    u32::try_from(id)
        .ok()
        .and_then(DeviceId::new)
        .ok_or(StoreError::Corrupt { table: TABLE, column: "device_id" })
}

impl XmppOmemo<'_> {
    /// The pins of all devices of a contact.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_pins(&mut self, chat: &ChatKey) -> Result<Vec<DevicePin>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT device_id, identity, trust, since_ms, changed_to, changed_ms, \
                 (SELECT COUNT(*) FROM xmpp_distrusted \
                  WHERE xmpp_distrusted.local_user = xmpp_pins.local_user \
                    AND xmpp_distrusted.contact = xmpp_pins.contact \
                    AND xmpp_distrusted.identity = xmpp_pins.changed_to) AS changed_distrusted \
             FROM xmpp_pins \
             WHERE local_user = $1 AND contact = $2 ORDER BY device_id",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(DevicePin::try_from).collect()
    }

    /// How many devices of a contact have a pin.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn count_pins(&mut self, chat: &ChatKey) -> Result<usize, StoreError> {
        let (pins,): (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM xmpp_pins WHERE local_user = $1 AND contact = $2")
                .bind(local_user(&chat.local))
                .bind(chat.contact.as_str())
                .fetch_one(&mut *self.conn)
                .await?;
        Ok(usize::try_from(pins).unwrap_or(usize::MAX))
    }

    /// The pin of one device.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_pin(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
    ) -> Result<Option<DevicePin>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT device_id, identity, trust, since_ms, changed_to, changed_ms, \
                 (SELECT COUNT(*) FROM xmpp_distrusted \
                  WHERE xmpp_distrusted.local_user = xmpp_pins.local_user \
                    AND xmpp_distrusted.contact = xmpp_pins.contact \
                    AND xmpp_distrusted.identity = xmpp_pins.changed_to) AS changed_distrusted \
             FROM xmpp_pins \
             WHERE local_user = $1 AND contact = $2 AND device_id = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(DevicePin::try_from).transpose()
    }

    /// Whether a person has said no to this identity of a contact. It is kept out under every number, also when the
    /// device that had it presents another one, until it is verified.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn is_distrusted(
        &mut self,
        chat: &ChatKey,
        identity: IdentityKey,
    ) -> Result<bool, StoreError> {
        let row: Option<(String,)> = sqlx::query_as(
            "SELECT identity FROM xmpp_distrusted \
             WHERE local_user = $1 AND contact = $2 AND identity = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(identity_column(identity))
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Notes that a person has said no to an identity. Returns whether that is news.
    async fn keep_out(
        &mut self,
        chat: &ChatKey,
        identity: IdentityKey,
    ) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "INSERT INTO xmpp_distrusted (local_user, contact, identity) VALUES ($1, $2, $3) \
             ON CONFLICT (local_user, contact, identity) DO NOTHING",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(identity_column(identity))
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() > 0)
    }

    async fn let_in(&mut self, chat: &ChatKey, identity: IdentityKey) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM xmpp_distrusted \
             WHERE local_user = $1 AND contact = $2 AND identity = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(identity_column(identity))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Whether a device of the contact was ever verified in this chat: then a new one waits.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn new_devices_wait(&mut self, chat: &ChatKey) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT device_id FROM xmpp_pins \
             WHERE local_user = $1 AND contact = $2 AND was_verified = 1 LIMIT 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Whether a device that has no pin, and presents this identity, is not to be trusted on first use: it waits for a
    /// person's word, or they have said no to this very identity.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn keeps_out(
        &mut self,
        chat: &ChatKey,
        identity: IdentityKey,
    ) -> Result<bool, StoreError> {
        Ok(self.new_devices_wait(chat).await? || self.is_distrusted(chat, identity).await?)
    }

    /// Pins the identity of a new device, or lets it wait. A device that has a pin keeps it.
    /// Returns what became of a new one.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn pin(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        identity: IdentityKey,
        now_ms: i64,
    ) -> Result<Option<PinTrust>, StoreError> {
        let trust = if self.is_distrusted(chat, identity).await? {
            PinTrust::Distrusted
        } else if self.new_devices_wait(chat).await? {
            PinTrust::Waiting
        } else {
            PinTrust::Pinned
        };
        let result = sqlx::query(
            "INSERT INTO xmpp_pins (local_user, contact, device_id, identity, trust, since_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (local_user, contact, device_id) DO NOTHING",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .bind(identity_column(identity))
        .bind(trust.as_str())
        .bind(now_ms)
        .execute(&mut *self.conn)
        .await?;
        if result.rows_affected() == 0 {
            return Ok(None);
        }
        let key = LoggedKey::Omemo { chat, device, identity };
        self.log(key, KeyEvent::FirstSeen, &Decider::Nobody, now_ms).await?;
        Ok(Some(trust))
    }

    /// Compares the identity that a device presents with its pin. A device that presents the
    /// pinned one is as before any change: otherwise nothing but the approval of a strange
    /// identity would let messages out again. A device that waits has not been trusted under any
    /// identity, so it waits under the one that it presents, and is distrusted if that one is.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn present(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
        presented: IdentityKey,
        now_ms: i64,
    ) -> Result<Presented, StoreError> {
        let Some(pin) = self.find_pin(chat, device).await? else { return Ok(Presented::Unpinned) };
        if pin.presented() == presented {
            return Ok(Presented::Known);
        }
        let is_distrusted = self.is_distrusted(chat, presented).await?;
        let (changed, outcome) = if pin.identity == presented {
            (DevicePin { change: None, ..pin }, Presented::Returned)
        } else if pin.trust == PinTrust::Waiting {
            let trust = if is_distrusted { PinTrust::Distrusted } else { pin.trust };
            (DevicePin { identity: presented, trust, since_ms: now_ms, ..pin }, Presented::News)
        } else {
            let trust = trust_of_change(is_distrusted);
            let change = Some(PinChange { identity: presented, since_ms: now_ms, trust });
            (DevicePin { change, ..pin }, Presented::News)
        };
        self.save_pin(chat, &changed).await?;
        let key = LoggedKey::Omemo { chat, device, identity: presented };
        self.log(key, KeyEvent::Changed, &Decider::Nobody, now_ms).await?;
        Ok(outcome)
    }

    /// Carries out a decision about a device under an identity: the pinned one, or the one that it
    /// presents in its place, which is the pinned one from then on; sessions with the device under
    /// the other are forgotten. An approval lets no identity in that is distrusted, under whatever number. A distrust
    /// of what is only presented keeps that out and leaves the pinned one as it is: the contact's server takes it from
    /// nobody by presenting another. Returns whether that changed anything.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn decide(
        &mut self,
        chat: &ChatKey,
        (device, identity): (DeviceId, IdentityKey),
        decision: DeviceDecision,
        decided_by: &Decider,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let Some(pin) = self.find_pin(chat, device).await? else { return Ok(false) };
        let is_change = pin.change.is_some_and(|change| change.identity == identity);
        let key = LoggedKey::Omemo { chat, device, identity };
        let is_distrusted =
            pin.trust == PinTrust::Distrusted || self.is_distrusted(chat, identity).await?;
        // An approval is of all that was shown: what was distrusted comes back by its name only.
        if decision == DeviceDecision::Approve && is_distrusted {
            return Ok(false);
        }
        if decision == DeviceDecision::Distrust && is_change {
            let is_news = self.keep_out(chat, identity).await?;
            if is_news {
                self.log(key, KeyEvent::Distrusted, decided_by, now_ms).await?;
            }
            return Ok(is_news);
        }
        let (trust, event) = match decision {
            DeviceDecision::Approve => (PinTrust::Pinned, KeyEvent::Approved),
            DeviceDecision::Verify => (PinTrust::Verified, KeyEvent::Verified),
            DeviceDecision::Distrust => (PinTrust::Distrusted, KeyEvent::Distrusted),
        };
        let is_open = match decision {
            DeviceDecision::Approve => pin.trust == PinTrust::Waiting,
            DeviceDecision::Verify | DeviceDecision::Distrust => pin.trust != trust,
        };
        if !is_change && (pin.identity != identity || !is_open) {
            return Ok(false);
        }
        let change = pin.change.filter(|_| !is_change);
        let decided = DevicePin { device, identity, trust, since_ms: now_ms, change };
        self.save_pin(chat, &decided).await?;
        match decision {
            DeviceDecision::Approve => {}
            DeviceDecision::Verify => self.let_in(chat, identity).await?,
            DeviceDecision::Distrust => {
                self.keep_out(chat, identity).await?;
            }
        }
        if is_change {
            self.forget_sessions(chat, device).await?;
        }
        self.log(key, event, decided_by, now_ms).await?;
        Ok(true)
    }

    async fn save_pin(&mut self, chat: &ChatKey, pin: &DevicePin) -> Result<(), StoreError> {
        let is_verified = i64::from(pin.trust == PinTrust::Verified);
        sqlx::query(
            "UPDATE xmpp_pins SET identity = $4, trust = $5, since_ms = $6, changed_to = $7, \
                 changed_ms = $8, \
                 was_verified = CASE WHEN was_verified = 1 THEN 1 ELSE $9 END \
             WHERE local_user = $1 AND contact = $2 AND device_id = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(pin.device.value()))
        .bind(identity_column(pin.identity))
        .bind(pin.trust.as_str())
        .bind(pin.since_ms)
        .bind(pin.change.map(|change| identity_column(change.identity)))
        .bind(pin.change.map(|change| change.since_ms))
        .bind(is_verified)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Forgets the pins of the devices that a contact has taken off their lists. For chats in which nobody decides about
    /// devices: what was pinned there on first use is pinned anew with the next message of such a device.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn forget_unlisted_pins(&mut self, chat: &ChatKey) -> Result<(), StoreError> {
        let mut listed = BTreeSet::new();
        for namespace in Namespace::ALL {
            let known = self.find_devices(chat, namespace).await?;
            listed.extend(known.into_iter().flat_map(|known| known.devices));
        }
        for pin in self.load_pins(chat).await? {
            if listed.contains(&pin.device) {
                continue;
            }
            sqlx::query(
                "DELETE FROM xmpp_pins WHERE local_user = $1 AND contact = $2 AND device_id = $3",
            )
            .bind(local_user(&chat.local))
            .bind(chat.contact.as_str())
            .bind(i64::from(pin.device.value()))
            .execute(&mut *self.conn)
            .await?;
        }
        Ok(())
    }

    async fn forget_sessions(
        &mut self,
        chat: &ChatKey,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM xmpp_sessions WHERE local_user = $1 AND contact = $2 AND device_id = $3",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(i64::from(device.value()))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    async fn log(
        &mut self,
        key: LoggedKey<'_>,
        event: KeyEvent,
        decided_by: &Decider,
        time_ms: i64,
    ) -> Result<(), StoreError> {
        let entry = KeyLogEntry { time_ms, key, event, decided_by };
        KeyLog::beside(&mut *self.conn, self.sealer).append(&entry).await
    }
}
