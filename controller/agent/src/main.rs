//! `vnet-agent TTY`: answers probes inside a Linux guest; for now it only says that it is ready.

use std::{env, error::Error, fs::OpenOptions, io::Write, thread};

fn main() -> Result<(), Box<dyn Error>> {
    let tty = env::args_os().nth(1).ok_or("usage: vnet-agent TTY")?;
    OpenOptions::new().write(true).open(tty)?.write_all(b"ready\n")?;
    loop {
        thread::park();
    }
}
