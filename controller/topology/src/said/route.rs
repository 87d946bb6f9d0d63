//! What the routes of routers are written in: where they lead to, and by which way.

use crate::{
    report::Sink,
    said::{
        nat::Nat,
        read::{OneOrMany, Read, Said, Sound, said_map},
        rule::Network,
        scalar::{Form, forms, read_form},
        tree::Tree,
    },
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{borrow::Cow, net::IpAddr};

said_map! {
    /// A router; `{}` has no routes but those to the networks of its gateways.
    Router is "a router" {
        /// Its static routes. Of all that lead to an address the longest holds.
        routes: Vec<Said<Sound<Route>>> = "routes";
        /// Which packets get other addresses when it passes them on.
        nat: Vec<Said<Sound<Nat>>> = "nat";
        /// Whom its gateways ask for names that are not the lab's, one after the other.
        nameservers: Said<OneOrMany<NameServer>> = "nameservers";
    } not yet []
}

said_map! {
    /// A static route.
    Route is "a route" {
        /// What it leads to.
        to: Said<To> = "to", required;
        /// The next router in a gateway's network; of several each connection has one.
        via: Said<OneOrMany<Via>> = "via", required;
    } not yet ["metric"]
}

/// What a route leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To {
    /// Everywhere, in the family of the next router.
    Default,
    /// A network, or one address; as it is written, so bits behind the prefix may be set.
    Network(Network),
}

impl Form for To {
    const FORM: &'static str = "`default`, or a network or an address, like 10.0.0.0/8 or 2001:db8::/32 (no part of an IPv4 address starts with 0)";
    const PATTERN: &'static str = "^(default|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "default" => Some(Self::Default),
            _ => Network::parse(text).map(Self::Network),
        }
    }
}

/// One way that a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// The next router.
    Router(IpAddr),
    /// Nowhere.
    Blackhole,
}

impl Form for Via {
    const FORM: &'static str =
        "the address of a router, like 10.0.10.254 or 2001:db8::fe (no prefix length), or `blackhole`";
    const PATTERN: &'static str = "^(blackhole|[0-9a-fA-F.:]+)$";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "blackhole" => Some(Self::Blackhole),
            _ => text.parse().ok().map(Self::Router),
        }
    }
}

/// The address of a name server, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameServer(pub(crate) IpAddr);

impl Form for NameServer {
    const FORM: &'static str =
        "the address of a name server, like 192.0.2.1 or 2001:db8::1 (no prefix length)";
    const PATTERN: &'static str = "^[0-9a-fA-F.:]+$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

forms! {
    NameServer by read_form;
    To by read_form;
    Via by read_form;
}
