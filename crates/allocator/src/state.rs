//! What must survive a restart, and where: a state directory, or the Lease object of a cluster.
//!
//! In a directory the lock is the authority (`leases.md` 3.6): the kernel frees it when its holder's
//! process ends, so whoever gets it knows that the allocator before has ended. The record is one small
//! JSON file that is replaced as a whole. In a cluster [`crate::cluster::term`] holds the Lease and writes
//! the record into it. What the figures in it mean is decided in [`crate::ledger_task`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quota::time::Time;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::record::{Record, Unreadable};

/// The record, and where it is kept.
#[derive(Debug)]
pub(crate) struct State {
    store: Store,
    record: Record,
    is_dirty: bool,
}

/// A record to be written into the Lease.
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) record: String,
    /// Answered once it is there; dropped if it could not be written.
    pub(crate) done: oneshot::Sender<()>,
}

#[derive(Debug)]
enum Store {
    Directory {
        path: PathBuf,
        /// Held until the end: closing it frees the lock.
        _lock: File,
    },
    Lease {
        saves: mpsc::Sender<Save>,
        /// What the Lease says.
        written: Box<Record>,
        /// What it will say when the answer comes.
        pending: Option<(Box<Record>, oneshot::Receiver<()>)>,
    },
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
    #[error("the Lease is lost: another allocator leads, or will")]
    LeaseLost,
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
        let store = Store::Directory { path: directory.to_owned(), _lock: lock };
        let mut state = State { store, record, is_dirty: true };
        state.record.begin_epoch(clock());
        state.save().await?;
        Ok((state, memory))
    }

    /// The record of a Lease that was just taken, as it was written with it.
    pub(crate) fn of_lease(record: Record, saves: mpsc::Sender<Save>) -> State {
        let written = Box::new(record.shared());
        State { store: Store::Lease { saves, written, pending: None }, record, is_dirty: false }
    }

    /// What is on record, or will be after the next save.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record, if `change` says that it did; kept after the next save.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Record) -> bool) {
        self.is_dirty |= change(&mut self.record);
    }

    /// Keeps what has changed. To be awaited before anything is sent that relies on it. True if all is
    /// kept; in a Lease the marks of stocks may be on their way still, because nothing else may wait
    /// for them: an API server that is away for a moment must not keep leases from being renewed.
    pub(crate) async fn save(&mut self) -> Result<bool, Error> {
        if !self.is_dirty {
            return Ok(true);
        }
        match &self.store {
            Store::Directory { path, .. } => {
                write(path.clone(), self.record.to_json()).await?;
                self.is_dirty = false;
            }
            Store::Lease { .. } => self.save_in_lease().await?,
        }
        Ok(!self.is_dirty)
    }

    async fn save_in_lease(&mut self) -> Result<(), Error> {
        let Store::Lease { saves, written, pending } = &mut self.store else { return Ok(()) };
        let wanted = self.record.shared();
        loop {
            let must_wait = written.without_marks() != wanted.without_marks();
            if let Some((record, mut answer)) = pending.take() {
                if must_wait {
                    (&mut answer).await.map_err(|_| Error::LeaseLost)?;
                    *written = record;
                } else {
                    match answer.try_recv() {
                        Ok(()) => *written = record,
                        Err(oneshot::error::TryRecvError::Closed) => return Err(Error::LeaseLost),
                        Err(oneshot::error::TryRecvError::Empty) => {
                            *pending = Some((record, answer));
                            return Ok(());
                        }
                    }
                }
            }
            if **written == wanted {
                self.is_dirty = false;
                return Ok(());
            }
            let (done, answer) = oneshot::channel();
            let save = Save { record: to_text(&wanted), done };
            saves.send(save).await.map_err(|_| Error::LeaseLost)?;
            *pending = Some((Box::new(wanted.clone()), answer));
            if written.without_marks() == wanted.without_marks() {
                return Ok(());
            }
        }
    }
}

/// A record as the Lease holds it.
pub(crate) fn to_text(record: &Record) -> String {
    String::from_utf8(record.to_json()).expect("JSON is text")
}

/// Writes the record without keeping the other tasks of this thread waiting for the disk.
async fn write(directory: PathBuf, text: Vec<u8>) -> Result<(), Error> {
    let path = directory.clone();
    let written = tokio::task::spawn_blocking(move || replace(&directory, &text)).await;
    let written = written.map_err(io::Error::other).flatten();
    written.map_err(|source| Error::Io { path, what: "written", source })
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
