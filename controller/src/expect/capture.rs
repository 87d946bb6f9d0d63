//! Captures: which port of the switch is meant, and the socket through which its frames come.

use super::run::Running;
use crate::{
    api::{capture::Capturing, types::CaptureRequest},
    failure::{Context, Exit, Failure},
};
use std::os::{fd::AsFd, unix::net::UnixStream};
use vswitch_core::head::MAX_FRAME_LEN;
use vswitchd::control::{client::ClientError, protocol::CaptureSettings};

impl Running {
    /// Begins to capture frames of an interface.
    ///
    /// # Errors
    /// There is no such interface, or the switch refuses.
    pub async fn capture(&self, request: CaptureRequest) -> Result<Capturing, Failure> {
        let said = &request.interface;
        let routers = self.plan.routers().filter(|port| port.node == *said || port.name() == *said);
        let port = match routers {
            Some(routers) => routers.id,
            None => self.interface(said)?.1.port,
        };
        let settings = CaptureSettings {
            port,
            filter: request.filter,
            snap_len: request.snap_len.unwrap_or(MAX_FRAME_LEN),
            count: request.count,
            seconds: request.seconds,
        };
        let doing = || "a socket for the capture".into();
        let (file, theirs) = UnixStream::pair().context("capture", doing)?;
        let begun = self.switch(move |client| match client.capture(settings, theirs.as_fd()) {
            Err(ClientError::Refused(why)) => Ok(Err(why)),
            begun => begun.map(Ok),
        });
        let number = begun.await?.map_err(|why| Failure::new(Exit::Busy, "capture", why))?;
        file.set_nonblocking(true).context("capture", doing)?;
        Ok(Capturing { number, file: tokio::net::UnixStream::from_std(file).context("capture", doing)? })
    }
}
