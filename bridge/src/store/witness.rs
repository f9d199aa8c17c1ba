//! The witness: a small file outside the database that says how far the database had come.
//!
//! A database that is older than its witness was restored from a copy: keys that follow its state
//! may have been used. The file is written after each commit and not synced to the disk each time:
//! it outlives the process at once and the machine a little later, so at a power cut it falls
//! behind the database, which proves nothing and harms nothing.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const HEADER: &str = "gephyra witness";

/// How far a database has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Which of its histories: 32 hex digits.
    pub lineage: String,
    /// Commits since the database was made.
    pub commits: i64,
}

/// The file, once this process writes it.
pub(super) struct Witness {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    position: Position,
    is_broken: bool,
}

impl Witness {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: Mutex::default() }
    }

    /// What the file says; `None` when there is none.
    pub(super) fn read(&self) -> io::Result<Option<Position>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it is not a witness file")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the file anew at this position, durably, and keeps it open.
    pub(super) fn start(&self, position: Position) -> io::Result<()> {
        let text = print(&position);
        // Not emptied first: if that were all that succeeded, nothing would vouch for the database.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
        file.sync_all()?;
        let open = Open { file, position, is_broken: false };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(())
    }

    /// Whether it has seen this commit already: then the database went back while it was in use.
    pub(super) fn has_seen(&self, commits: i64) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_some_and(|open| open.position.commits >= commits)
    }

    /// Notes a commit. A file that cannot be written does not undo it.
    pub(super) fn advance(&self, commits: i64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_mut().filter(|open| open.position.commits < commits) else {
            return;
        };
        open.position.commits = commits;
        let written = open.file.write_all_at(print(&open.position).as_bytes(), 0);
        if let Err(error) = &written
            && !open.is_broken
        {
            tracing::error!(
                error = %error,
                "store.witness.not_written: a backup that is restored now may not be noticed; make \
                 room for the file database.witness_file"
            );
        }
        open.is_broken = written.is_err();
    }
}

/// Always of the same length, so that it is overwritten in place.
fn print(Position { lineage, commits }: &Position) -> String {
    format!("{HEADER}\n{lineage}\n{commits:020}\n")
}

fn parse(text: &str) -> Option<Position> {
    let mut lines = text.lines();
    let is_witness = lines.next() == Some(HEADER);
    let lineage = lines.next().filter(|text| text.len() == 32 && is_witness)?.to_owned();
    let commits = lines.next()?.parse().ok()?;
    Some(Position { lineage, commits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(commits: i64) -> Position {
        Position { lineage: "0123456789abcdef0123456789abcdef".to_owned(), commits }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(&folder.path().join("witness"));
        assert_eq!(witness.read().unwrap(), None);
        witness.start(position(7)).unwrap();
        assert_eq!(witness.read().unwrap(), Some(position(7)));
        assert!(witness.has_seen(7) && !witness.has_seen(8));
        witness.advance(i64::MAX);
        witness.advance(8);
        assert_eq!(witness.read().unwrap(), Some(position(i64::MAX)), "it went back");
    }

    #[test]
    fn another_file_is_no_witness() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        for text in ["", "gephyra witness\n", "gephyra witness\n0123\n7\n", "notes\n"] {
            std::fs::write(&path, text).unwrap();
            let error = Witness::new(&path).read().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
    }
}
