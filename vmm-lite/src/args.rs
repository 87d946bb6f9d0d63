//! The grammar of the command line.

use crate::{Config, ConsoleTarget, CpuCount, Kernel, NetConfig, layout::RamSize};
use clap::Parser;
use std::path::PathBuf;

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
    /// What the kernel is told.
    #[arg(long, env = "VNET_VMM_CMDLINE", value_name = "WORDS", default_value = "")]
    cmdline: String,
    /// How many vCPUs: 1 to 16.
    #[arg(long, env = "VNET_VMM_CPUS", value_name = "N", default_value = "1", value_parser = cpus)]
    cpus: CpuCount,
    /// How much memory: bytes, or with K, M or G.
    #[arg(long, env = "VNET_VMM_MEMORY", value_name = "SIZE", default_value = "64M", value_parser = memory)]
    memory: RamSize,
    /// Who is at the serial console: `stdio`, `pty`, `none`, or `socket=PATH`.
    #[arg(long, env = "VNET_VMM_CONSOLE", value_name = "WHERE", default_value = "stdio", value_parser = console)]
    console: ConsoleTarget,
    /// A network interface: socket=PATH,mac=MAC[,mtu=BYTES][,address=ADDRESS/LENGTH]... A bundled guest takes the
    /// addresses; others may read them from their command line (`vnet.if=`). May be repeated.
    #[arg(long, env = "VNET_VMM_NET", value_name = "KEYS", value_parser = net)]
    net: Vec<Net>,
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
            nets: self.net.into_iter().map(|net| net.config).collect(),
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
        _ => match text.strip_prefix("socket=") {
            Some(path) if !path.is_empty() => Ok(ConsoleTarget::Socket(path.into())),
            _ => Err("stdio, pty, none, or socket=PATH".into()),
        },
    }
}

/// An interface, with what the guest is told of it.
#[derive(Debug, Clone)]
struct Net {
    config: NetConfig,
    addresses: Vec<String>,
}

impl Net {
    /// `vnet.if=`, as vnet's guests read it; none if there is nothing to tell.
    fn word(&self, index: usize) -> Option<String> {
        let mut words = vec![mac_text(self.config.mac), format!("eth{index}")];
        words.extend(self.addresses.iter().cloned());
        words.extend(self.config.mtu.map(|mtu| format!("mtu={mtu}")));
        (words.len() > 2).then(|| format!("vnet.if={}", words.join(",")))
    }
}

fn net(text: &str) -> Result<Net, String> {
    let (mut socket, mut mac, mut mtu, mut addresses) = (None, None, None, Vec::new());
    for word in text.split(',') {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no KEY=VALUE"))?;
        match key {
            "socket" => socket = Some(PathBuf::from(value)),
            "mac" => mac = Some(mac_address(value).ok_or("mac: six octets of which the first is even")?),
            "mtu" => {
                let bytes = value.parse().ok().filter(|mtu| (68..=u16::MAX).contains(mtu));
                mtu = Some(bytes.ok_or("mtu: 68 to 65535")?);
            }
            "address" if value.contains('/') => addresses.push(value.to_owned()),
            "address" => return Err("address: ADDRESS/LENGTH".into()),
            _ => return Err(format!("`{key}` is none of socket, mac, mtu, address")),
        }
    }
    let socket = socket.ok_or("socket=PATH is missing")?;
    let mac = mac.ok_or("mac=MAC is missing")?;
    Ok(Net { config: NetConfig { socket, mac, mtu }, addresses })
}

/// A unicast MAC address.
fn mac_address(text: &str) -> Option<[u8; 6]> {
    let octets = text.split(':').map(|octet| {
        u8::from_str_radix(octet, 16).ok().filter(|_| octet.len() == 2 && !octet.starts_with('+'))
    });
    let octets: [u8; 6] = octets.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    (octets[0] & 1 == 0).then_some(octets)
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
        let net = "socket=/run/a.sock,mac=02:00:00:00:00:0a,mtu=1400,address=10.0.0.1/24,address=fd00::1/64";
        let config = parse(&["--cmdline", "quiet", "--net", net]).unwrap();
        let told = "quiet vnet.if=02:00:00:00:00:0a,eth0,10.0.0.1/24,fd00::1/64,mtu=1400";
        assert_eq!(config.command_line, told);
        let expected = NetConfig { socket: "/run/a.sock".into(), mac: [2, 0, 0, 0, 0, 10], mtu: Some(1400) };
        assert_eq!(config.nets, [expected]);
        assert_eq!(parse(&["--net", "socket=a,mac=02:00:00:00:00:0a"]).unwrap().command_line, "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, says) in [
            (["--net", "mac=02:00:00:00:00:0a"], "socket=PATH is missing"),
            (["--net", "socket=a,mac=03:00:00:00:00:0a"], "mac: six octets"),
            (["--net", "socket=a,mac=2:0:0:0:0:a"], "mac: six octets"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,mtu=67"], "mtu: 68 to 65535"),
            (["--net", "socket=a,mac=02:00:00:00:00:0a,speed=1"], "`speed` is none of"),
            (["--net", "socket"], "no KEY=VALUE"),
            (["--memory", "3M"], "whole pages"),
            (["--memory", "99999999999999999999G"], "whole pages"),
            (["--memory", "ä"], "whole pages"),
            (["--cpus", "17"], "1 to 16"),
            (["--console", "socket="], "stdio, pty, none"),
            (["--initrd", "a"], "--kernel"),
        ] {
            let why = parse(&words).unwrap_err();
            assert!(why.contains(says), "{words:?}: {why}");
        }
        let same = "socket=a,mac=02:00:00:00:00:0a";
        assert!(parse(&["--net", same, "--net", same]).unwrap_err().contains("02:00:00:00:00:0a"));
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
