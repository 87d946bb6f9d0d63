//! The asking side of the HTTP API: what every verb that needs a running lab goes through.

use super::{
    capture::CaptureReader,
    problem::Problem,
    types::{
        BenchRequest, CaptureRequest, ExecReply, ExecRequest, ExportRequest, ExportView, LabView,
        LinkRequest, LookRequest, TopologyFile, TraceRequest, TraceView, TransferReport, TransferRequest,
    },
    why::{WhyRequest, WhyView},
};
use crate::{
    failure::{Context, Exit, Failure},
    lab::{events::Event, sockets},
};
use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// How long a controller may take for a word. It does nothing that holds it up for as long.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How long a controller may take to say how things are.
const LOOKING: Duration = Duration::from_secs(15);

/// How long a controller may take to do something: a lab of guests under emulation comes up within this.
const ACTING: Duration = Duration::from_secs(900);

/// The API of one lab. Each request has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    lab: String,
}

impl Client {
    /// The API of `lab` on the Unix socket at `socket`.
    pub fn new(socket: &Path, lab: &str) -> Self {
        Self { socket: socket.to_owned(), lab: lab.into() }
    }

    /// The lab's name.
    pub fn lab(&self) -> &str {
        &self.lab
    }

    /// Brings the lab up.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn put(&self, file: &TopologyFile) -> Result<LabView, Failure> {
        self.json(Method::PUT, "", Some(file)).await
    }

    /// The lab at this moment, from a controller that answers at once.
    ///
    /// # Errors
    /// It does not.
    pub async fn answers(&self) -> Result<LabView, Failure> {
        let view = tokio::time::timeout(AT_ONCE, self.view()).await;
        view.unwrap_or_else(|_| Err(self.nobody(&format!("no answer within {AT_ONCE:?}"))))
    }

    /// The lab at this moment.
    ///
    /// # Errors
    /// The lab does not answer.
    pub async fn view(&self) -> Result<LabView, Failure> {
        self.json(Method::GET, "", None::<&()>).await
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn delete(&self) -> Result<LabView, Failure> {
        self.json(Method::DELETE, "", None::<&()>).await
    }

    /// `ports`, `nodes`, `exits`, `links`, `fdb`, `vlans`, `drops` or `datapath`.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn look<T: DeserializeOwned>(&self, view: &str) -> Result<T, Failure> {
        self.json(Method::GET, &format!("/{view}"), None::<&()>).await
    }

    /// `rules` or `connections`; of one node or `node:interface`, if one is given.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn look_at<T: DeserializeOwned>(
        &self,
        view: &str,
        LookRequest { interface }: &LookRequest,
    ) -> Result<T, Failure> {
        let query = interface.as_ref().map(|said| format!("?interface={}", escaped(said)));
        self.json(Method::GET, &format!("/{view}{}", query.unwrap_or_default()), None::<&()>).await
    }

    /// What is counted, in the text format of Prometheus.
    ///
    /// # Errors
    /// The lab does not answer.
    pub async fn metrics(&self) -> Result<String, Failure> {
        let bytes = self.whole(LOOKING, Method::GET, "/metrics", Bytes::new()).await?;
        String::from_utf8(bytes.into()).context("api", || "the metrics are no text".into())
    }

    /// `test` or `pingall`.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn act<T: DeserializeOwned>(&self, action: &str) -> Result<T, Failure> {
        self.json(Method::POST, &format!("/{action}"), None::<&()>).await
    }

    /// What becomes of a frame.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn trace(&self, request: &TraceRequest) -> Result<TraceView, Failure> {
        self.json(Method::POST, "/trace", Some(request)).await
    }

    /// What was recorded.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn why(&self, WhyRequest { src, dst, last }: &WhyRequest) -> Result<WhyView, Failure> {
        let given = [("src", src), ("dst", dst), ("last", last)];
        let given =
            given.iter().filter_map(|(key, value)| Some(format!("{key}={}", escaped(value.as_ref()?))));
        let query = given.collect::<Vec<_>>().join("&");
        self.json(Method::GET, &format!("/why?{query}"), None::<&()>).await
    }

    /// Runs a command in a node.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn exec(&self, request: &ExecRequest) -> Result<ExecReply, Failure> {
        self.json(Method::POST, "/exec", Some(request)).await
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// It cannot be set.
    pub async fn set_link(&self, request: &LinkRequest) -> Result<(), Failure> {
        self.json(Method::POST, "/link", Some(request)).await
    }

    /// Sends bytes from one node to another.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn transfer(&self, request: &TransferRequest) -> Result<TransferReport, Failure> {
        self.json(Method::POST, "/transfer", Some(request)).await
    }

    /// Measures between two ports.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn bench(&self, request: &BenchRequest) -> Result<bench::report::Report, Failure> {
        self.json(Method::POST, "/bench", Some(request)).await
    }

    /// What another VMM needs to attach.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn export(&self, request: &ExportRequest) -> Result<ExportView, Failure> {
        self.json(Method::POST, "/export", Some(request)).await
    }

    /// What happens, from event number `from` on.
    ///
    /// # Errors
    /// The lab does not answer.
    pub async fn events(&self, from: u64) -> Result<EventReader, Failure> {
        let body = self.request(Method::GET, &format!("/events?from={from}"), Bytes::new()).await?;
        Ok(EventReader { body, buffer: vec![] })
    }

    /// Captures frames of an interface, until the reader is dropped or the capture ends.
    ///
    /// # Errors
    /// As the lab says.
    pub async fn capture(&self, request: &CaptureRequest) -> Result<CaptureReader, Failure> {
        let body = serde_json::to_vec(request).context("api", || "the request".into())?;
        let answer = self.answer(Method::POST, "/capture", body.into()).await?;
        let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
        let number = location.and_then(|location| location.rsplit('/').next()?.parse().ok());
        let number =
            number.ok_or_else(|| Failure::failed("api", "the controller did not number the capture"))?;
        Ok(CaptureReader::new(number, answer.into_body()))
    }

    /// Ends a capture in order: what it has still comes, and its statistics.
    ///
    /// # Errors
    /// The lab does not answer.
    pub async fn end_capture(&self, number: u32) -> Result<(), Failure> {
        let path = format!("/capture/{number}");
        self.whole(LOOKING, Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).context("api", || "the request".into())?.into(),
            None => Bytes::new(),
        };
        let patience = if method == Method::GET { LOOKING } else { ACTING };
        let bytes = self.whole(patience, method, path, body).await?;
        serde_json::from_slice(&bytes).context("api", || "the controller's answer is not understood".into())
    }

    /// The whole body of a successful answer.
    async fn whole(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let answered = tokio::time::timeout(patience, async {
            let answer = self.request(method, path, body).await?;
            Ok(answer.collect().await.context("api", || self.broke_off())?.to_bytes())
        });
        answered.await.unwrap_or_else(|_| Err(self.nobody(&format!("no answer within {patience:?}"))))
    }

    /// The body of a successful answer, as it comes.
    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, Failure> {
        Ok(self.answer(method, path, body).await?.into_body())
    }

    /// A successful answer; a problem is a failure.
    async fn answer(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = sockets::connect(&self.socket)
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
            .and_then(UnixStream::from_std)
            .map_err(|error| self.nobody(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.nobody(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/labs/{}{path}", self.lab))
            .header(header::HOST, "vnet")
            .body(Full::new(body))
            .context("api", || format!("the request {path}"))?;
        let answer = sender.send_request(request).await.context("api", || self.broke_off())?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await.context("api", || self.broke_off())?.to_bytes();
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => problem.into(),
            Err(_) => Failure::failed("api", format!("the controller answered {status}")),
        })
    }

    fn nobody(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            Exit::NothingRunning,
            "not-running",
            format!("the controller of lab {} does not answer: {error}", self.lab),
        )
        .mend("see `vnet ls`; `vnet down` cleans up, `vnet up` starts anew")
    }

    fn broke_off(&self) -> String {
        format!("the controller of lab {} broke off (see `vnet logs controller`)", self.lab)
    }
}

/// A value as it stands in a query (RFC 3986 §2.1: all but the unreserved characters as `%` and two digits).
fn escaped(value: &str) -> String {
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let one = |byte: u8| {
        if unreserved(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    value.bytes().map(one).collect()
}

/// Events as they come.
#[derive(Debug)]
pub struct EventReader {
    body: Incoming,
    buffer: Vec<u8>,
}

impl EventReader {
    /// The next event; none when the lab ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                // An event of a later version that is not understood here is passed over.
                match serde_json::from_slice(&line) {
                    Ok(event) => return Some(event),
                    Err(_) => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}
