//! The policy that the allocator of `weir run` reads: a directory of links to the person's own files,
//! and one more file where none of their quotas is for this machine.
//!
//! Links, because the files may hold keys, and a key is not written anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    /// What was said of the policy last.
    said: BTreeSet<String>,
}

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

/// What a quota's lists may hold (`crds::quota`).
const MAX_ENTRIES: usize = 32;

// === impl Mirror ===

impl Mirror {
    /// Of `source`, in `directory`, which is made anew.
    pub(crate) fn new(
        source: &Path,
        directory: &Path,
        namespace: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Mirror, Error> {
        let source = source.canonicalize().map_err(|error| failed(source, "read")(error))?;
        if let Err(error) = fs::remove_dir_all(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(directory, "emptied")(error));
        }
        fs::create_dir_all(directory).map_err(failed(directory, "made"))?;
        let (directory, namespace) = (directory.to_owned(), namespace.to_owned());
        Ok(Mirror { source, directory, namespace, labels, said: BTreeSet::new() })
    }

    /// Where the allocator finds the policy.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the files, and makes the mirror follow them. An error leaves it as it is.
    pub(crate) fn refresh(&mut self) -> Result<Policy, Error> {
        let files = files(&self.source)?;
        let mut texts = Vec::new();
        for (name, path) in &files {
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
        self.follow(&files, implicit)?;
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

    fn follow(
        &self,
        files: &BTreeMap<String, PathBuf>,
        implicit: Option<String>,
    ) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory).map_err(failed(&self.directory, "read"))?;
        let there: BTreeSet<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
        for gone in there.iter().filter(|name| *name != IMPLICIT && !files.contains_key(*name)) {
            let path = self.directory.join(gone);
            fs::remove_file(&path).map_err(failed(&path, "removed"))?;
        }
        for (name, target) in files.iter().filter(|(name, _)| !there.contains(*name)) {
            let path = self.directory.join(name);
            std::os::unix::fs::symlink(target, &path).map_err(failed(&path, "linked"))?;
        }
        let path = self.directory.join(IMPLICIT);
        match implicit {
            Some(text) if fs::read_to_string(&path).is_ok_and(|before| before == text) => Ok(()),
            Some(text) => fs::write(&path, text).map_err(failed(&path, "written")),
            None if there.contains(IMPLICIT) => {
                fs::remove_file(&path).map_err(failed(&path, "removed"))
            }
            None => Ok(()),
        }
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
fn files(directory: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed(directory, "read"))? {
        let path = entry.map_err(failed(directory, "read"))?.path();
        let is_yaml =
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let (true, Some(name)) = (is_yaml && path.is_file(), name) {
            files.insert(name, path);
        }
    }
    if files.is_empty() { Err(Error::Empty { path: directory.to_owned() }) } else { Ok(files) }
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
    }
}
