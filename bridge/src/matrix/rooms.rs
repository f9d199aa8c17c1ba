//! What the homeserver says of a room's members and encryption, as far as sending needs it.
//!
//! Owns a cache that state events throw out, and age does too: an event may be late.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use e2ee::matrix::RoomKeySettings;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::room::{
        encryption::RoomEncryptionEventContent,
        history_visibility::{HistoryVisibility, RoomHistoryVisibilityEventContent},
    },
};
use tokio::time::Instant;

use super::{
    ClientError, MatrixClient, MatrixError,
    client::{Members, StateEvent},
};

/// How old a cached room may be.
const MAX_AGE: Duration = Duration::from_secs(60);

const ENCRYPTION: &str = "m.room.encryption";
const VISIBILITY: &str = "m.room.history_visibility";
const MEMBER: &str = "m.room.member";

/// Rooms in the cache; when there are more, all are forgotten.
const MAX_ROOMS: usize = 4096;

/// A room as a sender needs it.
#[derive(Clone)]
pub(super) struct Room {
    /// The settings for its keys; `None` when it is not encrypted, or with something unknown.
    pub settings: Option<RoomKeySettings>,
    /// Another number after every state event of the room.
    pub change: u64,
    members: Members,
    visibility: HistoryVisibility,
}

struct Cached {
    room: Arc<Room>,
    since: Instant,
}

impl Cached {
    fn is_for(&self, who: &UserId) -> bool {
        self.since.elapsed() < MAX_AGE && self.room.members.joined.contains(who)
    }
}

#[derive(Default)]
struct Cache {
    rooms: HashMap<OwnedRoomId, Cached>,
    /// Goes up with every state event: what was fetched before one is not cached after it.
    generation: u64,
    /// The generation of the last state event of each room, as far as it is remembered.
    changes: HashMap<OwnedRoomId, u64>,
    /// The generation when that was last forgotten: any other room may have changed until then.
    forgotten: u64,
}

impl Cache {
    fn change_of(&self, room: &RoomId) -> u64 {
        self.changes.get(room).copied().unwrap_or(self.forgotten)
    }

    fn forget(&mut self, room: &RoomId) {
        self.generation = self.generation.wrapping_add(1);
        self.rooms.remove(room);
        if self.changes.len() >= MAX_ROOMS {
            self.changes.clear();
            self.forgotten = self.generation;
        }
        self.changes.insert(room.to_owned(), self.generation);
    }
}

/// The rooms that were written to lately.
pub(super) struct Rooms {
    client: MatrixClient,
    cache: Mutex<Cache>,
}

impl Room {
    /// Who of `audience` gets the room key: the joined, and the invited unless nobody may read
    /// what was said before they joined. Membership alone gives nobody a key, because it is the
    /// homeserver's word.
    pub fn readers(&self, audience: &BTreeSet<OwnedUserId>) -> BTreeSet<OwnedUserId> {
        let may_read = |user: &&OwnedUserId| {
            self.members.joined.contains(*user)
                || (self.visibility != HistoryVisibility::Joined
                    && self.members.invited.contains(*user))
        };
        audience.iter().filter(may_read).cloned().collect()
    }
}

impl Rooms {
    pub fn new(client: MatrixClient) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// The room as `who`, one of its members, sees it.
    ///
    /// # Errors
    /// [`MatrixError::NotThere`] when `who` is none: homeservers show the room to those who have left it too, as it
    /// was then.
    pub async fn fetch(&self, who: &UserId, room: &RoomId) -> Result<Arc<Room>, MatrixError> {
        let (generation, change) = {
            let cache = self.lock();
            match cache.rooms.get(room).filter(|cached| cached.is_for(who)) {
                Some(cached) => return Ok(cached.room.clone()),
                None => (cache.generation, cache.change_of(room)),
            }
        };
        let fetched = Arc::new(self.fetch_anew(who, room, change).await?);
        if !fetched.members.joined.contains(who) {
            return Err(MatrixError::NotThere);
        }
        let mut cache = self.lock();
        if cache.generation == generation {
            if cache.rooms.len() >= MAX_ROOMS {
                cache.rooms.clear();
            }
            let cached = Cached { room: fetched.clone(), since: Instant::now() };
            cache.rooms.insert(room.to_owned(), cached);
        }
        Ok(fetched)
    }

    /// Something in the room's state has changed.
    pub fn forget(&self, room: &RoomId) {
        self.lock().forget(room);
    }

    async fn fetch_anew(
        &self,
        who: &UserId,
        room: &RoomId,
        change: u64,
    ) -> Result<Room, ClientError> {
        let state = self.client.fetch_state(who, room, &[ENCRYPTION, VISIBILITY, MEMBER]).await?;
        let visibility = visibility_in(&state);
        // What cannot be read counts as absent.
        let encryption: Option<RoomEncryptionEventContent> =
            content_of(&state, ENCRYPTION).and_then(Result::ok);
        let settings = encryption
            .map(|encryption| RoomKeySettings { encryption, visibility: visibility.clone() });
        Ok(Room { settings, change, members: Members::of(&state), visibility })
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who may read what was said before they joined. The specification has a default; what cannot be read is as strict as
/// can be.
fn visibility_in(state: &[StateEvent]) -> HistoryVisibility {
    match content_of::<RoomHistoryVisibilityEventContent>(state, VISIBILITY) {
        Some(Ok(content)) => content.history_visibility,
        Some(Err(_)) => HistoryVisibility::Joined,
        None => HistoryVisibility::Shared,
    }
}

/// What the state of a room says once.
fn content_of<T: serde::de::DeserializeOwned>(
    state: &[StateEvent],
    event_type: &str,
) -> Option<serde_json::Result<T>> {
    let is_it = |event: &&StateEvent| event.event_type == event_type && event.state_key.is_empty();
    Some(serde_json::from_value(state.iter().find(is_it)?.content.clone()))
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_room_whose_changes_were_forgotten_has_changed() {
        let mut cache = Cache::default();
        let room = |number: usize| OwnedRoomId::try_from(format!("!{number}:a.example")).unwrap();
        let others: Vec<_> = (2..=MAX_ROOMS + 1).map(room).collect();
        cache.forget(&room(1));
        let (changed, quiet) = (cache.change_of(&room(1)), cache.change_of(&room(0)));
        assert_ne!(changed, quiet);
        others.iter().for_each(|other| cache.forget(other));
        for (known, room) in [(changed, room(1)), (quiet, room(0))] {
            assert_ne!(cache.change_of(&room), known);
            assert_ne!(cache.change_of(&room), 0, "whoever asked before the first change");
        }
    }

    #[test]
    fn a_visibility_that_cannot_be_read_is_the_strictest() {
        let said = |content| {
            let (event_type, state_key) = (VISIBILITY.to_owned(), String::new());
            visibility_in(&[StateEvent { event_type, state_key, content }])
        };
        let world_readable = json!({ "history_visibility": "world_readable" });
        assert_eq!(said(world_readable), HistoryVisibility::WorldReadable);
        assert_eq!(said(json!({ "history_visibility": 5 })), HistoryVisibility::Joined);
        assert_eq!(visibility_in(&[]), HistoryVisibility::Shared);
    }

    #[test]
    fn a_member_who_is_not_addressed_gets_no_room_key() {
        let (alice, mallory) = (user_id!("@alice:a.example"), owned_user_id!("@mallory:b.example"));
        let room = |joined: &UserId, visibility| Room {
            settings: None,
            change: 0,
            members: Members {
                joined: [joined.to_owned(), mallory.clone()].into(),
                invited: [alice.to_owned()].into(),
            },
            visibility,
        };
        let audience = BTreeSet::from([alice.to_owned()]);
        let somebody = user_id!("@somebody:a.example");
        assert_eq!(room(alice, HistoryVisibility::Joined).readers(&audience), audience);
        assert_eq!(room(somebody, HistoryVisibility::Shared).readers(&audience), audience);
        assert!(room(somebody, HistoryVisibility::Joined).readers(&audience).is_empty());
    }
}
