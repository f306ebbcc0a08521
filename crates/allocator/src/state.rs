//! The state directory: what must survive a restart, and the lock that says who leads.
//!
//! The lock is the authority (`leases.md` 3.6): the kernel frees it when its holder's process ends, so
//! whoever gets it knows that the allocator before has ended. The record is one small JSON file that is
//! replaced as a whole. What the figures in it mean is decided in [`crate::ledger_task`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::time::Time;
use rustix::fs::{FlockOperation, flock};
use tracing::{info, warn};

use crate::record::{Record, Unreadable};

/// The directory, locked, and its record.
#[derive(Debug)]
pub(crate) struct State {
    directory: PathBuf,
    /// Held until the end: closing it frees the lock.
    _lock: File,
    record: Record,
    is_dirty: bool,
}

/// What the directory knew of allocators before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// There were none: a new directory.
    FirstUse,
    /// The record of the one before.
    Kept,
    /// There was one, and its record cannot be read.
    Lost,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("state directory {path} cannot be {what}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error(
        "{path} was written by a newer weir-allocator (its form is {version}): start that one, or \
         choose another --state"
    )]
    Newer { path: PathBuf, version: u64 },
}

const RECORD: &str = "state.json";
const NEXT_RECORD: &str = "state.json.next";
/// Where a record that cannot be read is kept, for whoever wants to know why.
const UNREADABLE_RECORD: &str = "state.json.unreadable";

/// How often the lock is tried. A successor that stands by starts this much later at most; asking the
/// kernel to wait instead could not be cancelled.
const LOCK_RETRY: Duration = Duration::from_millis(20);

// === impl State ===

impl State {
    /// Makes the directory if need be, waits for its lock, reads the record, and begins a new epoch,
    /// which is on record when this returns. `clock` is asked when the wait is over.
    pub(crate) async fn open(
        directory: &Path,
        clock: impl Fn() -> Time,
    ) -> Result<(State, Memory), Error> {
        let failed = |what| move |source| Error::Io { path: directory.to_owned(), what, source };
        fs::create_dir_all(directory).map_err(failed("made"))?;
        let lock = File::open(directory).map_err(failed("opened"))?;
        wait_for(&lock, directory).await.map_err(failed("locked"))?;
        let (record, memory) = load(directory)?;
        let mut state =
            State { directory: directory.to_owned(), _lock: lock, record, is_dirty: true };
        state.record.begin_epoch(clock());
        state.save().await?;
        Ok((state, memory))
    }

    /// What is on record, or will be after the next save.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record, if `change` says that it did; on disk after the next save.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Record) -> bool) {
        self.is_dirty |= change(&mut self.record);
    }

    /// Brings what has changed onto the disk. To be awaited before anything is sent that relies on it.
    pub(crate) async fn save(&mut self) -> Result<(), Error> {
        if !self.is_dirty {
            return Ok(());
        }
        let (directory, text) = (self.directory.clone(), self.record.to_json());
        // The disk may take its time, and other tasks share this thread.
        let written = tokio::task::spawn_blocking(move || replace(&directory, &text)).await;
        written.map_err(io::Error::other).flatten().map_err(|source| Error::Io {
            path: self.directory.clone(),
            what: "written",
            source,
        })?;
        self.is_dirty = false;
        Ok(())
    }
}

async fn wait_for(lock: &File, directory: &Path) -> io::Result<()> {
    let mut is_told = false;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if is_told => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                is_told = true;
                let holder = load(directory).ok().map(|(record, _)| record.leader());
                let directory = directory.display();
                info!(%directory, holder, "another allocator works on this state; waiting for its end");
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

fn load(directory: &Path) -> Result<(Record, Memory), Error> {
    let path = directory.join(RECORD);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Record::default(), Memory::FirstUse));
        }
        Err(source) => return Err(Error::Io { path, what: "read", source }),
    };
    match Record::from_json(&text) {
        Ok(record) => Ok((record, Memory::Kept)),
        Err(Unreadable::Newer(version)) => Err(Error::Newer { path, version }),
        Err(Unreadable::Broken(error)) => {
            let (from, kept) = (path.display(), directory.join(UNREADABLE_RECORD));
            warn!(record = %from, %error, "the record of the allocator before cannot be read");
            if let Err(error) = fs::copy(&path, &kept) {
                warn!(%error, "it could not be kept for inspection either");
            }
            Ok((Record::default(), Memory::Lost))
        }
    }
}

/// The new record, or after a crash the old one, but never half of one.
fn replace(directory: &Path, text: &[u8]) -> io::Result<()> {
    let next = directory.join(NEXT_RECORD);
    let mut file = File::create(&next)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&next, directory.join(RECORD))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use quota::message::Epoch;

    use super::*;

    async fn open(directory: &Path) -> (State, Memory) {
        State::open(directory, || Time::ZERO).await.unwrap()
    }

    #[tokio::test]
    async fn every_start_begins_a_higher_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made");
        for (epoch, expected) in [(1, Memory::FirstUse), (2, Memory::Kept), (3, Memory::Kept)] {
            let (state, memory) = open(&path).await;
            assert_eq!((state.record().epoch(), memory), (Epoch(epoch), expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_until_the_first_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = open(directory.path()).await;
        let second = open(directory.path());
        tokio::pin!(second);
        let early = tokio::time::timeout(Duration::from_secs(60), &mut second).await;
        assert!(early.is_err());
        drop(first);
        let (second, memory) = second.await;
        assert_eq!((second.record().epoch(), memory), (Epoch(2), Memory::Kept));
    }

    #[tokio::test]
    async fn what_was_saved_is_there_after_a_restart_and_what_was_not_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (mut state, _) = open(directory.path()).await;
        state.update(|record| record.raise_epoch_above(Epoch(40)));
        state.save().await.unwrap();
        state.update(|record| record.raise_epoch_above(Epoch(90)));
        drop(state);
        fs::write(directory.path().join(NEXT_RECORD), "{ half").unwrap();
        fs::write(directory.path().join("unknown"), "?").unwrap();
        let (state, memory) = open(directory.path()).await;
        assert_eq!((state.record().epoch(), memory), (Epoch(42), Memory::Kept));
    }

    #[tokio::test]
    async fn a_broken_record_is_lost_but_kept_for_inspection() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(RECORD), "{\"form\":1,\"epoch\"").unwrap();
        let (state, memory) = open(directory.path()).await;
        assert_eq!((state.record().epoch(), memory), (Epoch(1), Memory::Lost));
        let kept = fs::read(directory.path().join(UNREADABLE_RECORD)).unwrap();
        assert_eq!(kept, b"{\"form\":1,\"epoch\"");
    }

    #[tokio::test]
    async fn a_record_of_a_newer_allocator_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{"form":2,"epoch":"nine"}"#;
        fs::write(directory.path().join(RECORD), text).unwrap();
        let error = State::open(directory.path(), || Time::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::Newer { version: 2, .. }), "{error}");
        assert_eq!(fs::read(directory.path().join(RECORD)).unwrap(), text.as_bytes());
    }
}
