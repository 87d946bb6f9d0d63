//! `vnet capture`: the frames of an interface, into a file or as lines.

mod line;

use super::{args::CaptureArgs, interrupt::Interrupts, labs::api, out};
use crate::{
    api::types::CaptureRequest,
    failure::{Context, Failure},
    lab::name::LabName,
};
use line::Lines;
use pcap_parser::{Block, OptionCode, parse_block_le, pcapng::PcapNGOption};
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};
use vswitch_core::filter::{Filter, FilterError};

/// What a capture amounts to.
#[derive(Default)]
struct Amount {
    frames: u64,
    /// Frames that were not captured: known when the file is whole.
    missed: Option<u64>,
}

/// Where a capture goes.
enum Sink {
    File(File, PathBuf),
    Stdout,
    Lines(Lines),
}

/// Captures until it is interrupted, has what was asked for, or breaks off.
pub(super) async fn capture(name: Option<&LabName>, args: CaptureArgs) -> Result<(), Failure> {
    let filter: Filter =
        args.filter.join(" ").parse().map_err(|why: FilterError| Failure::invalid("filter", why))?;
    let mut sink = Sink::of(args.write.as_deref())?;
    let request = CaptureRequest {
        interface: args.interface,
        filter,
        snap_len: args.snaplen,
        count: args.count,
        seconds: args.seconds,
    };
    let api = api(name)?;
    let mut interrupts = Interrupts::new()?;
    let mut reader = api.capture(&request).await?;
    out::note(format_args!("capturing {}; Ctrl-C ends it", request.interface));
    let (mut amount, mut ending) = (Amount::default(), false);
    loop {
        tokio::select! {
            blocks = reader.next() => {
                let Some(blocks) = blocks else { break };
                for_each_block(&blocks, |block| {
                    amount.count(block);
                    sink.show(block);
                });
                sink.write(&blocks)?;
                // Nobody reads any more.
                if out::is_lost() {
                    return Ok(());
                }
            }
            () = interrupts.next() => {
                // The second time without waiting for the rest.
                if std::mem::replace(&mut ending, true) {
                    break;
                }
                api.end_capture(reader.number).await?;
            }
        }
    }
    amount.tell();
    if amount.missed.is_some() || ending {
        return Ok(());
    }
    let broke_off = format!("the capture of {} broke off: its switch ended", request.interface);
    Err(Failure::failed("capture", broke_off)
        .mend("what was captured is whole; `vnet ls` says whether the lab is up"))
}

/// Reads whole blocks; one that makes no sense hides those behind it.
fn for_each_block(mut blocks: &[u8], mut see: impl FnMut(&Block<'_>)) {
    while let Ok((rest, block)) = parse_block_le(blocks) {
        see(&block);
        blocks = rest;
    }
}

impl Amount {
    fn count(&mut self, block: &Block<'_>) {
        match block {
            Block::EnhancedPacket(_) => self.frames += 1,
            // isb_osdrop (draft-ietf-opsawg-pcapng §4.6).
            Block::InterfaceStatistics(statistics) => {
                let missed = value(&statistics.options, 7).and_then(|value| value.try_into().ok());
                self.missed = Some(missed.map_or(0, u64::from_le_bytes));
            }
            _ => {}
        }
    }

    fn tell(&self) {
        out::note(format_args!("{} frames captured", grouped(self.frames)));
        if let Some(missed @ 1..) = self.missed {
            let missed = grouped(missed);
            out::note(format_args!("{missed} frames not captured: they came faster than they were read"));
        }
    }
}

/// An option's value.
fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
    let option = options.iter().find(|option| option.code == OptionCode(code))?;
    option.value.get(..usize::from(option.len))
}

/// `4812` as `4,812`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

impl Sink {
    fn of(write: Option<&Path>) -> Result<Self, Failure> {
        match write {
            None => Ok(Self::Lines(Lines::default())),
            Some(path) if path == Path::new("-") => {
                if io::stdout().is_terminal() {
                    return Err(Failure::invalid("usage", "a terminal shows no pcapng")
                        .mend("pipe it on (`| wireshark -k -i -`), name a file, or leave -w out"));
                }
                Ok(Self::Stdout)
            }
            Some(path) => {
                let file = File::create(path).context("output", || path.display().to_string())?;
                Ok(Self::File(file, path.to_owned()))
            }
        }
    }

    /// Prints a block, where people read.
    fn show(&mut self, block: &Block<'_>) {
        if let Self::Lines(lines) = self
            && let Some(line) = lines.line(block)
        {
            out::say(line);
        }
    }

    /// Writes blocks, where programs read.
    fn write(&mut self, blocks: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file, path) => {
                file.write_all(blocks).context("output", || format!("{} cannot be written", path.display()))
            }
            Self::Stdout => {
                out::bytes(blocks);
                Ok(())
            }
            Self::Lines(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vswitchd::capture::pcapng::{self, Interface, Packet, Way};

    #[test]
    fn a_file_that_takes_nothing_is_named() {
        let mut sink = Sink::of(Some(Path::new("/dev/full"))).expect("it opens");
        let failure = sink.write(&[0; 8]).expect_err("it is full");
        assert!(failure.message.starts_with("/dev/full cannot be written: "), "{failure}");
    }

    #[test]
    fn what_was_missed_is_known_at_the_end_and_numbers_can_be_read() {
        let mut file = Vec::new();
        pcapng::begin(&mut file, &Interface { name: "h1:eth0".into(), filter: String::new(), snap_len: 100 });
        let packet = Packet {
            at: Duration::ZERO,
            bytes: &[1; 14],
            len: 14,
            way: Way::Inbound,
            missed: 0,
            comment: None,
        };
        (0..3).for_each(|_| pcapng::packet(&mut file, &packet));
        let mut amount = Amount::default();
        for_each_block(&file, |block| amount.count(block));
        assert_eq!((amount.frames, amount.missed), (3, None));
        let mut end = Vec::new();
        pcapng::end(&mut end, Duration::ZERO, 3, 4812);
        for_each_block(&end, |block| amount.count(block));
        assert_eq!((amount.frames, amount.missed), (3, Some(4812)));
        let all = [0, 12, 123, 1234, 123_456, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }
}
