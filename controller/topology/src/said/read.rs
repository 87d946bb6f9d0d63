//! Taking a tree apart into what was said, going on after each error.

use crate::{
    codes::Code,
    report::{Sink, Span, nearest, visible},
    said::tree::{Key, Tree, Value},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// What can be read from a tree; none if it cannot, which the sink was told.
pub(crate) trait Read: Sized {
    /// The words that can be said; none: it is no choice among words.
    const WORDS: &'static [&'static str] = &[];

    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self>;
}

/// A value with the place where it was said.
#[derive(Debug, Clone)]
pub(crate) struct Said<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T: Read> Read for Said<T> {
    const WORDS: &'static [&'static str] = T::WORDS;

    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        T::read(tree, sink).map(|value| Self { value, span: tree.span })
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::List(items) => Some(items.iter().filter_map(|item| T::read(item, sink)).collect()),
            Value::Text(text) => {
                sink.error(Code::WrongType, tree.span, "a list is needed here, not a text")
                    .help(format!("put it in brackets: [{}]", visible(text)));
                None
            }
            _ => wrong_type(tree, "a list", sink),
        }
    }
}

/// A value, or a list of them.
#[derive(Debug, Clone)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<Said<T>>);

impl<T: Read> Read for OneOrMany<T> {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match tree.value {
            Value::List(_) => Vec::read(tree, sink).map(Self),
            _ => Said::read(tree, sink).map(|one| Self(vec![one])),
        }
    }
}

/// A value in which nothing is wrong: of one in which something was, none is left, so that nothing follows from what was told.
#[derive(Debug, Clone)]
pub(crate) struct Sound<T>(pub(crate) T);

impl<T: Read> Read for Sound<T> {
    const WORDS: &'static [&'static str] = T::WORDS;

    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        let before = sink.count();
        let value = T::read(tree, sink)?;
        (sink.count() == before).then_some(Self(value))
    }
}

/// A mapping whose keys are names of the user's.
#[derive(Debug, Clone)]
pub(crate) struct Entries<T>(pub(crate) Vec<Entry<T>>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// One entry of it. A value that cannot be read keeps its name, so that what refers to it is not told to dangle.
#[derive(Debug, Clone)]
pub(crate) struct Entry<T> {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) value: Option<T>,
}

impl<T: Read> Read for Entries<T> {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        let Value::Map(entries) = &tree.value else {
            return wrong_type(tree, "a mapping", sink);
        };
        let read = |(key, value): &(Key, Tree)| Entry {
            name: key.text.clone(),
            span: key.span,
            value: T::read(value, sink),
        };
        Some(Self(entries.iter().map(read).collect()))
    }
}

/// Tells that `tree` is not `wanted`.
pub(crate) fn wrong_type<T>(tree: &Tree, wanted: &str, sink: &mut Sink) -> Option<T> {
    let told =
        sink.error(Code::WrongType, tree.span, format!("{wanted} is needed here, not {}", tree.value.kind()));
    if wanted.contains("mapping") {
        told.help("write `{ KEY: VALUE, ... }`; `{}` has the defaults");
    } else if wanted == "a list" {
        told.help("write `[A, B]`, or a line that starts with `- ` for each; `[]` has none");
    }
    None
}

/// Tells of each key that is not `known`: a word of the future, or of nobody.
pub(crate) fn refuse_others(
    entries: &[(Key, Tree)],
    what: &str,
    known: &[&str],
    later: &[&str],
    sink: &mut Sink,
) {
    for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
        if later.contains(&key.text.as_str()) {
            sink.error(Code::NotSupportedYet, key.span, format!("`{}` is not supported yet", key.text))
                .help("remove it: nothing is silently ignored");
            continue;
        }
        if key.text == MERGE {
            sink.error(Code::UnknownKey, key.span, "merge keys (`<<`) are not read: YAML 1.2 has none")
                .help("write the keys out, or use an alias (`*NAME`) for the whole value");
            continue;
        }
        let told = sink
            .error(Code::UnknownKey, key.span, format!("{what} has no key `{}`", visible(&key.text)))
            .help(format!("its keys are {}", known.join(", ")));
        match synonym(&key.text, known) {
            Some(meant) => told.help(format!("did you mean `{meant}`?")),
            None => told.did_you_mean(&key.text, known.iter().chain(later).copied()),
        };
    }
}

/// Other programs' words for keys of ours.
const SYNONYMS: [(&str, &str); 21] = [
    ("remote-cidr", "remote-ip-prefix"),
    ("remote-prefix", "remote-ip-prefix"),
    ("remote-group-id", "remote-group"),
    ("port-range", "port"),
    ("port-range-min", "port"),
    ("port-range-max", "port"),
    ("allowed-address-pairs", "allowed-addresses"),
    ("port-security", "anti-spoof"),
    ("bandwidth", "rate"),
    ("average", "rate"),
    ("packet-rate", "frame-rate"),
    ("pps", "frame-rate"),
    ("mac-limit", "macs"),
    ("sticky", "sticky-macs"),
    ("gateway", "via"),
    ("gw", "via"),
    ("next-hop", "via"),
    ("nexthop", "via"),
    ("destination", "to"),
    ("prefix", "to"),
    ("vrf", "router"),
];

/// The key that is elsewhere called `word`.
fn synonym(word: &str, known: &[&str]) -> Option<&'static str> {
    let found = SYNONYMS.iter().find(|(other, ours)| *other == word && known.contains(ours));
    found.map(|(_, ours)| *ours)
}

/// The key by which YAML 1.1 takes over another mapping's entries.
const MERGE: &str = "<<";

/// Tells that `key` is missing, and the words that it may say; a merge key, which was told, may have stood for it.
pub(crate) fn missing(
    tree: &Tree,
    entries: &[(Key, Tree)],
    what: &str,
    key: &str,
    words: &[&str],
    sink: &mut Sink,
) {
    if entries.iter().any(|(said, _)| said.text == MERGE) {
        return;
    }
    let choice = if words.is_empty() { String::new() } else { format!(" with one of {}", words.join(", ")) };
    sink.error(Code::MissingKey, tree.span, format!("{what} needs the key `{key}`"))
        .help(format!("add `{key}:`{choice}"));
}

/// The value of `key`, or of an unknown key that must have meant it: nothing shall follow from a slip that was told.
pub(crate) fn find<'t>(
    entries: &'t [(Key, Tree)],
    key: &str,
    known: &[&str],
    later: &[&str],
) -> Option<&'t Tree> {
    let exact = entries.iter().find(|(said, _)| said.text == key);
    let slip = |said: &str| {
        !known.contains(&said)
            && synonym(said, known)
                .or_else(|| nearest(said, known.iter().chain(later).copied()))
                .is_some_and(|meant| meant == key)
    };
    exact.or_else(|| entries.iter().find(|(said, _)| slip(&said.text))).map(|(_, value)| value)
}

/// A mapping with fixed keys: struct, reader, schema and the list of its keys are born together.
///
/// Every field is an `Option`; a `required` one that is none was told to be missing or wrong. Words `not yet` built
/// are refused as such.
macro_rules! said_map {
    ($(#[$doc:meta])* $name:ident is $what:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal $(, $required:ident)?;)*
    } not yet [$($later:literal),*]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$field_doc])* #[schemars(rename = $key)] $(#[schemars($required)])? pub(crate) $field: Option<$type>,)*
        }

        impl $crate::said::read::Read for $name {
            fn read(tree: &$crate::said::tree::Tree, sink: &mut $crate::report::Sink) -> Option<Self> {
                let $crate::said::tree::Value::Map(entries) = &tree.value else {
                    return $crate::said::read::wrong_type(tree, concat!($what, " (a mapping)"), sink);
                };
                $crate::said::read::refuse_others(entries, $what, &[$($key),*], &[$($later),*], sink);
                let find = |key| $crate::said::read::find(entries, key, &[$($key),*], &[$($later),*]);
                Some(Self {
                    $($field: match find($key) {
                        Some(value) => $crate::said::read::Read::read(value, sink),
                        None => {
                            $(
                                let _required = stringify!($required);
                                let words = <$type as $crate::said::read::Read>::WORDS;
                                $crate::said::read::missing(tree, entries, $what, $key, words, sink);
                            )?
                            None
                        }
                    },)*
                })
            }
        }
    };
}
pub(crate) use said_map;

impl<T: JsonSchema> JsonSchema for Said<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for Sound<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}s", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value, "propertyNames": { "pattern": crate::check::names::PATTERN } })
    }
}
