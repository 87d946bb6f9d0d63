//! The grammar of the command line.

use crate::{Config, ConsoleTarget, CpuCount, DiskConfig, Kernel, NetConfig, layout::RamSize};
use clap::Parser;
use std::{net::IpAddr, path::PathBuf};

/// The bundled guest, for whoever names no kernel.
const BUNDLED: &[u8] = include_bytes!(env!("VNET_GUEST"));

/// One virtual machine under KVM. Without a kernel it boots the bundled guest, which answers ping.
#[derive(Debug, Parser)]
#[command(name = "vmm-lite", version)]
pub struct Args {
    /// What to boot: an ELF with a PVH entry point, or a bzImage.
    #[arg(long, env = "VNET_VMM_KERNEL", value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's first file system.
    #[arg(long, env = "VNET_VMM_INITRD", value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// What the kernel is told. The bundled guest knows `vnet.ping=ADDRESS`, `vnet.serve=PORT` (a sink for bulk data),
    /// `vnet.send=ADDRESS,PORT,BYTES`, `vnet.reflect=IF,IF[,first=FRAMES][,bytes=BYTES]` (sends on either interface what
    /// comes on the other), `vnet.blast=IF[,to=MAC][,bytes=BYTES][,count=FRAMES]` and `vnet.sink=IF` (counts frames).
    /// Interfaces are eth0, eth1 and so on; those that reflect, blast or count answer nobody.
    #[arg(long, env = "VNET_VMM_CMDLINE", value_name = "WORDS", default_value = "")]
    cmdline: String,
    /// How many vCPUs: 1 to 16.
    #[arg(long, env = "VNET_VMM_CPUS", value_name = "N", default_value = "1", value_parser = cpus)]
    cpus: CpuCount,
    /// How much memory: bytes, or with K, M or G.
    #[arg(long, env = "VNET_VMM_MEMORY", value_name = "SIZE", default_value = "64M", value_parser = memory)]
    memory: RamSize,
    /// Who is at the serial console: `stdio`, `pty`, `none`, or `socket=PATH[,log=FILE]`, where the file gets what the
    /// guest says, up to 16 MiB.
    #[arg(long, env = "VNET_VMM_CONSOLE", value_name = "WHERE", default_value = "stdio", value_parser = console)]
    console: ConsoleTarget,
    /// Who is at the second serial port, where guests answer vnet's probe protocol: `none`, or `socket=PATH`.
    #[arg(long, env = "VNET_VMM_PROBE", value_name = "WHERE", default_value = "none", value_parser = probe)]
    probe: ConsoleTarget,
    /// A network interface: socket=PATH,mac=MAC[,name=NAME][,mtu=BYTES][,queues=PAIRS][,link=up|down][,address=ADDRESS/LENGTH]...[,gateway=ADDRESS]...[,ask=dhcp|ra]...
    /// The link is up unless it is said to be down. A bundled guest takes the
    /// addresses and default gateways, and so does vnet's image; others may read them from their command line (`vnet.if=`). May be repeated.
    #[arg(long, env = "VNET_VMM_NET", value_name = "KEYS", value_parser = net)]
    net: Vec<Net>,
    /// A disk: path=IMAGE[,write=true]. The image is raw. Without `write` the guest's writes go to a private overlay, and
    /// end with the machine. May be repeated.
    #[arg(long, env = "VNET_VMM_DISK", value_name = "KEYS", value_parser = disk)]
    disk: Vec<DiskConfig>,
    /// Gives the guest a source of random bytes.
    #[arg(long, env = "VNET_VMM_RNG")]
    rng: bool,
    /// A Unix socket to control the machine by: `state`, `exits`, `pause`, `resume`, `link NUMBER up|down`,
    /// `power-off`, `kill`, a line each.
    #[arg(long, env = "VNET_VMM_CONTROL", value_name = "PATH")]
    control: Option<PathBuf>,
    /// Leaves the process all the rights that it was started with: to look for a mistake in what it is left with (seccomp,
    /// Landlock).
    #[arg(long, env = "VNET_VMM_NO_CONFINEMENT")]
    no_confinement: bool,
}

/// What is not possible as it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ArgsError(String);

impl Args {
    /// The machine that was asked for.
    pub fn config(self) -> Result<Config, ArgsError> {
        if let Some(twice) = (1..self.net.len()).find(|at| {
            let (before, this) = self.net.split_at(*at);
            before.iter().any(|net| net.config.mac == this[0].config.mac)
        }) {
            let mac = mac_text(self.net[twice].config.mac);
            return Err(ArgsError(format!("two interfaces have the MAC address {mac}")));
        }
        let words = self.net.iter().enumerate().filter_map(|(index, net)| net.word(index));
        let words: Vec<String> = std::iter::once(self.cmdline).chain(words).collect();
        Ok(Config {
            kernel: self.kernel.map_or(Kernel::Elf(BUNDLED), Kernel::File),
            initrd: self.initrd,
            command_line: words.join(" ").trim().to_owned(),
            cpus: self.cpus,
            ram: self.memory,
            console: self.console,
            probe: self.probe,
            nets: self.net.into_iter().map(|net| net.config).collect(),
            disks: self.disk,
            rng: self.rng,
            control: self.control,
            confined: !self.no_confinement,
        })
    }
}

fn cpus(text: &str) -> Result<CpuCount, String> {
    let count = text.parse().ok().and_then(CpuCount::new);
    count.ok_or_else(|| format!("1 to {}", CpuCount::MOST))
}

fn memory(text: &str) -> Result<RamSize, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    bytes.and_then(RamSize::new).ok_or_else(|| {
        format!("whole pages, {} MiB to {} GiB, such as 512M", RamSize::LEAST >> 20, RamSize::MOST >> 30)
    })
}

fn console(text: &str) -> Result<ConsoleTarget, String> {
    match text {
        "stdio" => Ok(ConsoleTarget::Stdio),
        "pty" => Ok(ConsoleTarget::Pty),
        "none" => Ok(ConsoleTarget::Nobody),
        _ => socket(text).ok_or_else(|| "stdio, pty, none, or socket=PATH[,log=FILE]".into()),
    }
}

fn probe(text: &str) -> Result<ConsoleTarget, String> {
    let target = if text == "none" { Some(ConsoleTarget::Nobody) } else { socket(text) };
    let target = target.filter(|target| !matches!(target, ConsoleTarget::Socket { log: Some(_), .. }));
    target.ok_or_else(|| "none, or socket=PATH".into())
}

/// `socket=PATH[,log=FILE]`.
fn socket(text: &str) -> Option<ConsoleTarget> {
    let (path, log) = match text.split_once(",log=") {
        Some((path, log)) => (path, Some(PathBuf::from(log))),
        None => (text, None),
    };
    // A comma begins another key, of which there is none.
    let path = path.strip_prefix("socket=").filter(|path| !path.is_empty() && !path.contains(','))?;
    let log_has_a_name = log.as_ref().is_none_or(|log| !log.as_os_str().is_empty());
    log_has_a_name.then(|| ConsoleTarget::Socket { path: path.into(), log })
}

/// An interface, with what the guest is told of it.
#[derive(Debug, Clone)]
struct Net {
    config: NetConfig,
    /// What the guest is to call it.
    name: Option<String>,
    addresses: Vec<String>,
    /// Default gateways.
    gateways: Vec<IpAddr>,
    /// What it is to ask for: `dhcp`, `ra`.
    asks: Vec<String>,
}

impl Net {
    /// `vnet.if=`, as vnet's guests read it; none if there is nothing to tell.
    fn word(&self, index: usize) -> Option<String> {
        let name = self.name.clone().unwrap_or_else(|| format!("eth{index}"));
        let mut words = vec![mac_text(self.config.mac), name];
        words.extend(self.addresses.iter().cloned());
        words.extend(self.gateways.iter().map(|gateway| format!("gateway={gateway}")));
        words.extend(self.asks.iter().cloned());
        words.extend(self.config.mtu.map(|mtu| format!("mtu={mtu}")));
        (self.name.is_some() || words.len() > 2).then(|| format!("vnet.if={}", words.join(",")))
    }
}

fn net(text: &str) -> Result<Net, String> {
    let (mut socket, mut mac, mut name, mut mtu, mut addresses) = (None, None, None, None, Vec::new());
    let (mut queues, mut link_up, mut gateways, mut asks) = (1, true, Vec::new(), Vec::new());
    for word in text.split(',') {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no KEY=VALUE"))?;
        match key {
            "socket" => socket = Some(PathBuf::from(value)),
            "mac" => {
                let address = mac_address(value);
                mac = Some(address.ok_or("mac: six octets, not all 0, of which the first is even")?);
            }
            "mtu" => {
                let bytes = value.parse().ok().filter(|mtu| (68..=u16::MAX).contains(mtu));
                mtu = Some(bytes.ok_or("mtu: 68 to 65535")?);
            }
            "queues" => {
                let most = NetConfig::MOST_QUEUES;
                let pairs = value.parse().ok().filter(|pairs| (1..=most).contains(pairs));
                queues = pairs.ok_or_else(|| format!("queues: 1 to {most}"))?;
            }
            "link" => {
                link_up = match value {
                    "up" => true,
                    "down" => false,
                    _ => return Err("link: up or down".into()),
                }
            }
            // Linux' IFNAMSIZ, and what would end the word on the guest's command line.
            "name" if (1..16).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                name = Some(value.to_owned());
            }
            "name" => return Err("name: 1 to 15 characters, and no blanks".into()),
            "address" if is_address(value) => addresses.push(value.to_owned()),
            "address" => {
                return Err(format!("address: ADDRESS/LENGTH, such as 10.0.0.1/24, and not `{value}`"));
            }
            "gateway" => {
                let gateway = value.parse();
                gateways.push(gateway.map_err(|_| format!("gateway: an IP address, and not `{value}`"))?);
            }
            "ask" if matches!(value, "dhcp" | "ra") => asks.push(value.to_owned()),
            "ask" => return Err("ask: dhcp or ra".into()),
            _ => {
                return Err(format!(
                    "`{key}` is none of socket, mac, name, mtu, queues, link, address, gateway, ask"
                ));
            }
        }
    }
    let socket = socket.ok_or("socket=PATH is missing")?;
    let mac = mac.ok_or("mac=MAC is missing")?;
    Ok(Net { config: NetConfig { socket, mac, mtu, queues, link_up }, name, addresses, gateways, asks })
}

fn disk(text: &str) -> Result<DiskConfig, String> {
    let (mut path, mut write) = (None, false);
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("path", value)) if !value.is_empty() && path.is_none() => path = Some(PathBuf::from(value)),
            Some(("path", _)) if path.is_some() => return Err("path: a disk is one image".into()),
            Some(("write", value)) => write = value.parse().map_err(|_| "write: true or false")?,
            _ => return Err(format!("`{word}` is neither path=IMAGE nor write=true")),
        }
    }
    Ok(DiskConfig { path: path.ok_or("path=IMAGE is missing")?, write })
}

/// Whether it is an IP address and the length of its network's prefix.
fn is_address(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// A unicast MAC address.
fn mac_address(text: &str) -> Option<[u8; 6]> {
    let octets = text.split(':').map(|octet| {
        u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2 && !octet.starts_with('+'))
    });
    let octets: [u8; 6] = octets.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    (octets[0] & 1 == 0 && octets != [0; 6]).then_some(octets)
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, String> {
        let args = Args::try_parse_from(std::iter::once("vmm-lite").chain(words.iter().copied()));
        args.map_err(|why| why.to_string())?.config().map_err(|why| why.to_string())
    }

    #[test]
    fn an_interface_is_told_to_the_guest() {
        let net = "socket=/run/a.sock,mac=02:00:00:00:00:0a,mtu=1400,address=10.0.0.1/24,address=fd00::1/64,gateway=10.0.0.254,gateway=fd00::fe";
        let config = parse(&["--cmdline", "quiet", "--net", net]).unwrap();
        let told = "quiet vnet.if=02:00:00:00:00:0a,eth0,10.0.0.1/24,fd00::1/64,gateway=10.0.0.254,gateway=fd00::fe,mtu=1400";
        assert_eq!(config.command_line, told);
        let (socket, mac) = ("/run/a.sock".into(), [2, 0, 0, 0, 0, 10]);
        let expected = NetConfig { socket, mac, mtu: Some(1400), queues: 1, link_up: true };
        assert_eq!(config.nets, [expected]);
        assert!(!parse(&["--net", "socket=a,mac=02:00:00:00:00:0a,link=down"]).unwrap().nets[0].link_up);
        assert_eq!(parse(&["--net", "socket=a,mac=02:00:00:00:00:0a"]).unwrap().command_line, "");
        let named = parse(&["--net", "socket=a,mac=02:00:00:00:00:0a,name=wan"]).unwrap();
        assert_eq!(named.command_line, "vnet.if=02:00:00:00:00:0a,wan");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, says) in [
            (["--net", "mac=02:00:00:00:00:0a"], "socket=PATH is missing"),
            (["--net", "socket=a,mac=03:00:00:00:00:0a"], "mac: six octets"),
            (["--net", "socket=a,mac=2:0:0:0:0:a"], "mac: six octets"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,mtu=67"], "mtu: 68 to 65535"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,link=1"], "link: up or down"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,speed=1"], "`speed` is none of"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,name=a b"], "name: 1 to 15"),
            (["--net", "socket=a,mac=00:00:00:00:00:00"], "mac: six octets"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,address=10.0.0.1/33"], "and not `10.0.0.1/33`"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,address=me/24"], "and not `me/24`"),
            (["--net", "socket"], "no KEY=VALUE"),
            (["--disk", "path=a,path=b"], "a disk is one image"),
            (["--console", "socket=a,foo=1"], "stdio, pty, none"),
            (["--disk", "a.img"], "neither path=IMAGE nor"),
            (["--disk", "write=true"], "path=IMAGE is missing"),
            (["--disk", "path=a,write=maybe"], "true or false"),
            (["--memory", "3M"], "whole pages"),
            (["--memory", "99999999999999999999G"], "whole pages"),
            (["--memory", "ä"], "whole pages"),
            (["--cpus", "17"], "1 to 16"),
            (["--console", "socket="], "stdio, pty, none"),
            (["--console", "socket=a,log="], "stdio, pty, none"),
            (["--probe", "stdio"], "none, or socket=PATH"),
            (["--probe", "socket=a,log=b"], "none, or socket=PATH"),
            (["--initrd", "a"], "--kernel"),
        ] {
            let why = parse(&words).unwrap_err();
            assert!(why.contains(says), "{words:?}: {why}");
        }
        let same = "socket=a,mac=02:00:00:00:00:0a";
        assert!(parse(&["--net", same, "--net", same]).unwrap_err().contains("02:00:00:00:00:0a"));
    }

    #[test]
    fn serial_ports_have_sockets() {
        let config = parse(&["--console", "socket=c.sock,log=c.log", "--probe", "socket=p.sock"]).unwrap();
        let console = ConsoleTarget::Socket { path: "c.sock".into(), log: Some("c.log".into()) };
        assert_eq!(config.console, console);
        assert_eq!(config.probe, ConsoleTarget::Socket { path: "p.sock".into(), log: None });
        assert_eq!(parse(&[]).unwrap().probe, ConsoleTarget::Nobody);
    }

    #[test]
    fn disks_are_private_unless_they_are_written() {
        let disks = parse(&["--disk", "path=a.img", "--disk", "write=true,path=b.img"]).unwrap().disks;
        let disk = |path: &str, write| DiskConfig { path: path.into(), write };
        assert_eq!(disks, [disk("a.img", false), disk("b.img", true)]);
    }

    #[test]
    fn sizes_have_units() {
        let ram = |text: &str| parse(&["--memory", text]).unwrap().ram.bytes();
        assert_eq!(
            [ram("4096K"), ram("512M"), ram("2G"), ram("8388608")],
            [4 << 20, 512 << 20, 2 << 30, 8 << 20]
        );
    }
}
