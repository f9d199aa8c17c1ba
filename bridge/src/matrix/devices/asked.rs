//! Whose keys devices have asked the homeserver for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

/// Devices that are remembered, and rooms of one of them; when there are more, all are forgotten and asked for once more.
const MAX_DEVICES: usize = 16_384;
const MAX_ROOMS: usize = 4096;

/// Whose keys were asked for, by device and room, since the bridge was started and since the room's state last changed
/// ([`Room::change`]). A person who was away from all shared rooms, or only invited, may have changed devices
/// meanwhile, and no sync says so.
///
/// The answers are in the device's store, so a device that was unloaded since need not ask again: its next sync says who
/// has changed meanwhile, and whoever is not asked for with it is struck here.
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

    /// The keys of all `readers` were asked for, and nobody else's.
    pub(super) fn note(
        &self,
        device: &UserId,
        (room, change): (&RoomId, u64),
        readers: BTreeSet<OwnedUserId>,
    ) {
        let mut asked = self.lock();
        if asked.len() >= MAX_DEVICES && !asked.contains_key(device) {
            asked.clear();
        }
        let rooms = asked.entry(device.to_owned()).or_default();
        if rooms.len() >= MAX_ROOMS && !rooms.contains_key(room) {
            rooms.clear();
        }
        rooms.insert(room.to_owned(), (change, readers));
    }

    /// What was answered of these users is not true any more.
    pub(super) fn strike<'u>(&self, device: &UserId, users: impl Iterator<Item = &'u OwnedUserId>) {
        let mut asked = self.lock();
        let Some(rooms) = asked.get_mut(device) else { return };
        for user in users {
            rooms.values_mut().for_each(|(_, known)| {
                known.remove(user);
            });
        }
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

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, room_id, user_id};

    use super::*;

    #[test]
    fn what_has_changed_is_asked_for_again_in_every_room() {
        let (alice, carol) =
            (owned_user_id!("@alice:a.example"), owned_user_id!("@carol:a.example"));
        let both = BTreeSet::from([alice.clone(), carol.clone()]);
        let (ghost, other) = (user_id!("@ghost:b.example"), user_id!("@other:b.example"));
        let (here, there) = (room_id!("!here:b.example"), room_id!("!there:b.example"));
        let asked = Asked::default();
        for (device, room) in [(ghost, here), (ghost, there), (other, here)] {
            assert_eq!(asked.unasked(device, (room, 1), &both), both);
            asked.note(device, (room, 1), both.clone());
            assert!(asked.unasked(device, (room, 1), &both).is_empty());
        }
        assert_eq!(asked.unasked(ghost, (here, 2), &both), both, "the room has changed");

        asked.strike(ghost, [&alice].into_iter());
        for room in [here, there] {
            assert_eq!(asked.unasked(ghost, (room, 1), &both), [alice.clone()].into());
        }
        assert!(asked.unasked(other, (here, 1), &both).is_empty());
        asked.forget_room(ghost, here);
        assert_eq!(asked.unasked(ghost, (here, 1), &both), both);
        assert_eq!(asked.unasked(ghost, (there, 1), &both), [alice].into());
        asked.forget(ghost);
        assert_eq!(asked.unasked(ghost, (there, 1), &both), both);
    }
}
