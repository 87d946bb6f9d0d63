//! Capture filters: what they want of frames that etherparse built, and what is said about those that make no sense.

use etherparse::{PacketBuilder, VlanId};
use proptest::prelude::*;
use vswitch_core::{filter::Filter, head::HEAD_BYTES};

fn wants(filter: &str, frame: &[u8]) -> bool {
    let filter: Filter = filter.parse().unwrap_or_else(|why| panic!("{filter}: {why}"));
    filter.matches(&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32)
}

/// What a frame is made of.
#[derive(Debug, Clone)]
struct Made {
    src: u8,
    dst: u8,
    vlan: Option<u16>,
    v6: bool,
    transport: Carried,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Tcp(u16, u16),
    Udp(u16, u16),
    Echo,
}

fn made() -> impl Strategy<Value = Made> {
    let port = 1..4_u16;
    let transport = prop_oneof![
        (port.clone(), port.clone()).prop_map(|(src, dst)| Carried::Tcp(src, dst)),
        (port.clone(), port).prop_map(|(src, dst)| Carried::Udp(src, dst)),
        Just(Carried::Echo),
    ];
    (1..4_u8, 1..4_u8, prop::option::of(1..4_u16), any::<bool>(), transport)
        .prop_map(|(src, dst, vlan, v6, transport)| Made { src, dst, vlan, v6, transport })
}

impl Made {
    fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, self.src], [2, 0, 0, 0, 0, self.dst]);
        let (v4, v6) =
            (|host| [10, 0, 0, host], |host| (0x2001_0db8_u128 << 96 | u128::from(host)).to_be_bytes());
        let ip = match (self.vlan, self.v6) {
            (None, false) => link.ipv4(v4(self.src), v4(self.dst), 64),
            (None, true) => link.ipv6(v6(self.src), v6(self.dst), 64),
            (Some(id), v6_wanted) => {
                let tagged = link.single_vlan(VlanId::try_new(id).unwrap());
                if v6_wanted {
                    tagged.ipv6(v6(self.src), v6(self.dst), 64)
                } else {
                    tagged.ipv4(v4(self.src), v4(self.dst), 64)
                }
            }
        };
        let mut frame = Vec::new();
        match (self.transport, self.v6) {
            (Carried::Tcp(src, dst), _) => ip.tcp(src, dst, 1, 1024).write(&mut frame, b"data"),
            (Carried::Udp(src, dst), _) => ip.udp(src, dst).write(&mut frame, b"data"),
            (Carried::Echo, false) => ip.icmpv4_echo_request(1, 1).write(&mut frame, b"data"),
            (Carried::Echo, true) => ip.icmpv6_echo_request(1, 1).write(&mut frame, b"data"),
        }
        .unwrap();
        frame
    }

    /// The truth about each primitive, by how the frame was made.
    fn truth(&self) -> Vec<(String, bool)> {
        let mut truth: Vec<(String, bool)> = [
            ("arp", false),
            ("ip", !self.v6),
            ("ip6", self.v6),
            ("icmp", !self.v6 && self.transport == Carried::Echo),
            ("icmp6", self.v6 && self.transport == Carried::Echo),
            ("tcp", matches!(self.transport, Carried::Tcp(..))),
            ("udp", matches!(self.transport, Carried::Udp(..))),
            ("vlan", self.vlan.is_some()),
        ]
        .map(|(word, holds)| (word.into(), holds))
        .into();
        for number in 1..4_u8 {
            let host = [self.src, self.dst].contains(&number);
            let ports = match self.transport {
                Carried::Tcp(src, dst) | Carried::Udp(src, dst) => [src, dst].contains(&number.into()),
                Carried::Echo => false,
            };
            let tcp = ports && matches!(self.transport, Carried::Tcp(..));
            truth.extend([
                (format!("host 10.0.0.{number}"), host && !self.v6),
                (format!("host 2001:db8::{number}"), host && self.v6),
                (format!("ether host 02:00:00:00:00:0{number}"), host),
                (format!("vlan {number}"), self.vlan == Some(number.into())),
                (format!("port {number}"), ports),
                (format!("tcp port {number}"), tcp),
                (format!("ip6 host 2001:db8::{number}"), host && self.v6),
            ]);
        }
        truth
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_word_is_true_of_a_frame_as_it_was_made(made in made()) {
        let frame = made.frame();
        for (filter, holds) in made.truth() {
            prop_assert_eq!(wants(&filter, &frame), holds, "{}", filter);
            prop_assert_eq!(wants(&format!("not {filter}"), &frame), !holds, "not {}", filter);
        }
    }

    #[test]
    fn words_are_joined_from_left_to_right(made in made(), picks in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..6)) {
        let (frame, truth) = (made.frame(), made.truth());
        let (mut flat, mut nested, mut holds) = (String::new(), String::new(), false);
        for (place, (pick, and)) in picks.iter().enumerate() {
            let (word, is) = &truth[pick.index(truth.len())];
            let join = if *and { "and" } else { "or" };
            (flat, nested, holds) = match place {
                0 => (word.clone(), word.clone(), *is),
                _ => (
                    format!("{flat} {join} {word}"),
                    format!("{word} {join}({nested})"),
                    if *and { holds && *is } else { holds || *is },
                ),
            };
        }
        prop_assert_eq!(wants(&flat, &frame), holds, "{}", flat);
        prop_assert_eq!(wants(&nested, &frame), holds, "{}", nested);
    }

    #[test]
    fn no_text_is_more_than_a_filter_or_an_error(text in "[a-z0-9()!& .:|]{0,80}") {
        match text.parse::<Filter>() {
            Ok(filter) => prop_assert_eq!(filter.to_string(), text.trim()),
            Err(why) => prop_assert!(why.to_string().contains("ether host MAC"), "{}", why),
        }
    }
}

#[test]
fn nothing_asked_is_everything_wanted_even_of_a_runt() {
    assert!(wants("", &[1, 2, 3]));
    assert!(!wants("ip", &[1, 2, 3]));
    assert!(wants("not ip", &[1, 2, 3]));
}

#[test]
fn what_makes_no_sense_is_said_with_what_is_known() {
    for (text, what) in [
        ("tpc", "`tpc` is not known here"),
        ("host nowhere", "behind `host` stands an IPv4 or IPv6 address, and not `nowhere`"),
        ("port 70000", "a number from 0 to 65535, and not `70000`"),
        ("port", "behind `port` stands"),
        ("ether 02:00:00:00:00:01", "behind `ether` stands `host`"),
        ("vlan 4096", "a number from 0 to 4095"),
        ("arp icmp", "before `icmp` there is neither `and` nor `or`"),
        ("(arp", "`)` is missing"),
        ("arp)", "`)` closes nothing"),
        ("arp and", "it ends where a test must follow"),
    ] {
        let why = text.parse::<Filter>().unwrap_err().to_string();
        assert!(why.contains(what) && why.contains("host ADDRESS"), "{text}: {why}");
    }
    assert!("(".repeat(40).parse::<Filter>().unwrap_err().to_string().contains("nests more than 32 times"));
    assert!("ip or ".repeat(600).parse::<Filter>().unwrap_err().to_string().contains("at most 2048 bytes"));
}
