//! Texts that have been trouble somewhere.

use proptest::{collection::vec, prelude::*, sample::select};

/// Whole texts: the ends of strings, comments and statements, what other languages expand, numbers at their ends, and what looks like nothing.
pub const ODD: [&str; 62] = [
    "",
    " ",
    "\0",
    "a\0b",
    "'",
    "''",
    "\"",
    "\"\"",
    "\"a\"\"b\"",
    "\\",
    "\\'",
    "E'\\''",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "$a$",
    "%",
    "%s%I%L",
    "\n",
    "\r\n",
    "\u{1b}[2J",
    "\u{202e}abc",
    "\u{feff}",
    "\u{2028}",
    "é",
    "ﬀ",
    "İ",
    "漢字",
    "👩‍👩‍👧",
    "a\u{301}",
    "x'); DROP TABLE canary; --",
    "\"; DROP TABLE canary; --",
    "{chunk}",
    "{start_id}",
    "{end_id}",
    "{start_id}{end_id}",
    "{chunk",
    "${HOME}",
    "../../etc/passwd",
    "a.b",
    "a.b.c",
    ".",
    "..",
    "\"a\".\"b\"",
    "stage.id",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-1",
    "0",
    "1e400",
    "9223372036854775808",
    "5%",
    "101%",
    "-0%",
    "(0,1)",
    "(4294967296,1)",
    "1 day",
    "90s",
];

/// What texts are put together from.
const PIECES: [&str; 24] = [
    "a",
    "B",
    "1",
    "_",
    " ",
    ".",
    "\"",
    "'",
    "\\",
    ";",
    "--",
    "/*",
    "*/",
    "$$",
    "%",
    "\n",
    "{chunk}",
    "{start_id}",
    "{end_id}",
    "(",
    ")",
    ",",
    "漢",
    "é",
];

/// Any text, with a liking for odd ones; seldom a long one.
pub fn any_text() -> BoxedStrategy<String> {
    prop_oneof![
        10 => select(&ODD[..]).prop_map(str::to_owned),
        8 => vec(select(&PIECES[..]), 0..6).prop_map(|pieces| pieces.concat()),
        2 => "\\PC{0,6}",
        2 => vec(any::<char>(), 0..6).prop_map(String::from_iter),
        3 => (select(&['x', 'é', '漢', '"', '\'', '{'][..]), 50..80_usize).prop_map(|(c, n)| c.to_string().repeat(n)),
        1 => (select(&['x', '漢', '"', '\u{1}'][..]), prop_oneof![40 => 1_000..6_000_usize, 1 => 90_000..110_000_usize])
            .prop_map(|(c, n)| c.to_string().repeat(n)),
    ]
    .boxed()
}

/// A text that PostgreSQL can store.
pub fn storable() -> BoxedStrategy<String> {
    any_text().prop_map(|text| text.replace('\0', "")).boxed()
}

/// A name as a catalog can hold it: 1 to 63 bytes.
pub fn name() -> BoxedStrategy<String> {
    let cut = |text: String| {
        let end = (0..=text.len().min(63)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        if end == 0 { "x".to_owned() } else { text[..end].to_owned() }
    };
    storable().prop_map(cut).boxed()
}

/// How a text is damaged.
#[derive(Debug, Clone)]
pub enum Splice {
    /// A piece goes.
    Cut(usize, usize),
    /// A piece comes.
    Insert(usize, String),
    /// A piece is there twice.
    Repeat(usize, usize),
}

/// Damage to a text.
pub fn splice() -> impl Strategy<Value = Splice> {
    prop_oneof![
        (any::<usize>(), 0..40_usize).prop_map(|(at, length)| Splice::Cut(at, length)),
        (any::<usize>(), any_text()).prop_map(|(at, text)| Splice::Insert(at, text)),
        (any::<usize>(), 0..40_usize).prop_map(|(at, length)| Splice::Repeat(at, length)),
    ]
}

impl Splice {
    /// Does it.
    pub fn apply(&self, text: &mut String) {
        let boundary =
            |text: &str, at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let place = |text: &str, at: usize| boundary(text, at % (text.len() + 1));
        match self {
            Self::Cut(at, length) => {
                let start = place(text, *at);
                let end = boundary(text, start + length);
                text.replace_range(start..end.max(start), "");
            }
            Self::Insert(at, piece) => text.insert_str(place(text, *at), piece),
            Self::Repeat(at, length) => {
                let start = place(text, *at);
                let piece = text[start..boundary(text, start + length).max(start)].to_owned();
                text.insert_str(start, &piece);
            }
        }
    }
}
