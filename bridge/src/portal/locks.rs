//! Locks by key, a bounded number of them: two keys may share one.

use std::hash::{BuildHasher as _, Hash, RandomState};

use tokio::sync::Mutex;

use crate::queue::aside;

const COUNT: u64 = 64;

/// Lets one at a time do what belongs to a key. Nobody can choose a key that shares another's lock.
pub(super) struct Locks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub fn new() -> Self {
        let locks = (0..COUNT).map(|_| Mutex::new(())).collect();
        Self { locks, hasher: RandomState::new() }
    }

    /// Waits until nobody holds the lock of `key`, and calls `work` while holding it. Whoever holds it may wait for a
    /// stranger's server.
    pub async fn alone<T>(&self, key: impl Hash, work: impl Future<Output = T>) -> T {
        let index = usize::try_from(self.hasher.hash_one(key) % COUNT).unwrap_or_default();
        let _guard = match self.locks.get(index) {
            Some(lock) => Some(aside(lock.lock()).await),
            None => None,
        };
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_a_key() {
        let locks = Locks::new();
        let at_work = Mutex::new(());
        let work = || {
            locks.alone("key", async {
                let _alone = at_work.try_lock().unwrap();
                tokio::task::yield_now().await;
            })
        };
        tokio::join!(work(), work(), work());
    }
}
