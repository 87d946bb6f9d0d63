//! A vhost-user device that falls silent.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    thread,
};

/// Requests of vhost-user that are answered here.
const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_FEATURES: u32 = 2;
/// VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES; VHOST_USER_PROTOCOL_F_REPLY_ACK.
const FEATURES: u64 = 1 << 32 | 1 << 30;
const REPLY_ACK: u64 = 1 << 3;
/// Version 1, and a reply.
const REPLY: u32 = 1 | 1 << 2;

/// A vhost-user device that says what it offers, and nothing more from when it is told of the first guest's features; with
/// `mute`, nothing at all. It ends when the other side hangs up.
pub(crate) fn silent(mute: bool) -> (tempfile::TempDir, PathBuf, thread::JoinHandle<Vec<u32>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("switch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let device = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut heard, mut header) = (Vec::new(), [0; 12]);
        while stream.read_exact(&mut header).is_ok() {
            let field = |at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            let (request, size) = (field(0), field(8));
            std::io::copy(&mut (&stream).take(size.into()), &mut std::io::sink()).unwrap();
            heard.push(request);
            let answer = match request {
                GET_FEATURES => FEATURES,
                GET_PROTOCOL_FEATURES => REPLY_ACK,
                _ => continue,
            };
            if !mute {
                let reply = [request, REPLY, 8].map(u32::to_le_bytes).concat();
                stream.write_all(&[reply, answer.to_le_bytes().to_vec()].concat()).unwrap();
            }
        }
        heard
    });
    (folder, path, device)
}
