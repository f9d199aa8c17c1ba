//! Whose keys devices have asked the homeserver for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

/// Devices that are remembered; when there are more, all are forgotten and ask once more.
const MAX_DEVICES: usize = 16_384;

/// Whose keys were asked for, by device and room, since the bridge was started and since the room's state last changed
/// ([`Room::change`]). A person who was away from all shared rooms, or only invited, may have changed devices
/// meanwhile, and no sync says so.
///
/// The answers are in the device's store, so a device that was unloaded since need not ask again: what has changed
/// meanwhile, its next sync says.
///
/// [`Room::change`]: crate::matrix::rooms::Room::change
#[derive(Default)]
pub(super) struct Asked(Mutex<HashMap<OwnedUserId, ByRoom>>);

type ByRoom = HashMap<OwnedRoomId, (u64, BTreeSet<OwnedUserId>)>;

impl Asked {
    /// Those of `readers` whose keys `device` has not asked for.
    pub(super) fn unasked(
        &self,
        device: &UserId,
        (room, change): (&RoomId, u64),
        readers: &BTreeSet<OwnedUserId>,
    ) -> BTreeSet<OwnedUserId> {
        let asked = self.lock();
        let of_room = asked.get(device).and_then(|rooms| rooms.get(room));
        match of_room.filter(|(then, _)| *then == change) {
            Some((_, known)) => readers.difference(known).cloned().collect(),
            None => readers.clone(),
        }
    }

    /// The keys of all `readers` were asked for.
    pub(super) fn note(
        &self,
        device: &UserId,
        (room, change): (&RoomId, u64),
        readers: &BTreeSet<OwnedUserId>,
    ) {
        let mut asked = self.lock();
        if asked.len() >= MAX_DEVICES && !asked.contains_key(device) {
            asked.clear();
        }
        let rooms = asked.entry(device.to_owned()).or_default();
        rooms.insert(room.to_owned(), (change, readers.clone()));
    }

    /// Whatever was answered for this room may have been wrong.
    pub(super) fn forget_room(&self, device: &UserId, room: &RoomId) {
        if let Some(rooms) = self.lock().get_mut(device) {
            rooms.remove(room);
        }
    }

    /// What was answered may not be in the device's store.
    pub(super) fn forget(&self, device: &UserId) {
        self.lock().remove(device);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnedUserId, ByRoom>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
