//! The switches that can be measured: ports of a lab, which tells its cost, and sockets of any other one.

use crate::{
    api::{
        client::Client,
        types::{DatapathView, DropRow, NodeRow, PortRow},
    },
    failure::{Context, Exit, Failure},
    lab::sockets,
};
use bench::{Dropped, Switch, ringcopy::Work};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use std::{
    fs, io,
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Handle;
use vswitchd::control::protocol::PortState;

/// How long a switch may take to connect.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait looks whether it was interrupted.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Where a port's vhost-user socket is, and who listens there.
enum End {
    /// The switch does.
    Connect(PathBuf),
    /// We do.
    Listen(PathBuf, UnixListener),
}

impl Drop for End {
    fn drop(&mut self) {
        if let Self::Listen(path, _) = self {
            // Ours, made by `listen`; if somebody removed it before, all the better.
            let _ = fs::remove_file(path);
        }
    }
}

/// How long a VMM that was ended may take to leave its port: the benchmark before this one, most of all.
const LEAVING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a listener may take no connection.
const TAKEN: Duration = Duration::from_secs(5);

/// A switch behind sockets.
pub(crate) struct Ends {
    ends: Vec<End>,
    /// What the lab calls them.
    ports: Vec<String>,
    /// The lab that the ports belong to, and the runtime in which it is asked.
    lab: Option<(Client, Handle)>,
    cancel: Arc<AtomicBool>,
}

impl Ends {
    /// All ports of a lab that was made for this.
    pub(crate) async fn of_own_lab(
        api: Client,
        ports: usize,
        cancel: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let rows: Vec<PortRow> = api.look("ports").await?;
        let names: Vec<_> = (0..ports).map(|port| format!("p{port}:eth0")).collect();
        let end = |name: &String| {
            let row = rows.iter().find(|row| row.port == *name);
            let path = row.and_then(|row| row.socket.clone());
            path.map(End::Connect).ok_or_else(|| Failure::failed("bench", format!("no port {name} came up")))
        };
        let ends = names.iter().map(end).collect::<Result<_, _>>()?;
        Ok(Self { ends, ports: names, lab: Some((api, Handle::current())), cancel })
    }

    /// Two ports of a running lab.
    pub(crate) async fn between(
        api: Client,
        ports: &[String; 2],
        cancel: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let nodes: Vec<NodeRow> = api.look("nodes").await?;
        let deadline = Instant::now() + LEAVING;
        let found = loop {
            let rows: Vec<PortRow> = api.look("ports").await?;
            let found = ports.iter().map(|port| foreign_socket(port, &rows, &nodes));
            match found.collect::<Result<Vec<_>, _>>() {
                Err(failure) if failure.exit == Exit::Busy && Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                found => break found?,
            }
        };
        let (names, paths): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        if paths[0] == paths[1] {
            return Err(Failure::invalid("same-port", format!("{} twice", ports[0])).mend("say two ports"));
        }
        // Where nobody listens the switch is the one that connects.
        let end = |path: PathBuf| if is_socket(&path) { Ok(End::Connect(path)) } else { listen(path) };
        let ends = paths.into_iter().map(end).collect::<Result<_, _>>()?;
        Ok(Self { ends, ports: names, lab: Some((api, Handle::current())), cancel })
    }

    /// Two sockets of any switch.
    pub(crate) fn sockets(
        paths: &[PathBuf; 2],
        listens: bool,
        cancel: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let end = |path: &PathBuf| {
            if listens {
                listen(path.clone())
            } else if is_socket(path) {
                Ok(End::Connect(path.clone()))
            } else {
                Err(Failure::new(Exit::NothingRunning, "no-socket", format!("{}: no socket", path.display()))
                    .mend("start the switch first, or say --listen if it is the one that connects"))
            }
        };
        let ends = paths.iter().map(end).collect::<Result<_, _>>()?;
        Ok(Self { ends, ports: Vec::new(), lab: None, cancel })
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

fn listen(path: PathBuf) -> Result<End, Failure> {
    // One that a killed benchmark left is replaced.
    let listener = sockets::listen(&path)?;
    listener.set_nonblocking(true).context("socket", || path.display().to_string())?;
    Ok(End::Listen(path, listener))
}

/// The name and the socket of a port that waits for a VMM.
fn foreign_socket(port: &str, rows: &[PortRow], nodes: &[NodeRow]) -> Result<(String, PathBuf), Failure> {
    let named = |row: &&PortRow| row.port == port || row.port.split(':').next() == Some(port);
    let found: Vec<_> = rows.iter().filter(named).collect();
    let is_foreign = |row: &PortRow| {
        nodes.iter().any(|node| row.port.split(':').next() == Some(&node.node) && node.kind == "vhost-user")
    };
    let usable: Vec<_> = rows.iter().filter(|row| is_foreign(row)).map(|row| row.port.as_str()).collect();
    let mend = match usable.as_slice() {
        [] => "this lab has no node of kind `vhost-user`".into(),
        some => format!("there are: {}", some.join(", ")),
    };
    match found.as_slice() {
        [] => Err(Failure::invalid("no-such-port", format!("no port `{port}`")).mend(mend)),
        [row] if !is_foreign(row) => {
            let what = format!("{} has a guest of its own: the generator cannot be its VMM", row.port);
            Err(Failure::invalid("port-not-free", what).mend(mend))
        }
        [row] if row.state == PortState::Up => {
            let what = format!("a VMM is attached to {} already", row.port);
            Err(Failure::new(Exit::Busy, "port-not-free", what).mend("end it, or take another port"))
        }
        [row] => {
            let socket = row.socket.clone();
            let socket =
                socket.ok_or_else(|| Failure::invalid("no-socket", format!("{port} has no socket")))?;
            Ok((row.port.clone(), socket))
        }
        _ => Err(Failure::invalid("which-port", format!("`{port}` has several")).mend("say NODE:IF")),
    }
}

impl Switch for Ends {
    fn connect(&mut self, port: usize) -> io::Result<UnixStream> {
        match self.ends.get(port) {
            Some(End::Connect(path)) => connect(path, &self.cancel),
            Some(End::Listen(_, listener)) => accept(listener, &self.cancel),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn name(&self, port: usize) -> String {
        match self.ends.get(port) {
            Some(End::Connect(path) | End::Listen(path, _)) => path.display().to_string(),
            None => format!("port {port}"),
        }
    }

    fn cpus(&mut self) -> Option<Vec<Option<u16>>> {
        Some(self.datapath()?.workers.iter().map(|worker| worker.cpu).collect())
    }

    fn work(&mut self) -> Option<Work> {
        let view = self.datapath()?;
        let sum = |of: fn(&vswitchd::control::protocol::WorkerView) -> u64| view.workers.iter().map(of).sum();
        Some(Work { frames: sum(|worker| worker.frames), busy_cycles: sum(|worker| worker.busy_cycles) })
    }

    fn sleeps(&mut self) -> Option<u64> {
        Some(self.datapath()?.workers.iter().map(|worker| worker.sleeps).sum())
    }

    fn dropped(&mut self) -> Option<Vec<Dropped>> {
        let (api, runtime) = self.lab.as_ref()?;
        let rows: Vec<DropRow> = runtime.block_on(api.look("drops")).ok()?;
        let ours = rows.into_iter().filter(|row| self.ports.contains(&row.port));
        Some(
            ours.map(|row| Dropped { port: row.port, reason: row.reason.to_string(), frames: row.frames })
                .collect(),
        )
    }

    fn refused(&mut self) -> Option<u64> {
        self.datapath().map(|view| view.fdb.refused)
    }

    fn flooded(&mut self) -> Option<u64> {
        let (api, runtime) = self.lab.as_ref()?;
        let ports: Vec<PortRow> = runtime.block_on(api.look("ports")).ok()?;
        // Gateways announce themselves: that is no frame of the generator's.
        let ours = ports.iter().filter(|row| self.ports.contains(&row.port));
        Some(ours.map(|row| row.counters.from_port.flooded).sum())
    }
}

impl Ends {
    fn datapath(&self) -> Option<DatapathView> {
        let (api, runtime) = self.lab.as_ref()?;
        runtime.block_on(api.look("datapath")).ok()
    }
}

/// Connects, without waiting for ever where the listener has as many waiting connections as it bears and takes none.
fn connect(path: &Path, cancel: &AtomicBool) -> io::Result<UnixStream> {
    let (address, _folder) = sockets::socket_address(path).map_err(io::Error::other)?;
    let address = SocketAddrUnix::new(&address)?;
    let end = Instant::now() + TAKEN;
    loop {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::AGAIN) if cancel.load(Ordering::Relaxed) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // Nothing tells when there is room (connect(2): EAGAIN of a Unix socket).
            Err(Errno::AGAIN) if Instant::now() < end => std::thread::sleep(LOOK_AGAIN),
            Err(Errno::AGAIN) => {
                let why = format!("its listener took no connection within {} s", TAKEN.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn accept(listener: &UnixListener, cancel: &AtomicBool) -> io::Result<UnixStream> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && !cancel.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK))?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no switch connected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_end_leaves_no_socket_and_a_missing_one_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        let cancel = Arc::new(AtomicBool::new(false));
        let failure = Ends::sockets(&paths, false, cancel.clone()).err().expect("nobody listens");
        assert!(
            failure.exit == Exit::NothingRunning && failure.to_string().contains("--listen"),
            "{failure}"
        );
        let mut ends = Ends::sockets(&paths, true, cancel.clone()).expect("free paths");
        let _switch = UnixStream::connect(&paths[0]).expect("it listens");
        assert!(ends.connect(0).is_ok() && ends.work().is_none() && ends.cpus().is_none());
        assert_eq!(ends.name(1), paths[1].display().to_string());
        cancel.store(true, Ordering::Relaxed);
        assert!(ends.connect(1).expect_err("interrupted").to_string().contains("no switch connected"));
        drop(ends);
        assert!(paths.iter().all(|path| !path.exists()));
        let stale = UnixListener::bind(&paths[0]).expect("a free path");
        let failure = Ends::sockets(&paths, true, cancel.clone()).err().expect("somebody listens there");
        assert!(failure.exit == Exit::Busy && failure.mend.is_some(), "{failure}");
        drop(stale);
        assert!(Ends::sockets(&paths, true, cancel.clone()).is_ok(), "nobody does any more");
        let long = folder.path().join("n".repeat(200));
        let failure = Ends::sockets(&[long, paths[1].clone()], true, cancel).err().expect("too long");
        assert!(failure.message.contains("at most 107") && failure.mend.is_some(), "{failure}");
    }

    #[test]
    fn a_listener_that_takes_no_connection_does_not_hold_up_an_interrupt() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("full");
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).expect("short")).expect("free");
        // Room for one that waits.
        rustix::net::listen(&socket, 0).expect("it listens");
        let cancel = AtomicBool::new(true);
        let _waits = connect(&path, &cancel).expect("there is room");
        assert_eq!(connect(&path, &cancel).expect_err("none is left").kind(), io::ErrorKind::Interrupted);
    }
}
