//! Locks by key, a bounded number of them: two keys may share one.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use tokio::sync::Mutex;

use crate::queue::aside;

const COUNT: u64 = 64;

/// Lets one at a time do what belongs to a key.
pub(super) struct Locks(Vec<Mutex<()>>);

impl Locks {
    pub fn new() -> Self {
        Self((0..COUNT).map(|_| Mutex::new(())).collect())
    }

    /// Waits until nobody holds the lock of `key`, and calls `work` while holding it. Whoever holds it may wait for a
    /// stranger's server.
    pub async fn alone<T>(&self, key: impl Hash, work: impl Future<Output = T>) -> T {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % COUNT).unwrap_or_default();
        let _guard = match self.0.get(index) {
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
