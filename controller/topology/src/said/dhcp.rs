//! What is said of the addresses that a gateway gives.

use crate::{
    report::Sink,
    said::{
        read::{OneOrMany, Read, Said, Sound, said_map},
        scalar::{Age, Form, forms, read_form},
        tree::{Tree, Value},
    },
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{borrow::Cow, net::Ipv4Addr};

said_map! {
    /// What a DHCP server gives.
    Settings is "`dhcp`" {
        /// The addresses that it gives, like 10.0.10.50-10.0.10.99; all of the gateway's network if nothing is said. Those of `addresses` go to
        /// their own interfaces only.
        range: Said<Range> = "range";
        /// For how long, like 1h; 12 hours if nothing is said.
        lease: Said<Age> = "lease";
        /// Name servers; the gateway itself if nothing is said.
        dns: Said<OneOrMany<Server>> = "dns";
    } not yet ["domain", "search", "mtu", "routes"]
}

/// `true`, or what it gives.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Dhcp {
    Flag(bool),
    Settings(Sound<Settings>),
}

impl Read for Dhcp {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Map(_) => Sound::read(tree, sink).map(Self::Settings),
            _ => bool::read(tree, sink).map(Self::Flag),
        }
    }
}

/// Addresses, the first and the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range(pub(crate) Ipv4Addr, pub(crate) Ipv4Addr);

impl Form for Range {
    const FORM: &'static str = "two IPv4 addresses, like 10.0.10.50-10.0.10.99";
    const PATTERN: &'static str = "^[0-9.]+-[0-9.]+$";

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        Some(Self(first.trim().parse().ok()?, last.trim().parse().ok()?))
    }
}

/// A name server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server(pub(crate) Ipv4Addr);

impl Form for Server {
    const FORM: &'static str = "the IPv4 address of a name server, like 10.0.10.1 (no prefix length)";
    const PATTERN: &'static str = "^[0-9.]+$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

forms! {
    Range by read_form;
    Server by read_form;
}
