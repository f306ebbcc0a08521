//! The policy that the allocator of `weir run` reads: a directory of links to the person's own files,
//! and one more file where none of their quotas is for this machine.
//!
//! Links, because the files may hold keys, and a key is not written anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crds::directory::MAX_FILE_BYTES;
use crds::problem::Problem;
use quota::policy::Policy;
use serde_json::json;

use crate::output::tell;

/// The directory of links.
#[derive(Debug)]
pub(crate) struct Mirror {
    source: PathBuf,
    directory: PathBuf,
    namespace: String,
    labels: BTreeMap<String, String>,
    /// The files as they were when they were looked at last.
    seen: BTreeMap<String, Mark>,
    /// The files as they were when their links were made.
    linked: BTreeMap<String, Mark>,
    /// What was said of the policy last.
    said: BTreeSet<String>,
}

/// What tells one version of a file from another without reading it.
type Mark = (PathBuf, Option<SystemTime>, u64);

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} cannot be {what}")]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error("{path} holds no *.yaml or *.yml file")]
    Empty { path: PathBuf },
    #[error("the policy has {}:\n{}", problems(.0.len()), lines(.0))]
    Problems(Vec<Problem>),
}

/// Sorts after what people call their files, and says where it is from.
const IMPLICIT: &str = "zz-weir-run-implicit-quota.yaml";

/// A link before it has its name.
const NEXT: &str = "next-link";

/// What a quota's lists may hold (`crds::quota`).
const MAX_ENTRIES: usize = 32;

// === impl Mirror ===

impl Mirror {
    /// Of `source`, in `directory`, without what an earlier one has left there.
    pub(crate) fn new(
        source: &Path,
        directory: &Path,
        namespace: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Mirror, Error> {
        let source = source.canonicalize().map_err(failed(source, "read"))?;
        fs::create_dir_all(directory).map_err(failed(directory, "made"))?;
        let mirror = Mirror {
            source,
            directory: directory.to_owned(),
            namespace: namespace.to_owned(),
            labels,
            seen: BTreeMap::new(),
            linked: BTreeMap::new(),
            said: BTreeSet::new(),
        };
        for old in mirror.links()? {
            mirror.remove(&old)?;
        }
        mirror.imply(None)?;
        Ok(mirror)
    }

    /// Where the allocator finds the policy.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// True if a file has come, gone or changed since this was asked last.
    pub(crate) fn is_stale(&mut self) -> bool {
        let now = marks(&self.source).unwrap_or_default();
        let is_stale = now != self.seen;
        self.seen = now;
        is_stale
    }

    /// Reads the files, and makes the mirror follow them. An error leaves it as it is.
    pub(crate) fn refresh(&mut self) -> Result<Policy, Error> {
        let files = marks(&self.source)?;
        if files.is_empty() {
            return Err(Error::Empty { path: self.source.clone() });
        }
        let mut texts = Vec::new();
        for (name, (path, ..)) in &files {
            texts.push((name.as_str(), read(path)?));
        }
        let mut texts: Vec<(&str, &str)> =
            texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let mut compiled = crds::directory::read(&texts).map_err(Error::Problems)?;
        let policy = &compiled.policy;
        let implicit =
            policy.for_pod(&self.namespace, &self.labels).is_none().then(|| self.quota(policy));
        if let Some(implicit) = &implicit {
            texts.push((IMPLICIT, implicit));
            compiled = crds::directory::read(&texts).map_err(Error::Problems)?;
        }
        self.say(compiled.warnings.iter().map(ToString::to_string).collect(), implicit.is_some());
        self.follow(files)?;
        self.imply(implicit.as_deref())?;
        Ok(compiled.policy)
    }

    fn say(&mut self, mut notes: BTreeSet<String>, is_implicit: bool) {
        if is_implicit {
            notes.insert(format!(
                "No LLMQuota is for namespace {} and these labels: every provider and class may be used.",
                self.namespace
            ));
        }
        for note in notes.difference(&self.said) {
            tell(note);
        }
        self.said = notes;
    }

    /// Links the files as they are now. A link to a file that has changed is made anew, because that
    /// is what the allocator is told of at once.
    fn follow(&mut self, files: BTreeMap<String, Mark>) -> Result<(), Error> {
        for gone in self.links()?.difference(&files.keys().cloned().collect()) {
            self.remove(gone)?;
        }
        for (name, mark) in &files {
            if self.linked.get(name) != Some(mark) {
                let (link, next) = (self.directory.join(name), self.directory.join(NEXT));
                let made = std::os::unix::fs::symlink(&mark.0, &next);
                made.and_then(|()| fs::rename(&next, &link)).map_err(failed(&link, "linked"))?;
            }
        }
        self.linked = files;
        Ok(())
    }

    /// Writes the implicit quota, or removes it.
    fn imply(&self, quota: Option<&str>) -> Result<(), Error> {
        let path = self.directory.join(IMPLICIT);
        let before = fs::read_to_string(&path).ok();
        match quota {
            Some(text) if before.as_deref() != Some(text) => {
                fs::write(&path, text).map_err(failed(&path, "written"))
            }
            None if before.is_some() => self.remove(IMPLICIT),
            _ => Ok(()),
        }
    }

    /// The links that are there. Nothing else in the directory is touched.
    fn links(&self) -> Result<BTreeSet<String>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(failed(&self.directory, "read"))?;
        let links = entries.flatten().filter(|entry| entry.path().is_symlink());
        Ok(links.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.directory.join(name);
        fs::remove_file(&path).map_err(failed(&path, "removed"))
    }

    /// A quota for every pod, to every provider and class. JSON is YAML.
    fn quota(&self, policy: &Policy) -> String {
        let budgets = policy.providers.keys().map(|name| json!({"provider": **name}));
        let classes = policy.classes.keys().map(|name| name.to_string());
        json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "LLMQuota",
            "metadata": {"namespace": self.namespace, "name": "weir-run-implicit"},
            "spec": {
                "budgets": budgets.take(MAX_ENTRIES).collect::<Vec<_>>(),
                "permittedClasses": classes.take(MAX_ENTRIES).collect::<Vec<_>>(),
            },
        })
        .to_string()
    }
}

/// The YAML files of a directory, by name.
fn marks(directory: &Path) -> Result<BTreeMap<String, Mark>, Error> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory, "read"))? {
        let path = entry.map_err(failed(directory, "read"))?.path();
        let is_yaml =
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let Ok(data) = path.metadata() else { continue };
        if let (true, Some(name)) = (is_yaml && data.is_file(), name) {
            files.insert(name, (path, data.modified().ok(), data.len()));
        }
    }
    Ok(files)
}

/// A file's text; of one that is too large, only so much that this is noticed.
fn read(path: &Path) -> Result<String, Error> {
    use io::Read;
    let file = fs::File::open(path).map_err(failed(path, "read"))?;
    let mut text = String::new();
    let bound = MAX_FILE_BYTES as u64 + 1;
    file.take(bound).read_to_string(&mut text).map_err(failed(path, "read"))?;
    Ok(text)
}

fn failed(path: &Path, what: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), what, source }
}

fn problems(count: usize) -> String {
    if count == 1 { "a problem".to_owned() } else { format!("{count} problems") }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "\
apiVersion: weir.dev/v1alpha1
kind: LLMProvider
metadata: {name: openai}
spec:
  protocol: OpenAI
  endpoint: https://api.openai.com
  limits: [{name: all, models: ['*'], requestsPerMinute: 60}]
";

    fn names(directory: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn without_a_quota_everything_may_be_used_and_with_one_only_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let (source, links) = (directory.path().join("source"), directory.path().join("links"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("provider.yaml"), PROVIDER).unwrap();
        fs::write(source.join("notes.txt"), "not policy").unwrap();
        let mut mirror = Mirror::new(&source, &links, "default", BTreeMap::new()).unwrap();
        mirror.refresh().unwrap();
        assert_eq!(names(&links), ["provider.yaml", IMPLICIT].map(str::to_owned).into());
        let implicit = fs::read_to_string(links.join(IMPLICIT)).unwrap();
        let both = [("provider.yaml", PROVIDER), (IMPLICIT, &implicit)];
        let policy = crds::directory::read(&both).unwrap().policy;
        assert!(policy.for_pod("default", &BTreeMap::new()).unwrap().provider("openai").is_some());

        let quota = implicit.replace("weir-run-implicit", "mine");
        fs::write(source.join("quota.yml"), quota).unwrap();
        mirror.refresh().unwrap();
        assert_eq!(names(&links), ["provider.yaml", "quota.yml"].map(str::to_owned).into());

        fs::remove_file(source.join("quota.yml")).unwrap();
        fs::write(source.join("broken.yaml"), PROVIDER.replace("OpenAI", "Nobody")).unwrap();
        let error = mirror.refresh().unwrap_err().to_string();
        assert!(error.contains("broken.yaml:5: LLMProvider openai: spec.protocol"), "{error}");
        assert!(names(&links).contains("quota.yml"), "an error leaves everything as it is");

        let other = links.join("other.txt");
        fs::write(&other, "somebody else's").unwrap();
        assert!(mirror.is_stale() && !mirror.is_stale());
        Mirror::new(&source, &links, "default", BTreeMap::new()).unwrap();
        assert_eq!(names(&links), ["other.txt".to_owned()].into());
    }
}
