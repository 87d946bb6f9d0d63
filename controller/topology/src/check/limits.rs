//! How much each interface may send and get: which limits mean something where, and what they are.

use crate::{
    check::{
        guards::{Guard, Scope},
        interfaces::NodeInterface,
        links::Checked,
    },
    codes::Code,
    report::{Sink, Span},
    said::{
        lab::{Limits, Rates, Storm},
        read::Said,
    },
};
use vswitch_core::description;

/// What may go at once after a pause if the file does not say (`burst`), in microseconds: enough that TCP gets the whole rate.
const BURST_MICROS: u32 = 100_000;

/// Checks the limits of all interfaces, each with what guards it.
pub(crate) fn check(
    interfaces: &[NodeInterface],
    guards: &[Option<Guard>],
    scope: &Scope<'_>,
    sink: &mut Sink,
) {
    for (interface, guard) in interfaces.iter().zip(guards) {
        let Some(Said { value: limits, .. }) = &interface.said.limits else { continue };
        if let Some(Checked::Wire { span, .. }) = interface.link.map(|link| &scope.links[link]) {
            for (key, place) in of_switches(limits) {
                sink.error(Code::LimitsOnWire, place, format!("`{key}` at a wire, which does not have it"))
                    .label(*span, "a link of two nodes is a wire");
            }
        } else if guard.is_none() && scope.all_read {
            for place in new_connections(limits) {
                sink.error(
                    Code::NeedsKey,
                    place,
                    "`new-connections` needs `security-groups`: without, nothing knows of connections here",
                )
                .help("add `security-groups: [NAME]`, or limit `frame-rate`");
            }
        }
        if let (Some(sticky), None) = (&limits.sticky_macs, &limits.macs)
            && sticky.value
            && scope.all_read
        {
            sink.error(Code::NeedsKey, sticky.span, "`sticky-macs` needs `macs`: how many may stay")
                .help("add `macs: 1`, or as many as there are behind the interface");
        }
        for rates in ways(limits) {
            if let (Some(burst), None, None) = (&rates.burst, &rates.rate, &rates.frame_rate)
                && scope.all_read
            {
                let what = "`burst` needs `rate` or `frame-rate`: it is a burst of these";
                sink.error(Code::NeedsKey, burst.span, what);
            }
        }
    }
}

fn ways(limits: &Limits) -> impl Iterator<Item = &Rates> {
    limits.egress.iter().chain(&limits.ingress)
}

fn new_connections(limits: &Limits) -> impl Iterator<Item = Span> {
    ways(limits).filter_map(|rates| rates.new_connections.as_ref()).map(|said| said.span)
}

/// The limits that only an interface of a switch has.
fn of_switches(limits: &Limits) -> impl Iterator<Item = (&'static str, Span)> {
    let Storm { broadcast, multicast, unknown_unicast } = limits.storm_control.clone().unwrap_or_default();
    let storm = [("broadcast", broadcast), ("multicast", multicast), ("unknown-unicast", unknown_unicast)];
    let storm = storm.into_iter().filter_map(|(key, said)| Some((key, said?.span)));
    let macs = limits.macs.iter().map(|said| ("macs", said.span));
    let sticky = limits.sticky_macs.iter().filter(|said| said.value).map(|said| ("sticky-macs", said.span));
    let connections = new_connections(limits).map(|span| ("new-connections", span));
    storm.chain(macs).chain(sticky).chain(connections)
}

/// What the switch is told; none: there is no limit.
pub(crate) fn compile(Said { value: said, span }: &Said<Limits>) -> Option<description::Limits> {
    let storm = said.storm_control.clone().unwrap_or_default();
    let compiled = description::Limits {
        egress: rates(said.egress.as_ref()),
        ingress: rates(said.ingress.as_ref()),
        storm: description::Storm {
            broadcast: storm.broadcast.map(|said| said.value.0),
            multicast: storm.multicast.map(|said| said.value.0),
            unknown_unicast: storm.unknown_unicast.map(|said| said.value.0),
        },
        drops_other_macs: said.macs.is_some(),
        sticky_macs: said.sticky_macs.as_ref().is_some_and(|said| said.value),
        origin: span.origin,
    };
    let nothing = description::Limits {
        egress: description::Rates::default(),
        ingress: description::Rates::default(),
        storm: description::Storm::default(),
        drops_other_macs: false,
        sticky_macs: false,
        origin: span.origin,
    };
    (compiled != nothing).then_some(compiled)
}

fn rates(said: Option<&Rates>) -> description::Rates {
    let said = said.cloned().unwrap_or_default();
    let bits = said.rate.map(|said| said.value.0);
    let frames = said.frame_rate.map(|said| said.value.0);
    let burst = said.burst.map_or(BURST_MICROS, |said| said.value.0);
    description::Rates {
        bits,
        frames,
        connections: said.new_connections.map(|said| said.value.0),
        burst_micros: if bits.is_some() || frames.is_some() { burst } else { 0 },
    }
}
