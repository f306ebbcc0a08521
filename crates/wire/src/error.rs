//! What can be wrong with a message.

/// Why a message is not one of the contract's. Names the field as the .proto file does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field that is not optional is absent or empty.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A text is longer than its bound.
    #[error("{field} has {bytes} bytes, more than {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Its bound.
        max: usize,
    },
    /// A list has more entries than its bound.
    #[error("{field} has {entries} entries, more than {max}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its length.
        entries: usize,
        /// Its bound.
        max: usize,
    },
    /// The message as a whole is larger than either side takes.
    #[error("the message has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A list names one thing twice.
    #[error("{field} names one thing twice")]
    Twice {
        /// The field.
        field: &'static str,
    },
    /// A number that must not be zero is.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// An enum has a value that this version does not know.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What it has.
        value: i32,
    },
}
