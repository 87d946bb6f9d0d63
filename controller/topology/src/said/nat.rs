//! What the rules of network address translation are written in.

use crate::{
    report::Sink,
    said::{
        read::{Read, Said, said_map},
        scalar::{Form, VlanName, forms, read_form},
        tree::Tree,
    },
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{borrow::Cow, net::IpAddr};

said_map! {
    /// A rule of network address translation: `masquerade`, `forward`, or `static` with `to`.
    Nat is "a rule of `nat`" {
        /// A VLAN with a gateway of this router: what goes out into it from others has the gateway's own address there as its source.
        masquerade: Said<VlanName> = "masquerade";
        /// `PORT:NODE:PORT/tcp` or `/udp`: what comes for the first port of the router's own address outside goes to that port of the node.
        forward: Said<Forward> = "forward";
        /// An address outside that is one node's, both ways, in the network of a gateway of this router.
        outside: Said<Outside> = "static";
        /// Whose it is.
        to: Said<Target> = "to";
    } not yet []
}

/// A forwarded port.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    pub(crate) outside: u16,
    pub(crate) to: Target,
    pub(crate) port: u16,
    /// TCP (6) or UDP (17).
    pub(crate) protocol: u8,
}

/// A node, or one of its interfaces.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) node: String,
    pub(crate) interface: Option<String>,
}

/// An address outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outside(pub(crate) IpAddr);

impl Form for Forward {
    const FORM: &'static str = "PORT:NODE:PORT/tcp or PORT:NODE:PORT/udp, like 8080:web1:80/tcp: ports are 1 to 65535, one by one, and the node is named, not its address";
    const PATTERN: &'static str = "^[0-9]{1,5}:[a-z]([a-z0-9-]{0,29}[a-z0-9])?(:[a-z]([a-z0-9-]{0,29}[a-z0-9])?)?:[0-9]{1,5}/(tcp|udp)$";

    fn parse(text: &str) -> Option<Self> {
        let (ends, protocol) = text.rsplit_once('/')?;
        let protocol = match protocol {
            "tcp" => 6,
            "udp" => 17,
            _ => return None,
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        let (outside, ends) = ends.split_once(':')?;
        let (to, inside) = ends.rsplit_once(':')?;
        Some(Self { outside: port(outside)?, to: Target::parse(to)?, port: port(inside)?, protocol })
    }
}

impl Form for Target {
    const FORM: &'static str = "a node, like web1, or one of its interfaces, like web1:eth0";
    const PATTERN: &'static str = "^[a-z]([a-z0-9-]{0,29}[a-z0-9])?(:[a-z]([a-z0-9-]{0,29}[a-z0-9])?)?$";

    fn parse(text: &str) -> Option<Self> {
        let (node, interface) = match text.split_once(':') {
            Some((node, interface)) => (node, Some(interface.to_owned())),
            None => (text, None),
        };
        // An address is none.
        (!node.is_empty() && !node.starts_with('[')).then(|| Self { node: node.to_owned(), interface })
    }
}

impl Form for Outside {
    const FORM: &'static str = "an address, like 192.0.2.10 (no prefix length)";
    const PATTERN: &'static str = "^[0-9a-fA-F.:]+$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

forms! {
    Forward by read_form;
    Target by read_form;
    Outside by read_form;
}
