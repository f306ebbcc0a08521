//! One change in a body, of which all other bytes go upstream as they came.

use bytes::Bytes;

/// Remove some bytes and put others in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Where, in bytes from the beginning.
    pub at: usize,
    /// How many bytes go.
    pub remove: usize,
    /// What comes.
    pub insert: String,
}

impl Splice {
    /// The changed body, in order and without a copy of what stays.
    pub fn apply(self, body: &Bytes) -> [Bytes; 3] {
        let at = self.at.min(body.len());
        let end = at.saturating_add(self.remove).min(body.len());
        [body.slice(..at), Bytes::from(self.insert), body.slice(end..)]
    }

    /// The length of a changed body of `len` bytes.
    pub fn new_len(&self, len: usize) -> usize {
        let at = self.at.min(len);
        len - self.remove.min(len - at) + self.insert.len()
    }
}
