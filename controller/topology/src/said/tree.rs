//! YAML text to a tree in which every value knows its place; how much text may unfold into is bounded.
//!
//! Serde's derived structs stop at the first thing that is wrong. A person wants to hear of all of them at once, so the
//! text is read into a tree first, and [`super::read`] takes the tree apart and goes on after an error.

use crate::{
    codes::Code,
    report::{Sink, Span, visible},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Error, Location, Spanned,
    budget::BudgetBreach,
    options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy},
};
use std::{collections::HashMap, fmt};
use vswitch_core::description::Origin;

/// The longest text that is looked at, in bytes.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What YAML can say. Numbers stay as they were written: `010` is not 8, and `1e3` no integer.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Value {
    /// What it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads `text`; none if it is not YAML at all, which `sink` was told.
pub(crate) fn parse(text: &str, sink: &mut Sink) -> Option<Tree> {
    let source = Source { text };
    let start = source.at(0);
    if text.len() > MAX_BYTES {
        sink.error(Code::TooMuch, start, "the file is larger than 16 MiB");
        return None;
    }
    if text.starts_with('\u{feff}') {
        sink.error(Code::ByteOrderMark, start, "the file starts with a byte-order mark")
            .help("save it as UTF-8 without BOM");
        return None;
    }
    // YAML 1.2.2 §5.4 counts it as a line's end; editors and terminals do not, so places would be told wrongly.
    let lone =
        text.bytes().zip(text.bytes().skip(1).chain([0])).position(|pair| pair.0 == b'\r' && pair.1 != b'\n');
    if let Some(lone) = lone {
        sink.error(Code::Syntax, source.at(lone), "a carriage return without a line feed")
            .help("save the file with LF or CR LF at the end of lines");
        return None;
    }
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(raw) => Some(source.tree(raw, sink)),
        Err(error) => {
            source.tell(&error, sink);
            None
        }
    }
}

/// The bounds (row M3 of the hostile-input ledger); duplicate keys come through, so that both places can be told.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 131_072, max_events: 400_000, max_aliases: 1_000, max_anchors: 1_000, max_depth: 64 },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// The text, to find places in.
struct Source<'t> {
    text: &'t str,
}

impl Source<'_> {
    /// The character at byte `start`, or the nearest before it.
    fn at(&self, start: usize) -> Span {
        let start = self.text.floor_char_boundary(start.min(self.text.len()));
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let end = self.end_of(start);
        Span { start, end, origin: origin(line, before[line_start..].chars().count() + 1) }
    }

    /// The end of the character at byte `start`; `start` itself at the end of a line.
    fn end_of(&self, start: usize) -> usize {
        start + self.text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8)
    }

    /// The place that the parser means.
    fn span(&self, location: Location) -> Span {
        let origin = origin(location.line() as usize, location.column() as usize);
        let span = location.span();
        let bytes =
            span.byte_offset().zip(span.byte_len()).map(|(at, len)| (at as usize, (at + len) as usize));
        match bytes {
            Some((start, end)) if self.text.get(start..end).is_some() && start < end => {
                Span { start, end, origin }
            }
            Some((start, _)) if self.text.is_char_boundary(start) => {
                Span { start, end: self.end_of(start), origin }
            }
            _ => self.at(self.text.chars().take(span.offset() as usize).map(char::len_utf8).sum()),
        }
    }

    /// The parser's error, told as ours.
    fn tell(&self, error: &Error, sink: &mut Sink) {
        let span = error.location().map_or(self.at(0), |location| self.span(location));
        let mut error = error.without_snippet();
        while let Error::AliasError { error: inner, .. } = error {
            error = inner;
        }
        match error {
            Error::Budget { breach, .. } => {
                let what = match breach {
                    BudgetBreach::Depth { .. } => "more than 64 levels of nesting",
                    BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => {
                        "more than 1,000 anchors or aliases"
                    }
                    _ => "more than 131,072 values, aliases unfolded",
                };
                sink.error(Code::TooMuch, span, format!("the file is too large or too deep: {what}"))
            }
            Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => {
                sink.error(Code::TooMuch, span, "the file's aliases unfold into too much")
            }
            Error::MultipleDocuments { .. } => sink
                .error(Code::Syntax, span, "a second document starts here")
                .help("one file describes one lab; remove `---`"),
            other => {
                let what = other.to_string();
                let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
                let told =
                    sink.error(Code::Syntax, span, format!("this is not valid YAML: {}", visible(what)));
                match syntax_mend(what) {
                    Some(mend) => told.help(mend),
                    None => told,
                }
            }
        };
    }

    fn tree(&self, raw: Spanned<Raw>, sink: &mut Sink) -> Tree {
        let span = self.span(raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Text(text) => Value::Text(text),
            Raw::Number => {
                let defined = self.span(raw.defined);
                Value::Number(self.text[defined.start..defined.end].to_owned())
            }
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.tree(item, sink)).collect()),
            Raw::Map(entries) => Value::Map(self.entries(entries, sink)),
        };
        Tree { span, value }
    }

    fn entries(&self, entries: Vec<(Spanned<Raw>, Spanned<Raw>)>, sink: &mut Sink) -> Vec<(Key, Tree)> {
        let mut seen = HashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.tree(key, sink);
            let value = self.tree(value, sink);
            let text = match key.value {
                Value::Text(text) | Value::Number(text) => text,
                Value::Null | Value::Bool(_) => self.text[key.span.start..key.span.end].to_owned(),
                Value::List(_) | Value::Map(_) => {
                    sink.error(
                        Code::WrongType,
                        key.span,
                        format!("a key is a text, not {}", key.value.kind()),
                    );
                    continue;
                }
            };
            if let Some(first) = seen.insert(text.clone(), key.span) {
                seen.insert(text.clone(), first);
                sink.error(Code::DuplicateKey, key.span, format!("`{}` is given twice", visible(&text)))
                    .label(first, "first given here");
                continue;
            }
            kept.push((Key { text, span: key.span }, value));
        }
        kept
    }
}

/// What to do about what the YAML parser says, where its words tell the cause.
fn syntax_mend(what: &str) -> Option<&'static str> {
    let mends = [
        ("tab", "indent with blanks: YAML takes no tabs there"),
        ("unclosed bracket", "close the bracket"),
        (
            "unknown anchor",
            "define it before with `&NAME`, or put the text in quotes if the `*` belongs to it",
        ),
        ("unexpected character", "remove the character, or put the text that it stands in in quotes"),
        ("quoted scalar", "close the quote"),
        (
            "indentation",
            "entries of one mapping start in one column; the line before this one may be the wrong one",
        ),
        (
            "expected",
            "look at this line and at the one before: entries of one mapping start in one column, and a text with `: ` in it needs quotes",
        ),
    ];
    mends.iter().find(|(words, _)| what.contains(words)).map(|(_, mend)| *mend)
}

fn origin(line: usize, column: usize) -> Origin {
    let clamp = |n: usize| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
    Origin { line: clamp(line), column: clamp(column) }
}

/// A value as the parser hands it over.
enum Raw {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
