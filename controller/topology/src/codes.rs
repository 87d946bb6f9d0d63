//! Every code that a topology file's error can have: one closed list, in which code, title, explanation and mend are born together.
//!
//! Codes are a contract: a code keeps its meaning for ever, and `vnet explain CODE` prints its explanation.
//! T01xx is how the file is written, T02xx nodes and names, T03xx VLANs, T04xx links, T05xx addresses, T06xx `expect`, T07xx `datapath`,
//! T08xx security groups, T09xx routers.

use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($variant:ident = $code:literal, $title:literal, $explanation:literal, mend $mend:literal;)*) => {
        /// What is wrong with a topology file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $title] $variant,)* }

        /// Every code, in ascending order.
        pub const ALL: &[Code] = &[$(Code::$variant,)*];

        impl Code {
            /// The stable name, like `T0101`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// A few words: what is wrong.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What the rule is, why it stands and how to mend the file.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }

            /// What to do where nothing better can be said of the case.
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$variant => $mend,)* }
            }
        }
    };
}

codes! {
    Syntax = "T0101", "the file is not valid YAML",
        "The text could not be read as one YAML document. Look just before the place that is shown: an open bracket or \
         quote, a tab used for indentation, or a `:` inside a value that needs quotes are the usual causes.",
        mend "look just before the place that is shown: an open bracket or quote, an indentation, or a `:` that needs quotes";
    ByteOrderMark = "T0102", "the file starts with a byte-order mark",
        "The first three bytes are a UTF-8 byte-order mark, which some editors write. Save the file as UTF-8 without it.",
        mend "save the file as UTF-8 without a byte-order mark";
    TooMuch = "T0103", "the file is too large or too deep",
        "A topology file may have at most 16 MiB, 64 levels of nesting, 131,072 values and 1,000 uses of aliases. Real \
         labs are far below that; a file that is not is an accident or an attack.",
        mend "make the file smaller: a lab that size is an accident";
    Empty = "T0104", "the file says nothing",
        "A topology file is a mapping that starts with `version: 1`. `vnet init` writes one to begin with.",
        mend "`vnet init` writes a file to start from";
    DuplicateKey = "T0105", "a key is given twice",
        "Each key may stand once in its mapping, else one of the two values would be silently lost. Remove or rename one.",
        mend "remove or rename one of the two";
    UnknownKey = "T0110", "unknown key",
        "The key is not one that may stand here. Unknown keys are never ignored, since a misspelt key would change what \
         the lab does. Compare with the JSON Schema or with the files under `topologies/`.",
        mend "remove the key, or write it as the JSON Schema has it";
    MissingKey = "T0111", "a required key is missing",
        "The mapping needs a key that is not there. The message names it.",
        mend "add the key that is named";
    WrongType = "T0112", "a value of the wrong type",
        "A mapping, a list, a text or a number was needed here and something else was given. A text that looks like a \
         number or a truth value needs quotes.",
        mend "write what is named, as in the files that `vnet init` writes; a text that looks like a number needs quotes";
    NotSupportedYet = "T0113", "not supported yet",
        "The word belongs to a part of vnet that is not built yet. It is refused and not ignored, so that no lab runs \
         with less than its file says.",
        mend "remove it: nothing is silently ignored";
    UnknownWord = "T0114", "unknown word",
        "Only a few words may stand here, and this is none of them. The message lists them.",
        mend "write one of the words that are listed";
    OutOfRange = "T0115", "a number out of range",
        "The number is not within the bounds that the message names. VLAN identifiers are 1 to 4094: IEEE 802.1Q \
         reserves 0 and 4095.",
        mend "write a number within these bounds, in plain decimal digits";
    NoUnit = "T0116", "a number without a unit",
        "Memory takes K, M or G (powers of 1024), time takes us, ms, s, m or h, a rate kbit, Mbit or Gbit (powers of 1000), frames a \
         second pps, kpps or Mpps, connections /s. A bare number would have to be guessed.",
        mend "append the unit, without a blank";
    Malformed = "T0117", "a value that cannot be read",
        "The text does not have the form that this key needs: a MAC address is six pairs of hexadecimal digits joined by \
         `:`, an interface's address has a prefix length (`10.0.10.7/24`), and no part of an IPv4 address starts with 0.",
        mend "write it in the form that is named";
    BadName = "T0201", "a name that is not allowed",
        "Names start with a letter a to z; then come at most 30 letters, digits and dashes. They become parts of paths, \
         labels and command lines, so nothing else is let in.",
        mend "a name is a letter a to z, then at most 30 of a to z, 0 to 9 and -, and does not end in -";
    NameTaken = "T0202", "a name is taken",
        "Nodes and switches share one set of names, because links and commands name both in the same way. Rename one.",
        mend "rename one of them: links name both in the same way";
    KeyNotForKind = "T0203", "a key that this kind of node does not have",
        "The key belongs to another kind of node. Remove it, or change `kind`.",
        mend "remove the key, or change `kind`";
    Exclusive = "T0204", "keys that exclude one another",
        "Both keys answer the same question. Keep one.",
        mend "keep one of the two";
    NeedsKey = "T0205", "a key that needs another one",
        "The key (or the node) means something only together with another key, which is missing. The message names it.",
        mend "add the key that it needs, or remove it";
    BothPlaces = "T0206", "interface keys in two places",
        "What belongs to an interface stands under `interfaces`, or on the node itself if the node has one link: never both.",
        mend "write them under `interfaces:` only";
    KeysNeedInterface = "T0207", "interface keys on a node with several interfaces",
        "The node has several interfaces, so a key on the node does not say which of them it means. Write it under \
         `interfaces: { eth0: { ... } }`.",
        mend "write the keys under `interfaces: { eth0: { ... } }`";
    PathTooLong = "T0208", "a socket's path is too long",
        "Linux limits the path of a Unix socket to 107 bytes (unix(7)). Choose a shorter path, or leave it out: the socket \
         then lies in the lab's run directory.",
        mend "choose a shorter path, or leave it out";
    UsedTwice = "T0209", "one thing of the host used by two nodes",
        "Two nodes use the same socket, interface or namespace, or write to the same file. Give each its own.",
        mend "give each node its own";
    TooMany = "T0210", "too many of a kind",
        "A lab has at most 4096 switches and 4096 interfaces, of which the message names the one exceeded.",
        mend "split the lab into several";
    VlanTaken = "T0301", "a VLAN identifier has two names",
        "A VLAN has one name, the same on every switch of the lab. Remove one of the two. VLAN 1 is named `default`.",
        mend "remove one of the two names, or give another id";
    UnknownVlan = "T0302", "unknown VLAN",
        "Links name VLANs by the names under `vlans:`, and `default` for VLAN 1. Add the VLAN there, or mend the name.",
        mend "add it under `vlans:`";
    Membership = "T0303", "a `vlan` that contradicts itself",
        "A link is either `access: NAME` (one VLAN, untagged) or `trunk: [NAMES]` (tagged) with an optional `native: NAME`.",
        mend "write `{ access: NAME }`, or `{ trunk: [NAMES] }` with an optional `native: NAME`";
    UnknownEnd = "T0401", "a link to nowhere",
        "An end of a link names a node or a switch that the file does not have.",
        mend "name a node or a switch of this file";
    Ends = "T0402", "a link has two ends",
        "A link joins exactly two different things. To join three or more, make a switch and link each of them to it.",
        mend "join two different things; a switch joins more";
    LinkedTwice = "T0403", "an interface with two links",
        "An interface has one link, like the socket of a network card. Use another interface, or a switch.",
        mend "remove one of the links, or use another interface";
    SomeNamed = "T0404", "some interfaces named and others not",
        "A link that names no interface takes the node's next `ethN` in file order. Naming some and not others would \
         make that order hard to see: name all of the node's interfaces in its links, or none.",
        mend "name the interfaces in all links of the node, or in none";
    UnknownInterface = "T0405", "unknown interface",
        "The node has `interfaces:`, and the link names one that is not there; or a switch was given an interface, which \
         it does not have.",
        mend "name an interface that the node has";
    WireVlan = "T0406", "a wire with VLANs",
        "A link of two nodes is a transparent wire: what goes in comes out, tags included. VLANs need a switch between.",
        mend "remove `vlan`, or put a switch between";
    Loop = "T0407", "a loop of switches",
        "Frames would circle for ever, because there is no spanning tree yet. Remove one of the links that are named.",
        mend "remove one of these links";
    Unlinked = "T0408", "an interface without a link",
        "The interface is joined to nothing: it hears nobody, and nobody hears it.",
        mend "add a link: `- [NODE, SWITCH]` under `links:`";
    BadAddress = "T0501", "an address that no interface can have",
        "The address names a whole network, everybody in it, a group, the host itself or nobody.",
        mend "give an address of a single host within its subnet";
    AddressTaken = "T0502", "an address is used twice",
        "Two interfaces that hear each other have the same IP address.",
        mend "give one of the two another address";
    SubnetMismatch = "T0503", "two subnets overlap in one VLAN",
        "Two interfaces of one VLAN have addresses of overlapping subnets with different prefix lengths, so one would \
         look for the other on its link and not be answered in kind. Give both the same prefix length.",
        mend "give both the same prefix length";
    BadMac = "T0504", "a MAC address that no interface can have",
        "The address is a group address (lowest bit of the first octet set, IEEE 802-2014 section 8.2.2) or all zero.",
        mend "give a unicast address, or leave `mac` out";
    MacTaken = "T0505", "a MAC address is used twice",
        "Two interfaces have the same MAC address; the switch could not tell them apart. Leave `mac` out to get a stable \
         address made from lab, node and interface. Clones may share one if each is the untagged member (`access`) of a VLAN of its own.",
        mend "leave `mac` out, or give one of the two another";
    ExpectForm = "T0601", "an expectation that cannot be read",
        "The form is `SRC -> DST icmp|tcp/PORT|udp/PORT|arp|l2 allow|reject|deny [because REASON]`.",
        mend "the form is `SRC -> DST icmp|tcp/PORT|udp/PORT|arp|l2 allow|reject|deny [because REASON]`";
    ExpectEnd = "T0602", "an expectation about an unknown node",
        "SRC and DST are NODE or NODE:INTERFACE, with names of this file, and two different interfaces that have links.",
        mend "name two different interfaces of this file that have links";
    ExpectInterface = "T0603", "an expectation that does not say which interface",
        "The node has several interfaces: write NODE:INTERFACE.",
        mend "write NODE:INTERFACE";
    ExpectReason = "T0604", "an unknown reason",
        "`because` takes `vlan`, `policy`, `firewall` or the name of a drop reason, and stands behind `deny` only.",
        mend "`deny because vlan`, `policy`, `firewall` or DROP-REASON, or no reason";
    ExpectAddress = "T0605", "a probe without addresses",
        "icmp, tcp, udp and arp need an address of one family on both ends, and an allowed one needs a common subnet, or (but for arp) \
         gateways of one router: the source's own default gateway, whose router is connected to the destination's network or has a route \
         there. l2 needs the destination's MAC address.",
        mend "give both ends an address of one family and subnet, or gateways of one router; or probe with l2";
    ExpectSource = "T0606", "a node that cannot send probes",
        "Only nodes that run our probe agent can be the source: stations, namespaces, and virtual machines with the bundled guest or an `image`.",
        mend "let a station, a namespace or a virtual machine that vnet made be the source";
    MayNotAnswer = "T0607", "a node that may not answer",
        "The expectation holds only if the guest answers by itself: we did not make what runs in it. Be sure that it has \
         the addresses of the file and answers what is asked. Behind a nic or a tap is nobody while `vnet test` has the lab to itself, \
         and capture files never answer.",
        mend "be sure that it has these addresses and answers; else probe with l2, or another node";
    CpusAndWorkers = "T0701", "not one CPU for each worker",
        "`datapath: { workers: 2, cpus: [2, 3] }` pins the first worker to CPU 2 and the second to CPU 3. A worker without a CPU \
         would run anywhere beside pinned ones, and a CPU without a worker would do nothing.",
        mend "list as many CPUs as there are workers, or leave `cpus` out";
    CpuTwice = "T0702", "a CPU for two workers",
        "Two workers that are pinned to one CPU take turns on it: each is slower than alone, and neither can go elsewhere.",
        mend "give each worker a CPU of its own, or leave `cpus` out";
    TooFewConnections = "T0703", "too few connections",
        "All interfaces with security groups share the connections of `datapath: { connections: N }` in equal parts, so that none can take \
         another's. With fewer than 64 an interface could hardly be used. Left out, there are 262,144.",
        mend "write at least 64 for each interface with security groups, or leave `connections` out";
    UnknownGroup = "T0801", "unknown security group",
        "Interfaces and rules name security groups by the names under `security-groups:` at the top of the file. Add the group \
         there (`NAME: []` is one without rules, which others can name as their `remote-group`), or mend the name.",
        mend "add it under `security-groups:` at the top of the file";
    GroupTwice = "T0802", "a security group listed twice",
        "The rules of an interface are those of its groups, in the order of the list. A group that stands there again adds nothing: \
         its rules were asked already. Remove one of the two.",
        mend "remove one of the two";
    NoPorts = "T0803", "ports of a protocol that has none",
        "`port` is the destination port of TCP, UDP or SCTP, so the rule needs `protocol: tcp`, `udp` or `sctp`. ICMP has types \
         instead (`icmp-type`); of other protocols the protocol is all that a rule can ask for. Two protocols are two rules.",
        mend "write `protocol: tcp`, `udp` or `sctp`, or leave `port` out";
    NoIcmpType = "T0804", "an ICMP type without ICMP, or of two kinds of ICMP",
        "`icmp-type` needs `protocol: icmp` or `icmpv6`. The numbers of ICMP (IPv4) and ICMPv6 have nothing in common: 8 is an echo \
         request in one, 128 in the other. So a rule of `protocol: icmp` with a type says which is meant, by `ether-type: ipv4` or \
         `ipv6` or by the addresses in `remote-ip-prefix`.",
        mend "write `protocol: icmp` and `ether-type: ipv4`, or `protocol: icmpv6`";
    Families = "T0805", "a rule of two families",
        "One part of the rule says IPv4, another IPv6: no frame is both, and the rule would never match. Remove one of the parts, or \
         make two rules.",
        mend "remove one of the two, or make two rules";
    NotIp = "T0806", "what only IP has, of frames that are not IP",
        "The rule's `ether-type` is of frames that are not IP, such as ARP. These have no protocol, no ports and no IP addresses that a \
         rule could ask for. (`ipv4` and `ipv6` are EtherTypes too, and have all of these.)",
        mend "leave all but `ether-type` out";
    BackwardRange = "T0807", "a range that ends before it begins",
        "Nothing lies in a range whose last port is less than its first. Write the lower one first.",
        mend "write the lower port first";
    HostBits = "T0808", "a network with host bits set",
        "Bits of the address behind its prefix length are set, so it is unclear whether the network or the host is meant. \
         10.0.10.7/24 is an interface's address; the network is 10.0.10.0/24, and the host alone is 10.0.10.7.",
        mend "write the network's own address, or leave the prefix length out";
    EmptyList = "T0809", "a list with nothing in it",
        "A rule with an empty list of ports or networks would match nothing, which is hardly what it stands for; leave the key out, and \
         any matches. An empty list of security groups says neither open nor closed: leave the key out for what `policy` says. A gateway \
         without an address is none, and a route by no way leads nowhere, which is `via: blackhole`.",
        mend "leave the key out, or put something into the list";
    Shadowed = "T0810", "a rule behind one that takes all that it matches",
        "The first rule that matches decides. An earlier rule of the group matches everything that this one does, so this one is never \
         asked. Move it before the other, or remove it.",
        mend "move it before the other, or remove it";
    NeverMatches = "T0811", "a rule that no frame can match",
        "A `remote-group` has as its members the `addresses` of the interfaces that list the group, so a group that nobody lists, or none \
         with an address of the rule's family, matches nothing. Nor does a frame come from a multicast address.",
        mend "give members to the group, or remove the rule";
    NoAddresses = "T0812", "anti-spoof without addresses",
        "An interface with anti-spoof may send from its own addresses only, and this one has none: nothing that it says over IPv4 but \
         its DHCP questions would pass, for ever, and of IPv6 only what stays on its link. If the guest has an address that never changes, \
         write it under `addresses`. If it gets one by DHCP, or a disk image brings its own, `allowed-addresses: [NETWORK]` keeps it to its \
         MAC address and within that network, and `anti-spoof: false` lets it use any. `allowed-addresses: []` says that it speaks no IP.",
        mend "write `addresses`, `allowed-addresses: [NETWORK]` (DHCP) or `anti-spoof: false`";
    GroupsOnWire = "T0813", "a wire with a firewall",
        "A link of two nodes is a transparent wire: what goes in comes out. To filter, put a switch between the two.",
        mend "remove the key, or put a switch between";
    RulesDoNotFit = "T0814", "rules that do not fit",
        "The rules of one interface may be 16,384, and name 262,144 networks and members of groups in one direction; networks and groups \
         that overlap in very many ways in rules with very many ports do not fit either. The message says which it is.",
        mend "name fewer groups at the interface, or fewer networks and ports in their rules";
    LimitsOnWire = "T0815", "a limit that a wire does not have",
        "A link of two nodes is a transparent wire: no address is learned there, and nothing is flooded. Of `limits` it has the rates \
         in bits and frames only. For the others, put a switch between the two.",
        mend "remove the key, or put a switch between";
    StopsNeighbours = "T0816", "a rule that keeps neighbours from being found",
        "Before anything is said over IP, ARP (IPv4) and neighbour discovery (IPv6, a part of ICMPv6) find out where it is to go. An \
         interface with security groups lets them pass unless a rule drops them, and this one does, along with what it was written for. \
         Incoming frames that no rule allows are dropped anyway, and these pass, so a rule that drops all of them can go. Of pings it \
         is enough to drop `protocol: icmp, ether-type: ipv4, icmp-type: 8` and `protocol: icmpv6, icmp-type: 128`.",
        mend "name what it is to drop, or remove the rule";
    UnknownRouter = "T0901", "unknown router",
        "A VLAN's gateway is an interface of the router `default`, or of one under `routers:` at the top of the file. Add the router there \
         (`NAME: {}` is one without static routes), or mend the name.",
        mend "add it under `routers:` at the top of the file";
    IdleRouter = "T0902", "a router without a gateway",
        "No VLAN has a gateway of this router, so no frame ever comes to it, and its routes do nothing. Give a VLAN \
         `gateway: ADDRESS/LENGTH` and, if it is not the router `default`, `router: NAME`.",
        mend "give a VLAN `gateway:` and `router: NAME`, or remove the router";
    NetworksOverlap = "T0903", "two networks of one router overlap",
        "A router tells by the destination's address alone into which of its VLANs a packet goes, so the networks of its gateways in \
         different VLANs may have no address in common. Gateways of different routers may: `vlans: { NAME: { router: OTHER } }`.",
        mend "give one of the two another network, or another router";
    OutsideNetworks = "T0904", "an address in no network of its gateway",
        "The VLAN has a gateway, but none whose network this address is in: the interface is reached from its own VLAN only, and has no \
         gateway of that family.",
        mend "give it an address of the gateway's network, or the gateway one in its network";
    NextHop = "T0905", "a next hop that is not connected",
        "A route leads to another router, which the switch finds in the network of one of the same router's gateways. An address that is in none of \
         them, or is a gateway's own, is nobody to pass a packet on to. Link-local addresses do not say in which VLAN they are.",
        mend "name another router's address in a network of one of this router's gateways";
    RouteTwice = "T0906", "two routes to one network",
        "A router has one route to each network, and those to the networks of its gateways it has already. Several next hops of one route \
         stand in one list, and share its connections: `via: [10.0.0.253, 10.0.0.254]`.",
        mend "remove one of the two; several next hops are `via: [A, B]`";
    RouteForm = "T0907", "a route that contradicts itself",
        "A route is of one family: a network and next hops of IPv4, or of IPv6. `to: default` has the family of its next hop. A blackhole has \
         none, so its network is written out (`0.0.0.0/0`, `::/0`), and nothing stands beside it.",
        mend "write `to: NETWORK` and `via: ADDRESS` of one family, or `to: NETWORK` and `via: blackhole`";
    Unjoined = "T0908", "a gateway in two networks",
        "A VLAN is one network where its switches are joined by links that carry it. A gateway with these switches in several parts would have \
         one network in two places, and could not tell in which of them an address is. Join the switches by a link that carries the VLAN, \
         or give the parts VLANs and gateways of their own.",
        mend "join the switches by a link that carries the VLAN, or make it two VLANs";
    NatForm = "T0911", "a rule of NAT that is none",
        "A rule of `nat` is one of three: `{ masquerade: VLAN }` gives what goes out into that VLAN the router's own address there; \
         `{ forward: \"8080:web1:80/tcp\" }` leads a port of that address to a node; `{ static: 192.0.2.10, to: web1 }` gives a node an \
         address outside for itself.",
        mend "write one of the three, each as a rule of its own";
    NatOutside = "T0912", "an outside that the router does not have",
        "Translation gives packets an address that others can answer to, so it is one in a VLAN in which the same router has a gateway: the \
         gateway's own (`masquerade`), or another of that network, for which the router answers (`static`).",
        mend "give the VLAN a gateway of this router, or name an address in the network of one";
    NatTarget = "T0913", "a node that translation cannot lead to",
        "A forwarded port, or an address outside, leads to an address that the file states, in a network that the same router is connected to: \
         what a guest makes or gets for itself may be another tomorrow.",
        mend "state the node's `addresses`, in a VLAN with a gateway of this router";
    NatTwice = "T0914", "translated twice",
        "A port outside leads to one node, an address outside is one node's, a node has one address outside, and a VLAN is masqueraded into or not.",
        mend "remove one of the two";
    NatTaken = "T0915", "an address outside that another has",
        "The router answers for an address outside in its VLAN. If a node there has it too, or it is that of \
         another router by which a route leads, which of the two gets a frame is chance.",
        mend "name another address of that network, which no node there has";
    DhcpRange = "T0910", "addresses that a gateway cannot give",
        "A gateway gives addresses of a network of its own, from the first to the last of a range, and 65,536 at most. The network's own address and \
         its broadcast address are nobody's. The gateway's address and those of `addresses` may lie in the range: nobody else is given them.",
        mend "write a range in the gateway's network, like 10.0.10.50-10.0.10.99";
    Unreached = "T0909", "a gateway that nobody reaches",
        "No link carries the gateway's VLAN to a switch, so nobody can send it anything.",
        mend "add a link that carries the VLAN: `vlan: { access: NAME }`";
    DhcpOptions = "T0920", "more than a message of DHCP holds",
        "Every DHCP client takes messages of 548 bytes, and some take no longer ones. Of these 200 are for `dns`, `domain`, `search`, `routes` and `boot` \
         together: 2 for each, 4 for a name server, a letter each for domains and 2 for each that is searched, 5 to 9 for a route, 5 for \
         the default route beside them, a letter each for the file that is booted and 17 for who has it.",
        mend "leave some of `dns`, `domain`, `search`, `routes` and `boot` out, or name fewer";
    AdvertisedAndGuarded = "T0921", "an advertised network whose addresses anti-spoof drops",
        "With `ra: true` the gateway advertises its networks of 64 bits, and Linux makes itself an address of each, beside those that the file \
         states, and prefers it. An interface with security groups may send from its stated addresses only, so what it says first is dropped. \
         Allow it the network, or let the gateway advertise nothing there.",
        mend "add `allowed-addresses: [\"NETWORK\"]` to the interface, or leave `ra` out";
    DhcpFull = "T0922", "more DHCP clients than addresses",
        "The addresses that the file states are given to their interfaces only, and the gateway's is its own. What is left of the range is less \
         than the interfaces of the VLAN that have no IPv4 address stated, or nothing at all: who comes last gets no address.",
        mend "make the range larger, or state the addresses";
    RouteInVain = "T0923", "a route that no packet follows",
        "Packets for groups, for loopback and link-local addresses, and for 0.0.0.0/8 and 240.0.0.0/4 are passed on by no router: they are lost \
         as `martian`. Those for a router's own address are its own. A route to such addresses does nothing.",
        mend "remove the route";
    WayOutUnused = "T0924", "a way out that nobody can use",
        "What is behind a node of kind `user` answers one address of each family, that of the router that sends there. So its interface is an access \
         port in a VLAN with a gateway, has one address of each family in that gateway's network (the `via` of the router's routes), and the \
         router masquerades into that VLAN.",
        mend "link it with `vlan: { access: wan }`, give `wan` a `gateway`, and its router `nat: [{ masquerade: wan }]`";
    BesideWayOut = "T0925", "others beside a way out",
        "What comes in by a node of kind `user` is sent to whoever was heard last in its VLAN. With others there than the router, or another address \
         of the router's, answers go astray.",
        mend "give the way out a VLAN of its own, with nothing but a gateway in it";
    NameServer = "T0926", "a name server that cannot be asked",
        "Gateways ask the name servers of their router, three at most, for names that are not the lab's. Each is another than the router itself, and \
         one of the router's routes leads to it.",
        mend "name a server outside of the lab to whom a route leads";
    BootServer = "T0927", "a boot server that cannot be told",
        "Clients of DHCP that boot from the network are told a file and who has it: an IPv4 address, which of a node is one that the file states in a network of the same \
         router. A URL says it itself.",
        mend "name the address of a server, a node with stated `addresses`, or a URL";
}

/// The explanation of the code of that name, if there is one; upper and lower case are the same.
pub fn explain(name: &str) -> Option<&'static str> {
    name.parse::<Code>().ok().map(Code::explanation)
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// There is no code of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchCode;

impl FromStr for Code {
    type Err = NoSuchCode;

    fn from_str(name: &str) -> Result<Self, NoSuchCode> {
        ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(name)).ok_or(NoSuchCode)
    }
}
