//! How a test says what it lacks, instead of passing in silence.

use std::io::Write as _;

/// Says what a test needs and this machine lacks: to whoever reads its output, and to `./check`, which counts it.
pub(crate) fn left_out(what: &str) {
    eprintln!("LEFT OUT: {what}");
    if let Some(list) = std::env::var_os("VNET_LEFT_OUT") {
        let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}
