//! `ask SOCKET WORD...`: a line to a Unix socket, and the line that answers; for guests whose shell knows no such sockets.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut stream = UnixStream::connect(arguments.next().ok_or("ask SOCKET WORD...")?)?;
    writeln!(stream, "{}", arguments.collect::<Vec<_>>().join(" "))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    print!("{answer}");
    Ok(())
}
