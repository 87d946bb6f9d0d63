//! Both ends of the API over a real Unix socket, with a lab that only pretends.

use super::{
    capture::Capturing,
    client::Client,
    problem::MEDIA_TYPE,
    server::{CLIENTS, OwnersOnly, Question, REQUEST, Service, router, serve as serve_until},
    types::{
        CaptureRequest, ExecReply, ExecRequest, LabState, LabView, LookRequest, TopologyFile, TransferEnd,
        TransferReport, TransferRequest,
    },
    why::{WhyRequest, WhySpan, WhyView},
};
use crate::{
    failure::{Exit, Failure},
    lab::{
        events::{Events, What},
        sockets,
    },
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::Instant,
};

/// A block of pcapng, of a type that does not exist.
const BLOCK: [u8; 12] = [99, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0];

/// A lab that answers without doing anything.
#[derive(Clone, Default)]
struct Pretender {
    events: Events,
}

fn view() -> LabView {
    let state = LabState::Running;
    LabView {
        lab: "office".into(),
        file: None,
        state,
        pid: 1,
        nodes: 2,
        ports: 3,
        switch_restarts: 0,
        events: 0,
    }
}

fn transferred(request: &TransferRequest) -> TransferReport {
    // More than a double holds, as JSON's numbers are in other languages: both ends here keep it whole.
    let end = TransferEnd { bytes: request.bytes, checksum: u64::MAX - 1 };
    TransferReport {
        src: request.src.clone(),
        dst: request.dst.clone(),
        address: [10, 0, 0, 2].into(),
        sent: end,
        received: end,
        elapsed_micros: 1,
        segments_sent: Some(47_000),
        segments_retransmitted: None,
    }
}

impl Service for Pretender {
    fn name(&self) -> &str {
        "office"
    }

    async fn put(&self, file: TopologyFile) -> Result<LabView, Failure> {
        if file.text.is_empty() {
            return Err(Failure::new(Exit::Busy, "lab-changed", "not supported yet: down and up")
                .mend("run `vnet down`, then `vnet up`"));
        }
        self.events.tell(What::Starting { file: file.name });
        self.events.tell(What::Ready);
        Ok(view())
    }

    async fn view(&self) -> LabView {
        view()
    }

    async fn delete(&self) -> Result<LabView, Failure> {
        self.events.close();
        Ok(view())
    }

    async fn ask(&self, question: Question) -> Result<Value, Failure> {
        match question {
            Question::Export(request) => Ok(json!(request)),
            Question::Exec(request) => Ok(json!(ExecReply {
                status: 0,
                stdout: request.command.join(" ").into(),
                stderr: Vec::new(),
                cut: 0,
                timed_out_after: None
            })),
            Question::Transfer(request) => Ok(json!(transferred(&request))),
            Question::Why(request) => Ok(json!(WhyView {
                about: format!("{request:?}"),
                last_bits: false,
                span: WhySpan { asked_millis: 1, held_millis: 2, since_start: true, capped: 0 },
                groups: vec![],
                left_out: 0,
            })),
            other => Ok(json!(format!("{other:?}"))),
        }
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Capturing, Failure> {
        let (mut ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        // Two blocks in three pieces; then the file goes on until its reader goes.
        let events = self.events.clone();
        tokio::spawn(async move {
            for piece in [&BLOCK[..5], &BLOCK[5..], &BLOCK[..]] {
                ours.write_all(piece).await.unwrap();
            }
            let read = ours.read(&mut [0]).await.unwrap();
            events.tell(What::Note { text: format!("{} is captured no more: {read}", request.interface) });
        });
        Ok(Capturing { number: 7, file: theirs })
    }

    async fn end_capture(&self, number: u32) -> Result<(), Failure> {
        self.events.tell(What::Note { text: format!("capture {number} ends") });
        Ok(())
    }

    async fn metrics(&self) -> Result<String, Failure> {
        Ok("vnet_build_info 1\n".into())
    }

    fn events(&self) -> Events {
        self.events.clone()
    }
}

fn serve() -> (TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listener = sockets::listen(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = OwnersOnly(tokio::net::UnixListener::from_std(listener).unwrap());
    tokio::spawn(serve_until(listener, router(Pretender::default()), std::future::pending()));
    (folder, Client::new(&socket, "office"))
}

fn file(text: &str) -> TopologyFile {
    TopologyFile { text: text.into(), name: "office.vnet.yaml".into(), base: "/".into(), private_copy: false }
}

#[tokio::test]
async fn a_lab_comes_up_is_looked_at_and_goes_down() {
    let (_folder, client) = serve();
    assert_eq!(client.put(&file("version: 1")).await.unwrap(), view());
    for name in ["ports", "nodes", "exits", "links", "fdb", "vlans", "drops", "datapath"] {
        assert_eq!(client.look::<String>(name).await.unwrap().to_lowercase(), name);
    }
    assert_eq!(client.metrics().await.unwrap(), "vnet_build_info 1\n");
    assert_eq!(client.act::<String>("test").await.unwrap(), "Test");
    assert_eq!(client.act::<String>("pingall").await.unwrap(), "Pingall");
    let request = ExecRequest { node: "pc1".into(), command: vec!["uname".into(), "-r".into()] };
    assert_eq!(client.exec(&request).await.unwrap().stdout, b"uname -r");
    // What is answered here is no report, and what is asked came through.
    let request = serde_json::from_value(json!({ "between": ["a", "b"], "macs": 7 })).unwrap();
    assert_eq!(client.bench(&request).await.unwrap_err().code, "api");
    let request = TransferRequest { src: "pc1".into(), dst: "pc2".into(), bytes: 64 << 20 };
    assert_eq!(client.transfer(&request).await.unwrap(), transferred(&request));
    client.delete().await.unwrap();
}

#[tokio::test]
async fn what_is_asked_in_a_query_arrives_as_it_was_said() {
    let (_folder, client) = serve();
    let request = WhyRequest { src: Some("a&dst=b c%/ü".into()), dst: None, last: Some("5m".into()) };
    let view = client.why(&request).await.unwrap();
    assert_eq!(view.about, format!("{request:?}"));
    for interface in [None, Some("web1:eth0&a=b".into())] {
        let request = LookRequest { interface };
        let asked = client.look_at::<String>("rules", &request).await.unwrap();
        assert_eq!(asked, format!("Rules({request:?})"));
    }
}

#[tokio::test]
async fn a_problem_keeps_code_exit_and_help_across_the_wire() {
    let (_folder, client) = serve();
    let failure = client.put(&file("")).await.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Busy, "lab-changed"));
    assert_eq!(failure.mend.as_deref(), Some("run `vnet down`, then `vnet up`"));
    let failure = client.look::<Value>("nonsense").await.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::NothingRunning, "no-such-resource"));
}

#[tokio::test]
async fn another_lab_is_not_here_and_a_missing_socket_is_nothing_running() {
    let (folder, _client) = serve();
    let other = Client::new(&folder.path().join("api.sock"), "elsewhere");
    assert_eq!(other.view().await.unwrap_err().exit, Exit::NothingRunning);
    let nowhere = Client::new(&folder.path().join("nothing.sock"), "office");
    assert_eq!(nowhere.view().await.unwrap_err().code, "not-running");
}

/// A client that has said so much; what it is answered, until the controller hangs up.
async fn answer(socket: &Path, said: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(said.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_not_waited_for_for_ever() {
    let (folder, _client) = serve();
    let (socket, begin) = (folder.path().join("api.sock"), Instant::now());
    let answered = answer(&socket, "GET /metr").await;
    assert!(!answered.contains("200") && begin.elapsed() >= REQUEST, "{answered}");
    let body = "POST /v1/labs/office/trace HTTP/1.1\r\nhost: vnet\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{";
    let answered = answer(&socket, body).await;
    assert!(answered.starts_with("HTTP/1.1 408 ") && answered.contains(MEDIA_TYPE), "{answered}");
}

#[tokio::test(start_paused = true)]
async fn more_clients_than_are_heard_wait_for_one_to_go() {
    let (folder, _client) = serve();
    let (socket, begin) = (folder.path().join("api.sock"), Instant::now());
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    let asked = "GET /metrics HTTP/1.1\r\nhost: vnet\r\nconnection: close\r\n\r\n";
    assert!(answer(&socket, asked).await.starts_with("HTTP/1.1 200 "));
    assert!(begin.elapsed() >= REQUEST, "a silent one was waited for: {:?}", begin.elapsed());
}

#[tokio::test]
async fn what_http_itself_refuses_is_a_problem_too() {
    let (folder, _client) = serve();
    let socket = folder.path().join("api.sock");
    let asked = "PATCH /v1/labs/office HTTP/1.1\r\nhost: vnet\r\nconnection: close\r\n\r\n";
    let answered = answer(&socket, asked).await;
    assert!(answered.starts_with("HTTP/1.1 405 ") && answered.contains("bad-request"), "{answered}");
    let long =
        "PUT /v1/labs/office HTTP/1.1\r\nhost: vnet\r\nconnection: close\r\ncontent-length: 9999999\r\n\r\n";
    let answered = answer(&socket, long).await;
    assert!(answered.starts_with("HTTP/1.1 413 ") && answered.contains(MEDIA_TYPE), "{answered}");
}

#[tokio::test]
async fn a_capture_comes_in_whole_blocks_until_its_reader_goes() {
    let (_folder, client) = serve();
    let filter = "icmp and host 10.0.0.1".parse().unwrap();
    let request =
        CaptureRequest { interface: "h1".into(), filter, snap_len: None, count: Some(9), seconds: None };
    let mut reader = client.capture(&request).await.unwrap();
    assert_eq!(reader.number, 7);
    let mut got = Vec::new();
    while got.len() < 2 * BLOCK.len() {
        got.extend(reader.next().await.unwrap());
    }
    assert_eq!(got, [BLOCK, BLOCK].concat());
    client.end_capture(reader.number).await.unwrap();
    let mut events = client.events(0).await.unwrap();
    assert_eq!(events.next().await.unwrap().what, What::Note { text: "capture 7 ends".into() });
    drop(reader);
    assert_eq!(events.next().await.unwrap().what, What::Note { text: "h1 is captured no more: 0".into() });
}

#[tokio::test]
async fn events_stream_from_any_number_until_the_lab_ends() {
    let (_folder, client) = serve();
    client.put(&file("version: 1")).await.unwrap();
    let mut from_second = client.events(1).await.unwrap();
    assert_eq!(from_second.next().await.unwrap().what, What::Ready);
    client.delete().await.unwrap();
    assert_eq!(from_second.next().await, None);
}
