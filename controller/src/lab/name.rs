//! The name of a lab. It is the name of its folder too, so what could lead out of the runtime folder is no name.

use crate::failure::Failure;
use std::{fmt, str::FromStr};

/// The longest name: that of a file (31 bytes) with `-test-` and a process id fits.
const LONGEST: usize = 63;

/// A name as the topology file has them, `[a-z][a-z0-9-]*`, of up to 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

impl LabName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        if begins_well && text.len() <= LONGEST && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        let rule = format!(
            "a lab's name is up to {LONGEST} lower-case letters, digits and dashes, and begins with a letter"
        );
        Err(Failure::invalid("lab-name", format!("`{}` cannot be a lab's name: {rule}", text.escape_debug())))
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_word_that_leads_nowhere() {
        for good in ["office", "a", "hello-test-4194304", &"n".repeat(63)] {
            assert_eq!(good.parse::<LabName>().unwrap().as_str(), good);
        }
        for bad in
            ["", ".", "..", "/etc", "a/b", "../a", ".ssh", "-a", "1a", "A", "a b", "a\0", &"n".repeat(64)]
        {
            assert_eq!(bad.parse::<LabName>().unwrap_err().code, "lab-name", "{bad:?}");
        }
    }
}
