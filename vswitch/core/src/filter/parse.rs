//! From the words of a filter to what they ask.
//!
//! ```text
//! tests = test { ("and" | "or") test }         equally strong, from left to right, as pcap-filter(7) has it
//! test  = ("not" | "!") test | "(" tests ")" | primitive
//! ```

use super::{Primitive, Test};
use std::{error::Error, fmt, iter::Peekable, str::FromStr, vec};

/// The longest text that is read, and how deep it may nest: what is deeper is no person's.
const MAX_BYTES: usize = 2048;
const MAX_DEPTH: usize = 32;

const KNOWN: &str = "arp, icmp, icmp6, ip, ip6, tcp, udp, port N, host ADDRESS, ether host MAC, vlan N, \
                     combined by and, or, not and parentheses";

/// Why a text is no filter, in a sentence that says what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for FilterError {}

fn wrong(what: impl fmt::Display) -> FilterError {
    FilterError(format!("{what}; a filter knows {KNOWN}"))
}

/// What `text` asks; none if it says nothing.
pub(super) fn parse(text: &str) -> Result<Option<Test>, FilterError> {
    if text.len() > MAX_BYTES {
        return Err(FilterError(format!("a filter has at most {MAX_BYTES} bytes, and not {}", text.len())));
    }
    let mut words = Words(words(text).into_iter().peekable());
    if words.0.peek().is_none() {
        return Ok(None);
    }
    let test = words.tests(0)?;
    match words.0.next() {
        None => Ok(Some(test)),
        Some(")") => Err(wrong("`)` closes nothing")),
        Some(word) => Err(wrong(format_args!("before `{word}` there is neither `and` nor `or`"))),
    }
}

/// Words, and the signs that need no space around them.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for piece in text.split_whitespace() {
        let mut rest = piece;
        while let Some(at) = rest.find(['(', ')', '!']) {
            let (before, sign) = rest.split_at(at);
            words.extend(Some(before).filter(|before| !before.is_empty()));
            words.push(&sign[..1]);
            rest = &sign[1..];
        }
        words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    }
    words
}

/// The words that were not read yet.
struct Words<'a>(Peekable<vec::IntoIter<&'a str>>);

impl Words<'_> {
    fn tests(&mut self, depth: usize) -> Result<Test, FilterError> {
        let mut left = self.test(depth)?;
        loop {
            let join = match self.0.peek().copied() {
                Some("and" | "&&") => Test::Both,
                Some("or" | "||") => Test::Either,
                _ => return Ok(left),
            };
            self.0.next();
            left = join(Box::new([left, self.test(depth)?]));
        }
    }

    fn test(&mut self, depth: usize) -> Result<Test, FilterError> {
        if depth > MAX_DEPTH {
            return Err(wrong(format_args!("it nests more than {MAX_DEPTH} times")));
        }
        match self.0.next() {
            Some("not" | "!") => Ok(Test::Not(Box::new(self.test(depth + 1)?))),
            Some("(") => {
                let inner = self.tests(depth + 1)?;
                match self.0.next() {
                    Some(")") => Ok(inner),
                    Some(word) => Err(wrong(format_args!("`{word}` stands where `)` is missing"))),
                    None => Err(wrong("`)` is missing")),
                }
            }
            Some(word) => self.primitive(word),
            None => Err(wrong("it ends where a test must follow")),
        }
    }

    fn primitive(&mut self, word: &str) -> Result<Test, FilterError> {
        let protocol = match word {
            "arp" => Primitive::Arp,
            "icmp" => Primitive::Icmp,
            "icmp6" => Primitive::Icmp6,
            "ip" => Primitive::Ip,
            "ip6" => Primitive::Ip6,
            "tcp" => Primitive::Tcp,
            "udp" => Primitive::Udp,
            _ => return self.with_value(word).map(Test::Is),
        };
        // `tcp port 80`, `ip host 10.0.0.1`: both.
        let qualifies = match protocol {
            Primitive::Tcp | Primitive::Udp => "port",
            _ => "host",
        };
        match self.0.next_if_eq(&qualifies) {
            Some(word) => Ok(Test::Both(Box::new([protocol, self.with_value(word)?].map(Test::Is)))),
            None => Ok(Test::Is(protocol)),
        }
    }

    fn with_value(&mut self, word: &str) -> Result<Primitive, FilterError> {
        match word {
            "port" => self.value("port", "a number from 0 to 65535").map(Primitive::Port),
            "host" => self.value("host", "an IPv4 or IPv6 address").map(Primitive::Host),
            "ether" => match self.0.next() {
                Some("host") => self.value("ether host", "a MAC address").map(Primitive::EtherHost),
                _ => Err(wrong("behind `ether` stands `host`")),
            },
            "vlan" => Ok(Primitive::Vlan(self.vlan()?)),
            other => Err(wrong(format_args!("`{other}` is not known here"))),
        }
    }

    /// The identifier behind `vlan`, which need not be there.
    fn vlan(&mut self) -> Result<Option<u16>, FilterError> {
        let number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        match self.0.next_if(number) {
            None => Ok(None),
            Some(word) => match word.parse() {
                Ok(id @ 0..=4095) => Ok(Some(id)),
                _ => Err(wrong(format_args!("`vlan {word}`: an identifier is a number from 0 to 4095"))),
            },
        }
    }

    fn value<T: FromStr>(&mut self, of: &str, what: &str) -> Result<T, FilterError> {
        match self.0.next() {
            Some(word) => {
                word.parse().map_err(|_| wrong(format_args!("behind `{of}` stands {what}, and not `{word}`")))
            }
            None => Err(wrong(format_args!("behind `{of}` stands {what}"))),
        }
    }
}
