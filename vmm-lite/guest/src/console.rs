//! Lines on the console.

use crate::machine::CONSOLE;
use alloc::{string::String, vec::Vec};
use core::fmt;

/// Prints one line.
macro_rules! say {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// A line that is written without an allocator: it may be that which has panicked.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.bytes.len() {
                CONSOLE.send(&self.bytes);
                self.used = 0;
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Prints one line, in as few writes as it takes.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], used: 0 };
    // Formatting what we print does not fail, and writing to the line cannot.
    let _ = fmt::write(&mut line, text);
    let _ = fmt::Write::write_str(&mut line, "\r\n");
    CONSOLE.send(&line.bytes[..line.used]);
}

/// What is being typed.
#[derive(Default)]
pub(crate) struct Typed(Vec<u8>);

/// More than anybody types.
const LONGEST: usize = 1024;

impl Typed {
    /// The next whole line, if one was typed.
    pub(crate) fn next_line(&mut self) -> Option<String> {
        while let Some(byte) = CONSOLE.receive() {
            match byte {
                b'\r' | b'\n' => {
                    let line = String::from_utf8_lossy(&self.0).trim().into();
                    self.0.clear();
                    return Some(line);
                }
                _ if self.0.len() < LONGEST => self.0.push(byte),
                _ => {}
            }
        }
        None
    }
}
