//! The values that one word or number says: units, addresses, words of a closed list.

use crate::{
    codes::Code,
    report::{Sink, visible},
    said::{
        read::{Read, wrong_type},
        tree::{Tree, Value},
    },
};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{borrow::Cow, fmt::Display, num::NonZeroU64, str::FromStr};
use vswitch_core::mac::MacAddr;

impl Read for String {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => {
                sink.error(
                    Code::WrongType,
                    tree.span,
                    format!("a text is needed here, not {}", tree.value.kind()),
                )
                .help("put it in quotes if it is meant as a text");
                None
            }
            _ => wrong_type(tree, "a text", sink),
        }
    }
}

impl Read for bool {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match tree.value {
            Value::Bool(value) => Some(value),
            _ => wrong_type(tree, "true or false", sink),
        }
    }
}

/// The name of a VLAN. A number is taken too: whoever looks the name up knows which name it should have been.
#[derive(Debug, Clone)]
pub(crate) struct VlanName(pub(crate) String);

impl Read for VlanName {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::Number(digits) => Some(Self(digits.clone())),
            _ => String::read(tree, sink).map(Self),
        }
    }
}

impl JsonSchema for VlanName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// A whole number of at least `MIN` and at most `MAX`, in plain decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u16, const MAX: u16>(pub(crate) u16);

impl<const MIN: u16, const MAX: u16> Read for Whole<MIN, MAX> {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        read_whole(tree, MIN, MAX, sink).map(Self)
    }
}

/// How many there may be: `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<const MAX: u32, const MIN: u32 = 1>(pub(crate) u32);

impl<const MAX: u32, const MIN: u32> Read for Count<MAX, MIN> {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        read_whole(tree, MIN, MAX, sink).map(Self)
    }
}

impl<const MAX: u32, const MIN: u32> JsonSchema for Count<MAX, MIN> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Count{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A whole number from `min` to `max`, in plain decimal digits.
pub(crate) fn read_whole<N>(tree: &Tree, min: N, max: N, sink: &mut Sink) -> Option<N>
where
    N: Copy + Display + FromStr + PartialOrd,
{
    let Value::Number(digits) = &tree.value else {
        return wrong_type(tree, "a number", sink);
    };
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    let number = digits.parse().ok().filter(|number| plain && (&min..=&max).contains(&number));
    if number.is_none() {
        let wanted = if min == max { min.to_string() } else { format!("a whole number from {min} to {max}") };
        sink.error(Code::OutOfRange, tree.span, format!("`{}` is not {wanted}", visible(digits)));
    }
    number
}

impl<const MIN: u16, const MAX: u16> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Whole{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// What a text of a special form says.
pub(crate) trait Form: Sized {
    /// The form, in words, with an example.
    const FORM: &'static str;
    /// The unit that a number without one may well mean; a form without numbers has none.
    const UNIT: &'static str = "";
    /// All units that there are.
    const UNITS: &'static [&'static str] = &[];
    /// A regular expression (ECMA-262) for the JSON Schema.
    const PATTERN: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

/// What a text of that form says.
pub(crate) fn read_form<T: Form>(tree: &Tree, sink: &mut Sink) -> Option<T> {
    let text = String::read(tree, sink)?;
    let value = T::parse(&text);
    if value.is_none() {
        let told = sink.error(Code::Malformed, tree.span, format!("`{}` is not {}", visible(&text), T::FORM));
        if let Some(meant) = meant::<T>(&text) {
            told.help(format!("did you mean `{meant}`?"));
        }
    }
    value
}

/// The same number with a unit that begins alike, in upper or lower case, if that is of the form.
fn meant<T: Form>(text: &str) -> Option<String> {
    let (number, unit) = quantity(text)?;
    let is_alike =
        |known: &str| known.get(..unit.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(unit));
    let known = T::UNITS.iter().filter(|known| is_alike(known));
    known.map(|known| format!("{number}{known}")).find(|text| T::parse(text).is_some())
}

/// A number with a unit; a bare number is an error of its own.
fn read_quantity<T: Form>(tree: &Tree, sink: &mut Sink) -> Option<T> {
    if let Value::Number(digits) = &tree.value {
        let what = format!("`{}` has no unit; this needs {}", visible(digits), T::FORM);
        let told = sink.error(Code::NoUnit, tree.span, what);
        let with_unit = format!("{}{}", visible(digits), T::UNIT);
        if T::parse(&with_unit).is_some() {
            told.help(format!("append the unit: `{with_unit}`"));
        }
        return None;
    }
    read_form(tree, sink)
}

/// Splits `300s` into 300 and `s`.
fn quantity(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory(pub(crate) u64);

impl Form for Memory {
    const UNIT: &'static str = "M";
    const UNITS: &'static [&'static str] = &["M", "K", "G"];
    const FORM: &'static str = "an amount of memory from 16M to 1024G, like 256M (K, M or G: powers of 1024)";
    const PATTERN: &'static str = "^[0-9]+[KMG]$";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = quantity(text)?;
        let shift = match unit {
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return None,
        };
        let bytes = number.checked_mul(1 << shift)?;
        (16 << 20..=1024 << 30).contains(&bytes).then_some(Self(bytes))
    }
}

/// Bits a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BitRate(pub(crate) NonZeroU64);

impl Form for BitRate {
    const UNIT: &'static str = "Mbit";
    const UNITS: &'static [&'static str] = &["Mbit", "kbit", "Gbit"];
    const FORM: &'static str =
        "a rate from 1kbit to 100Gbit, like 10Mbit (bits a second; kbit, Mbit or Gbit: powers of 1000)";
    const PATTERN: &'static str = "^[0-9]+[kMG]bit(/s)?$";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = quantity(text)?;
        let bits = number.checked_mul(match unit.strip_suffix("/s").unwrap_or(unit) {
            "kbit" => 1_000,
            "Mbit" => 1_000_000,
            "Gbit" => 1_000_000_000,
            _ => return None,
        })?;
        NonZeroU64::new(bits).filter(|bits| bits.get() <= 100_000_000_000).map(Self)
    }
}

/// Frames a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameRate(pub(crate) NonZeroU64);

impl Form for FrameRate {
    const UNIT: &'static str = "pps";
    const UNITS: &'static [&'static str] = &["pps", "kpps", "Mpps"];
    const FORM: &'static str =
        "a frame rate from 1pps to 100Mpps, like 5kpps (frames a second; pps, kpps or Mpps: powers of 1000)";
    const PATTERN: &'static str = "^[0-9]+[kM]?pps$";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = quantity(text)?;
        let frames = number.checked_mul(match unit {
            "pps" => 1,
            "kpps" => 1_000,
            "Mpps" => 1_000_000,
            _ => return None,
        })?;
        NonZeroU64::new(frames).filter(|frames| frames.get() <= 100_000_000).map(Self)
    }
}

/// Connections a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionRate(pub(crate) NonZeroU64);

impl Form for ConnectionRate {
    const UNIT: &'static str = "/s";
    const FORM: &'static str = "a number of connections a second from 1/s to 1000000/s, like 50/s";
    const PATTERN: &'static str = "^[0-9]+/s$";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = quantity(text)?;
        let in_range = |rate: &NonZeroU64| unit == "/s" && rate.get() <= 1_000_000;
        NonZeroU64::new(number).filter(in_range).map(Self)
    }
}

/// How long a burst is, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst(pub(crate) u32);

impl Form for Burst {
    const UNIT: &'static str = "ms";
    const FORM: &'static str = "a time from 1ms to 10s, like 100ms (us, ms or s)";
    const PATTERN: &'static str = TIME;

    fn parse(text: &str) -> Option<Self> {
        let micros = u32::try_from(micros(text)?).ok()?;
        (1_000..=10_000_000).contains(&micros).then_some(Self(micros))
    }
}

/// What a time looks like.
const TIME: &str = "^[0-9]+(us|ms|s|m|h)$";

/// A time, in microseconds.
fn micros(text: &str) -> Option<u64> {
    let (number, unit) = quantity(text)?;
    number.checked_mul(match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    })
}

/// An age, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age(pub(crate) u32);

impl Form for Age {
    const UNIT: &'static str = "s";
    const FORM: &'static str = "a time from 10s to 1000000s, like 300s (s, m or h)";
    const PATTERN: &'static str = TIME;

    /// The bounds are those of IEEE 802.1Q-2018 table 8-6.
    fn parse(text: &str) -> Option<Self> {
        let micros = micros(text)?;
        let seconds = u32::try_from(micros / 1_000_000).ok()?;
        (micros % 1_000_000 == 0 && (10..=1_000_000).contains(&seconds)).then_some(Self(seconds))
    }
}

/// A MAC address, as it stands in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mac(pub(crate) MacAddr);

impl Form for Mac {
    const FORM: &'static str = "a MAC address, like 02:00:00:00:00:01";
    const PATTERN: &'static str = "^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// Bytes of a key with its comment: four times those of the longest that are in use.
const MOST_OF_A_KEY: usize = 16 << 10;

/// A public key of SSH.
#[derive(Debug, Clone)]
pub(crate) struct SshKey(pub(crate) String);

impl Form for SshKey {
    const FORM: &'static str = "a public key of SSH, as a line of authorized_keys without options: its type, its base64 and maybe a comment";
    const PATTERN: &'static str = "^(ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]{32,}={0,2}( [^\\n\\r]*)?$";

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (kind, key) = (parts.next()?, parts.next()?);
        let is_kind = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start))
            && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"@.-".contains(&b));
        let digits = key.trim_end_matches('=');
        let is_key = key.len() - digits.len() <= 2
            && digits.len() >= 32
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
        let is_line = text.len() <= MOST_OF_A_KEY && !text.contains(char::is_control);
        (is_kind && is_key && is_line).then(|| Self(text.to_owned()))
    }
}

/// An interface's address with its subnet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(pub(crate) IpNet);

impl Form for Address {
    const FORM: &'static str = "an address with its prefix length, like 10.0.10.7/24 or 2001:db8::7/64 (no part of an IPv4 address starts with 0)";
    const PATTERN: &'static str = "^[0-9a-fA-F.:]+/[0-9]{1,3}$";

    /// `IpNet`'s own parser takes 010.0.0.1, which some programs read as 8.0.0.1: the standard library's does not.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let plain = prefix.bytes().all(|digit| digit.is_ascii_digit())
            && (prefix.len() == 1 || !prefix.starts_with('0'));
        let prefix = prefix.parse().ok().filter(|_| plain)?;
        IpNet::new(address.parse().ok()?, prefix).ok().map(Self)
    }
}

/// Mode bits of a socket, in octal digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode(pub(crate) u32);

impl Form for Mode {
    const FORM: &'static str = "a quoted octal mode, like \"0660\"";
    const PATTERN: &'static str = "^0?[0-7]{3}$";

    fn parse(text: &str) -> Option<Self> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777).map(Self)
    }
}

macro_rules! forms {
    ($($type:ident by $read:ident;)*) => {$(
        impl Read for $type {
            fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
                $read(tree, sink)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": <$type as Form>::PATTERN, "description": <$type as Form>::FORM })
            }
        }
    )*};
}

pub(crate) use forms;

forms! {
    Memory by read_quantity;
    Age by read_quantity;
    BitRate by read_quantity;
    FrameRate by read_quantity;
    ConnectionRate by read_quantity;
    Burst by read_quantity;
    Mac by read_form;
    Address by read_form;
    Mode by read_form;
    SshKey by read_form;
}

/// A closed list of words, some of which are not supported yet.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* } not yet [$($later:literal),*])*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
        pub(crate) enum $name { $($(#[$word_doc])* #[schemars(rename = $word)] $variant,)* }

        impl Read for $name {
            const WORDS: &'static [&'static str] = &[$($word),*];

            fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
                match String::read(tree, sink)?.as_str() {
                    $($word => Some(Self::$variant),)*
                    other => refuse_word(other, tree, Self::WORDS, &[$($later),*], sink),
                }
            }
        }
    )*};
}

impl Image {
    /// As the file writes it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::DebianGeneric => "debian-generic",
        }
    }
}

/// Tells that `word` is none that is known, or one of the future.
pub(crate) fn refuse_word<T>(
    word: &str,
    tree: &Tree,
    known: &[&str],
    later: &[&str],
    sink: &mut Sink,
) -> Option<T> {
    if later.contains(&word) {
        sink.error(Code::NotSupportedYet, tree.span, format!("`{word}` is not supported yet"))
            .help(format!("what is: {}", known.join(", ")));
        return None;
    }
    let what = format!("`{}` is none of {}", visible(word), known.join(", "));
    let told = sink.error(Code::UnknownWord, tree.span, what);
    match SYNONYMS.iter().find(|(other, ours)| *other == word && known.contains(ours)) {
        Some((_, ours)) => told.help(format!("did you mean `{ours}`?")),
        None => told.did_you_mean(word, known.iter().copied()),
    };
    None
}

/// Other programs' words for ours.
const SYNONYMS: [(&str, &str); 7] = [
    ("in", "ingress"),
    ("out", "egress"),
    ("accept", "allow"),
    ("permit", "allow"),
    ("deny", "drop"),
    ("discard", "drop"),
    ("block", "drop"),
];

words! {
    /// `kind:` of a node.
    Kind {
        /// A virtual machine that vnet starts.
        Vm = "vm",
        /// An end station (a small network stack) in a process of vnet's.
        Station = "station",
        /// A VMM of the user's attaches.
        VhostUser = "vhost-user",
        /// A tap interface of the host.
        Tap = "tap",
        /// Frames on a stream socket, as QEMU's `-netdev stream` and passt speak them.
        Stream = "stream",
        /// A frame a datagram, as QEMU's `-netdev dgram` has them.
        Dgram = "dgram",
        /// A network namespace of the host: any Linux program can run there.
        Netns = "netns",
        /// An interface of the host, with what is behind it.
        Nic = "nic",
        /// Capture files: one is replayed, one is recorded.
        Pcap = "pcap",
        /// A way out to the network of the host, which needs no rights.
        User = "user",
    } not yet ["tunnel"]
    /// `vmm:` of a virtual machine.
    VmmWord {
        /// vmm-lite where KVM runs that guest there, else QEMU.
        Auto = "auto",
        /// The small VMM that is part of vnet.
        VmmLite = "vmm-lite",
        /// QEMU.
        Qemu = "qemu",
    } not yet []
    /// `image:` of a virtual machine.
    Image {
        /// Debian's kernel with a small userland, built by `vnet image build debian`.
        Debian = "debian",
        /// The same with Debian's kernel for all machines, which has drivers for emulated network cards; built when it is first used.
        DebianGeneric = "debian-generic",
    } not yet []
    /// `boot:` of a virtual machine.
    BootWord {
        /// What the firmware finds on the network (iPXE).
        Network = "network",
    } not yet []
    /// `pace:` of a replay.
    Pace {
        /// As the file's times have it.
        Recorded = "recorded",
        /// As fast as the switch takes the frames.
        Fast = "fast",
    } not yet []
    /// `poll:` of the datapath.
    Poll {
        /// Sleep when idle.
        Adaptive = "adaptive",
        /// Never sleep.
        Always = "always",
    } not yet []
    /// `guest-memory:` of an interface.
    GuestMemory {
        /// Any shared memory.
        Auto = "auto",
        /// Only memory that is sealed against shrinking.
        Sealed = "sealed",
    } not yet []
    /// `model:` of an interface.
    ModelWord {
        /// virtio-net, over vhost-user where vnet starts the guest.
        Virtio = "virtio",
        /// Intel 82540EM.
        E1000 = "e1000",
        /// Intel 82574L.
        E1000e = "e1000e",
        /// Realtek RTL8139.
        Rtl8139 = "rtl8139",
    } not yet []
    /// `policy:` of the lab.
    PolicyWord {
        /// An interface without security groups lets everything in and out.
        Open = "open",
        /// It lets nothing in but answers.
        Closed = "closed",
    } not yet []
    /// `direction:` of a rule.
    DirectionWord {
        /// Towards the guest.
        Ingress = "ingress",
        /// From the guest.
        Egress = "egress",
    } not yet []
    /// `action:` of a rule.
    ActionWord {
        /// It goes on.
        Allow = "allow",
        /// It is dropped.
        Drop = "drop",
        /// It is dropped, and its sender is told.
        Reject = "reject",
    } not yet []
    /// `state:` of an interface.
    State {
        /// The link is up.
        Up = "up",
        /// The link is down.
        Down = "down",
    } not yet []
}
