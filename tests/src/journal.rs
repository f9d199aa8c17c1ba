//! An append-only record that can be waited on.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::sync::watch;

/// How long a test waits for something that takes a homeserver or a client a moment.
pub const SOON: Duration = Duration::from_secs(60);

/// The writing end of a journal. When it is dropped, waits that nothing can end any more fail.
#[derive(Debug)]
pub struct Writer<T>(watch::Sender<Vec<T>>);

/// The reading end: everything that has happened so far, and the means to wait for what is to come.
#[derive(Debug, Clone)]
pub struct Journal<T>(watch::Receiver<Vec<T>>);

/// An empty journal.
pub fn journal<T>() -> (Writer<T>, Journal<T>) {
    let (writer, reader) = watch::channel(Vec::new());
    (Writer(writer), Journal(reader))
}

impl<T> Writer<T> {
    /// Adds an entry and wakes who waits.
    pub fn push(&self, entry: T) {
        self.0.send_modify(|entries| entries.push(entry));
    }
}

impl<T> Journal<T> {
    /// Reads all entries so far.
    pub fn read<R>(&self, reader: impl FnOnce(&[T]) -> R) -> R {
        reader(&self.0.borrow())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until `pick` finds what it looks for among all entries, old and new.
    ///
    /// # Errors
    /// Names `what` when the time is over or the writer has gone.
    pub async fn wait_until<R>(
        &self,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&[T]) -> Option<R>,
    ) -> Result<R> {
        let mut found = None;
        let mut reader = self.0.clone();
        let waiting = reader.wait_for(|entries| {
            found = pick(entries);
            found.is_some()
        });
        match tokio::time::timeout(within, waiting).await {
            Err(_) => bail!("waited {} s in vain for {what}", within.as_secs()),
            Ok(Err(_)) => bail!("the process ended while waiting for {what}"),
            Ok(Ok(_)) => {}
        }
        found.ok_or_else(|| anyhow!("nothing was found for {what}"))
    }

    /// Waits for the first entry for which `pick` gives something; asks it about every entry once.
    ///
    /// # Errors
    /// As [`Journal::wait_until`].
    pub async fn wait_for<R>(
        &self,
        what: &str,
        within: Duration,
        pick: impl FnMut(&T) -> Option<R>,
    ) -> Result<R> {
        self.wait_for_after(0, what, within, pick).await
    }

    /// As [`Journal::wait_for`], without the first `seen` entries.
    ///
    /// # Errors
    /// As [`Journal::wait_until`].
    pub async fn wait_for_after<R>(
        &self,
        mut seen: usize,
        what: &str,
        within: Duration,
        mut pick: impl FnMut(&T) -> Option<R>,
    ) -> Result<R> {
        self.wait_until(what, within, |entries| {
            let fresh = entries.get(seen..).unwrap_or_default();
            seen = entries.len();
            fresh.iter().find_map(&mut pick)
        })
        .await
    }
}
