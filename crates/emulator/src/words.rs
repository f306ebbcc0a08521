//! Text whose number of tokens is known: common English words, each one token in the tokenisers of
//! both providers when it follows a space.

/// Sixty-four of them, so that six bits of a random number choose one.
const WORDS: [&str; 64] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
];

/// A text of so many tokens, always the same for a seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// Decides which words.
    pub(crate) seed: u64,
    /// How many.
    pub(crate) count: u64,
}

// === impl Words ===

impl Words {
    /// The word at `index`, with the space before it where it is not the first.
    pub(crate) fn token(self, index: u64) -> String {
        let at = mix(self.seed.wrapping_add(index)) % 64;
        let word = WORDS[usize::try_from(at).expect("less than 64")];
        if index == 0 { word.to_owned() } else { format!(" {word}") }
    }

    /// All of it.
    pub(crate) fn text(self) -> String {
        (0..self.count).map(|index| self.token(index)).collect()
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_as_many_words_as_tokens() {
        for count in [0, 1, 2, 500] {
            let words = Words { seed: 7, count };
            let text = words.text();
            assert_eq!(text.split_whitespace().count() as u64, count);
            assert_eq!(text, Words { seed: 7, count }.text());
        }
    }
}
