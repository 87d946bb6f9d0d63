//! Names: their form, and the one set of names that nodes and switches share.

use crate::{
    codes::Code,
    report::{Sink, Span, visible},
    said::lab::Lab,
};
use std::collections::BTreeMap;

/// The form of a name, as a regular expression.
pub(crate) const PATTERN: &str = "^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$";

/// What a name stands for: a place among the nodes or the switches of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    Node(usize),
    Switch(usize),
}

/// The names of all nodes and switches.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, (Thing, Span)>);

impl Names {
    /// The names of `lab`.
    pub(crate) fn of(lab: &Lab, sink: &mut Sink) -> Self {
        let mut names = Self::default();
        for (place, switch) in lab.switches.iter().flat_map(|list| &list.0).enumerate() {
            names.add(&switch.name, Thing::Switch(place), switch.span, sink);
        }
        for (place, node) in lab.nodes.iter().flat_map(|list| &list.0).enumerate() {
            if node.name == "localhost" {
                sink.error(Code::BadName, node.span, "`localhost` is every host's name for itself")
                    .help("call the node otherwise");
            }
            names.add(&node.name, Thing::Node(place), node.span, sink);
        }
        names
    }

    fn add(&mut self, name: &str, thing: Thing, span: Span, sink: &mut Sink) {
        check(name, span, sink);
        if let Some((_, first)) = self.0.get(name) {
            sink.error(Code::NameTaken, span, format!("`{}` is both a node and a switch", visible(name)))
                .label(*first, "the switch");
            return;
        }
        self.0.insert(name.to_owned(), (thing, span));
    }

    /// What is called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Thing> {
        self.0.get(name).map(|(thing, _)| *thing)
    }

    /// All of them, in alphabetical order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Tells if `name` does not have the form of a name.
pub(crate) fn check(name: &str, span: Span, sink: &mut Sink) {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !first || !rest || name.ends_with('-') || name.len() > 31 {
        sink.error(Code::BadName, span, format!("`{}` is not a name", visible(name))).help(
            "a name is a letter a to z, then at most 30 of a to z, 0 to 9 and -, and does not end in -",
        );
    }
}
