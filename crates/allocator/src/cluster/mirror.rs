//! A copy of all objects of one kind, kept by the events of a watch.
//!
//! A watch that starts anew lists everything first; what is not listed then has gone meanwhile. Until
//! the first list is complete the copy is not, and says so.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// Namespace (empty for cluster-scoped kinds) and name.
pub(crate) type ObjectName = (String, String);

/// The copy.
#[derive(Debug)]
pub(crate) struct Mirror<K> {
    objects: BTreeMap<ObjectName, K>,
    /// The list that is being read; `None` between lists.
    incoming: Option<BTreeMap<ObjectName, K>>,
    is_complete: bool,
}

/// What an event has changed.
#[derive(Debug)]
pub(crate) enum Changed<K> {
    /// Nothing yet: a list is being read.
    Nothing,
    /// One object: what it was and whether it is there now.
    One(ObjectName, Option<K>),
    /// Possibly all: these were there before.
    All(BTreeMap<ObjectName, K>),
}

// === impl Mirror ===

impl<K: Resource + Clone> Mirror<K> {
    /// True once everything that there was at the start has been seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(crate) fn get(&self, name: &ObjectName) -> Option<&K> {
        self.objects.get(name)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &K> {
        self.objects.values()
    }

    /// Takes an event.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Changed<K> {
        match event {
            Event::Init => {
                self.incoming = Some(BTreeMap::new());
                Changed::Nothing
            }
            Event::InitApply(object) => {
                self.incoming.get_or_insert_default().insert(name_of(&object), object);
                Changed::Nothing
            }
            Event::InitDone => {
                self.is_complete = true;
                let listed = self.incoming.take().unwrap_or_default();
                Changed::All(std::mem::replace(&mut self.objects, listed))
            }
            Event::Apply(object) => {
                let name = name_of(&object);
                let before = self.objects.insert(name.clone(), object);
                Changed::One(name, before)
            }
            Event::Delete(object) => {
                let name = name_of(&object);
                let before = self.objects.remove(&name);
                Changed::One(name, before)
            }
        }
    }
}

impl<K> Default for Mirror<K> {
    fn default() -> Mirror<K> {
        Mirror { objects: BTreeMap::new(), incoming: None, is_complete: false }
    }
}

fn name_of<K: Resource>(object: &K) -> ObjectName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str) -> ConfigMap {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn names(mirror: &Mirror<ConfigMap>) -> Vec<String> {
        mirror.objects().map(ResourceExt::name_any).collect()
    }

    #[test]
    fn a_list_replaces_everything_at_its_end_and_not_before() {
        let mut mirror = Mirror::default();
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(object("a")));
        assert!(!mirror.is_complete() && names(&mirror).is_empty());
        mirror.apply(Event::InitDone);
        assert!(mirror.is_complete());
        mirror.apply(Event::Apply(object("b")));
        assert_eq!(names(&mirror), ["a", "b"]);
        // The watch breaks and lists again: meanwhile a has gone and c has come.
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(object("b")));
        mirror.apply(Event::InitApply(object("c")));
        assert_eq!(names(&mirror), ["a", "b"]);
        let Changed::All(before) = mirror.apply(Event::InitDone) else { panic!("a list") };
        assert_eq!(before.len(), 2);
        assert_eq!(names(&mirror), ["b", "c"]);
        mirror.apply(Event::Delete(object("b")));
        assert_eq!(names(&mirror), ["c"]);
    }
}
