//! The directory source of policy: reads the YAML files, again whenever they change, and publishes
//! what they compile to.
//!
//! `crds::directory` says what the texts mean and what is wrong with them. A directory that does not
//! compile at the start is an error; later the last good policy stays in force, and the problems are
//! logged and shown.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crds::compile::Compiled;
use crds::directory::MAX_FILE_BYTES;
use crds::problem::Problem;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use quota::policy::Policy;
use service::drain;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::reach;

/// What is in force, and what is wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Current {
    /// The last good policy.
    pub(crate) policy: Arc<Policy>,
    /// What in it does not do what its author may think.
    pub(crate) warnings: Vec<Problem>,
    /// Why the files that are there now are not in force; empty if they are.
    pub(crate) problems: Vec<String>,
    /// The objects that are not in force; in a directory all of it is, or none.
    pub(crate) errors: Vec<Problem>,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Source {
    directory: PathBuf,
    current: watch::Sender<Arc<Current>>,
    /// What was read last; `None` if that failed.
    read: Option<Texts>,
    marks: Marks,
    /// Told by the kernel that something has changed. Kept alive by the watcher beside it.
    changed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

/// Why the policy cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("policy directory {path} cannot be read")]
    Io { path: PathBuf, source: io::Error },
    #[error("policy directory {path} holds more than {MAX_FILES} YAML files")]
    ManyFiles { path: PathBuf },
    #[error("the policy cannot be used:\n  {}", .0.join("\n  "))]
    Problems(Vec<String>),
}

/// File names and their texts.
type Texts = BTreeMap<String, String>;

/// What tells one version of a file from another without reading it. Symbolic links are followed, so
/// that a mounted ConfigMap, which swaps a link, changes too.
type Marks = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// People who have more write fewer, larger files; a megabyte each is the compiler's own bound.
const MAX_FILES: usize = 256;
/// Editors and `kubectl` write in several steps; they are read as one change.
const SETTLE: Duration = Duration::from_millis(100);
/// A directory in which something changes all the time is read this often all the same.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Not every file system tells of changes, and a watched directory may itself be replaced.
const CHECK_EVERY: Duration = Duration::from_secs(5);

// === impl Current ===

impl Current {
    /// What is in force once `policy` is. Generations count its changes: what is the same stays the
    /// same, and nobody is told of it.
    pub(crate) fn followed_by(
        &self,
        mut policy: Policy,
        warnings: Vec<Problem>,
        problems: Vec<String>,
    ) -> Current {
        let before = &self.policy;
        policy.generation = before.generation;
        if policy == **before && before.generation > 0 {
            return Current { policy: before.clone(), warnings, problems, errors: Vec::new() };
        }
        policy.generation += 1;
        let generation = policy.generation;
        let (providers, quotas) = (policy.providers.len(), policy.quotas.len());
        info!(generation, providers, quotas, "policy in force");
        Current { policy: Arc::new(policy), warnings, problems, errors: Vec::new() }
    }
}

// === impl Source ===

impl Source {
    /// Reads the directory for the first time. The watch shows what is in force from then on.
    pub(crate) fn open(directory: &Path) -> Result<(Source, watch::Receiver<Arc<Current>>), Error> {
        let changed = Arc::new(Notify::new());
        // Before the first reading, so that a change right after it is not missed.
        let watcher = watch(directory, changed.clone());
        let marks = marks(directory);
        let read = texts(directory)?;
        let compiled = compile(&read).map_err(Error::Problems)?;
        let (current, receiver) = watch::channel(Arc::default());
        let mut source = Source {
            directory: directory.to_owned(),
            current,
            read: Some(read),
            marks,
            changed,
            _watcher: watcher,
        };
        source.publish(compiled);
        Ok((source, receiver))
    }

    /// Reads the directory again whenever it changes, until the drain starts.
    pub(crate) async fn run(mut self, mut drain: drain::Watch) {
        loop {
            // All arms are cancel-safe: a lost notification is caught by the next check of the marks.
            tokio::select! {
                () = self.changed.notified() => self.settle().await,
                () = sleep(CHECK_EVERY) => {}
                _ = drain.started() => return,
            }
            let marks = marks(&self.directory);
            if marks != self.marks || self.read.is_none() {
                self.marks = marks;
                self.reload().await;
            }
        }
    }

    /// Waits until nothing has changed for a moment.
    async fn settle(&self) {
        let end = Instant::now() + SETTLE_MAX;
        while Instant::now() < end {
            let quiet = (Instant::now() + SETTLE).min(end);
            if timeout_at(quiet, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    async fn reload(&mut self) {
        let (directory, before) = (self.directory.clone(), self.read.take());
        // Files and the compiler may take their time, and other tasks share this thread.
        let reading = tokio::task::spawn_blocking(move || {
            let read = texts(&directory)?;
            let compiled = (before.as_ref() != Some(&read)).then(|| compile(&read));
            Ok::<_, Error>((read, compiled))
        });
        match reading.await.expect("reading a directory does not panic") {
            Err(error) => self.refuse(vec![chain(&error)]),
            Ok((read, compiled)) => {
                self.read = Some(read);
                match compiled {
                    None => {}
                    Some(Ok(compiled)) => self.publish(compiled),
                    Some(Err(problems)) => self.refuse(problems),
                }
            }
        }
    }

    fn publish(&mut self, Compiled { policy, warnings }: Compiled) {
        for warning in &warnings {
            warn!(problem = %warning, "policy");
        }
        self.current.send_modify(|current| {
            *current = Arc::new(current.followed_by(policy, warnings, Vec::new()));
        });
    }

    /// Keeps the last good policy.
    fn refuse(&mut self, problems: Vec<String>) {
        if self.current.borrow().problems == problems {
            return;
        }
        for problem in &problems {
            error!(problem, "policy");
        }
        self.current.send_modify(|current| {
            let generation = current.policy.generation;
            warn!(generation, "the policy that was in force stays in force");
            *current = Arc::new(Current { problems, ..(**current).clone() });
        });
    }
}

/// Tells `changed` of changes in the directory; `None` where the system cannot, then the checks find
/// them.
fn watch(directory: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<notify::Event>| {
        // Our own reading must not make us read again.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    };
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    let told = watcher.inspect_err(|error| {
        warn!(%error, every = ?CHECK_EVERY, "changes of the policy directory are looked for instead");
    });
    told.ok()
}

fn compile(texts: &Texts) -> Result<Compiled, Vec<String>> {
    let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (&**name, &**text)).collect();
    let compiled = crds::directory::read(&files)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    match reach::untold(&compiled.policy) {
        problems if problems.is_empty() => Ok(compiled),
        problems => Err(problems.into_iter().map(|(_, problem)| problem).collect()),
    }
}

/// The YAML files of the directory, by name.
fn texts(directory: &Path) -> Result<Texts, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let files = files(directory).map_err(failed(directory))?;
    if files.len() > MAX_FILES {
        return Err(Error::ManyFiles { path: directory.to_owned() });
    }
    let text = |path: PathBuf| {
        let text = read(&path).map_err(failed(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, text))
    };
    files.into_iter().map(text).collect()
}

/// A file's text; of one that is too large as much as shows that it is.
fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn marks(directory: &Path) -> Marks {
    let marks = files(directory).unwrap_or_default().into_iter().filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Some((path, (metadata.modified().ok(), metadata.len())))
    });
    marks.collect()
}

/// Paths of what is read: `*.yaml` and `*.yml`, without hidden ones (editors' and Kubernetes' own).
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_yaml && !name.starts_with('.') && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
