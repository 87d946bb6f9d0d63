//! What is said of the addresses that a gateway gives.

use crate::{
    report::Sink,
    said::{
        nat::Target,
        read::{OneOrMany, Read, Said, Sound, said_map},
        rule::Network,
        scalar::{Age, Form, Whole, forms, read_form},
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
        /// The domain of the clients; LAB.internal if nothing is said.
        domain: Said<Domain> = "domain";
        /// The domains in which clients look names up.
        search: Said<OneOrMany<Domain>> = "search";
        /// How long the clients' packets may be, in bytes.
        mtu: Said<Whole<68, 65535>> = "mtu";
        /// Routes of the clients beside the default one, which leads to the gateway.
        routes: Said<Vec<Said<Sound<ClientRoute>>>> = "routes";
        /// What clients boot that boot from the network.
        boot: Said<Sound<Boot>> = "boot";
    } not yet []
}

said_map! {
    /// What clients boot that boot from the network.
    Boot is "`boot`" {
        /// The server that has the file: its IPv4 address, or a node whose `addresses` are stated; not needed if the file is a URL.
        server: Said<BootServer> = "server";
        /// The file's name on the server (TFTP), or a URL, of which firmware takes http and iPXE others, too.
        file: Said<BootFile> = "file", required;
    } not yet []
}

said_map! {
    /// A route of DHCP clients.
    ClientRoute is "a route of clients" {
        /// The network that it leads to, of IPv4.
        to: Said<Network> = "to", required;
        /// The next router, in the network of the clients.
        via: Said<NextHop> = "via", required;
    } not yet []
}

/// `true`, or what it gives.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Dhcp {
    Flag(bool),
    Settings(Box<Sound<Settings>>),
}

impl Read for Dhcp {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Map(_) => Sound::read(tree, sink).map(Box::new).map(Self::Settings),
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

/// The next router of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextHop(pub(crate) Ipv4Addr);

impl Form for NextHop {
    const FORM: &'static str = "the IPv4 address of a router, like 10.0.10.254 (no prefix length)";
    const PATTERN: &'static str = "^[0-9.]+$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// Who has what clients boot.
#[derive(Debug, Clone)]
pub(crate) enum BootServer {
    Address(Ipv4Addr),
    Node(Target),
}

impl Form for BootServer {
    const FORM: &'static str =
        "the IPv4 address of a server, like 10.0.20.10, or a node, like web1 or web1:eth0";
    const PATTERN: &'static str =
        "^([0-9.]+|[a-z]([a-z0-9-]{0,29}[a-z0-9])?(:[a-z]([a-z0-9-]{0,29}[a-z0-9])?)?)$";

    fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Target::parse(text).map(Self::Node);
        }
        text.parse().ok().map(Self::Address)
    }
}

/// What clients boot.
#[derive(Debug, Clone)]
pub(crate) struct BootFile(pub(crate) String);

impl Form for BootFile {
    const FORM: &'static str = "the name of a file or a URL, like pxelinux.0 or http://10.0.20.10/boot.efi (ASCII without blanks, 127 bytes at most)";
    const PATTERN: &'static str = "^[!-~]{1,127}$";

    fn parse(text: &str) -> Option<Self> {
        let is_sound = (1..=127).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_sound.then(|| Self(text.to_owned()))
    }
}

/// A domain.
#[derive(Debug, Clone)]
pub(crate) struct Domain(pub(crate) String);

impl Form for Domain {
    const FORM: &'static str =
        "a domain, like lab.example (labels of at most 63 of a to z, 0 to 9 and -, with dots between)";
    const PATTERN: &'static str =
        "^[0-9a-zA-Z]([0-9a-zA-Z-]{0,61}[0-9a-zA-Z])?([.][0-9a-zA-Z]([0-9a-zA-Z-]{0,61}[0-9a-zA-Z])?)*$";

    fn parse(text: &str) -> Option<Self> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(is_inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        text.split('.').all(is_label).then(|| Self(text.to_ascii_lowercase()))
    }
}

forms! {
    BootFile by read_form;
    BootServer by read_form;
    Domain by read_form;
    NextHop by read_form;
    Range by read_form;
    Server by read_form;
}
