//! `far FOLDER`: what tests reach by a way out, on all addresses of both families. Port 80 has FOLDER/file, port 9 puts what it gets into
//! FOLDER/received, and UDP ports 7 and 53 say what they hear; every name that is asked for at port 53 has the address 192.0.2.99. It says `ready` when it listens, and ends with its standard input.

use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    thread,
};

/// A question for one name is answered (RFC 1035 §4.1), and all else is said again.
fn answer(heard: &[u8]) -> Vec<u8> {
    let [a, b, _, _, 0, 1, 0, 0, 0, 0, _, _, question @ ..] = heard else { return heard.to_vec() };
    let name = question.iter().position(|byte| *byte == 0).unwrap_or(0);
    let question = question.get(..name + 5).unwrap_or(question);
    let is_ipv4 = question.ends_with(&[0, 1, 0, 1]);
    // Of IPv6 there is none.
    let record: &[u8] = if is_ipv4 { &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99] } else { &[] };
    [&[*a, *b, 0x81, 0x80, 0, 1, 0, is_ipv4.into(), 0, 0, 0, 0], question, record].concat()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("far FOLDER")?);
    let (web, sink) = (TcpListener::bind("[::]:80")?, TcpListener::bind("[::]:9")?);
    let echoes = [UdpSocket::bind("[::]:7")?, UdpSocket::bind("[::]:53")?];
    println!("ready");
    let (file, received) = (folder.join("file"), folder.join("received"));
    for echo in echoes {
        thread::spawn(move || {
            let mut heard = [0; 65_536];
            while let Ok((len, from)) = echo.recv_from(&mut heard) {
                // Who is gone hears nothing.
                let _ = echo.send_to(&answer(&heard[..len]), from);
            }
        });
    }
    thread::spawn(move || {
        while let Ok((mut stream, _)) = sink.accept() {
            let taken = File::create(&received).and_then(|mut file| io::copy(&mut stream, &mut file));
            if let Err(why) = taken {
                eprintln!("{why}");
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = web.accept() {
            // Nobody asks: somebody only saw whether it is there.
            let Ok(1..) = BufReader::new(&stream).read_line(&mut String::new()) else { continue };
            let told = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
            let told = told.and_then(|()| io::copy(&mut File::open(&file)?, &mut stream));
            if let Err(why) = told {
                eprintln!("{why}");
            }
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
