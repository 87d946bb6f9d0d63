//! The requests of the protocol, each family in a file of its own, and who carries them out.

mod bulk;
mod contact;
mod exec;
mod ping;
mod resolve;

use crate::{interfaces, origin::system, raw_frames::RawFrames, services::Services};
use probe::{
    Answer, Request, VERSION,
    answer::{Ready, Refusal},
};
use rustix::system::uname;

/// All that outlives a single request.
#[derive(Default)]
pub(crate) struct Agent {
    services: Services,
    raw_frames: RawFrames,
}

impl Agent {
    /// With the echo services open that every guest has.
    pub(crate) fn start() -> Self {
        let agent = Self::default();
        agent.services.start();
        agent
    }

    /// Carries a request out, to its end.
    pub(crate) fn answer(&self, request: Request) -> Answer {
        let answer = match request {
            Request::Hello(hello) if hello.version == VERSION => Ok(Answer::Ready(ready())),
            Request::Hello(_) => Err(Refusal::OtherVersion(VERSION)),
            Request::Report => {
                interfaces::report().map(Answer::Report).map_err(|error| system("list the interfaces", error))
            }
            Request::Ping(ask) => ping::ping(&ask),
            Request::Connect(ask) => contact::connect(ask),
            Request::UdpEcho(ask) => contact::udp_echo(&ask),
            Request::Listen(service) => self.services.listen(service),
            Request::Unlisten(service) => self.services.unlisten(service),
            Request::Resolve(ask) => resolve::resolve(ask),
            Request::SendFrame(ask) => self.raw_frames.send(&ask),
            Request::Expect(marker) => self.raw_frames.expect(marker),
            Request::ReceivedFrames(marker) => self.raw_frames.received(&marker),
            Request::Serve { port } => self.services.serve(port),
            Request::Served { port } => self.services.served(port),
            Request::Send(ask) => bulk::send(ask),
            Request::Exec(ask) => exec::exec(&ask),
            Request::Shutdown => Ok(Answer::Done),
        };
        answer.unwrap_or_else(Answer::Refused)
    }
}

/// Who this is: the host's name and its interfaces. Without a list of these it is still ready to be asked.
pub(crate) fn ready() -> Ready {
    let interfaces = interfaces::list().unwrap_or_default();
    Ready {
        version: VERSION,
        name: uname().nodename().to_string_lossy().into_owned(),
        interfaces: interfaces.into_iter().map(interfaces::Interface::name).collect(),
    }
}
