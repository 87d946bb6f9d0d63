//! The HTTP API of one lab: routes and status codes, nothing else. What they mean is the [`Service`]'s.

use super::{
    capture::{self, Capturing},
    problem::Problem,
    types::{
        BenchRequest, CaptureRequest, ExecRequest, ExportRequest, LabView, LinkRequest, LookRequest,
        TopologyFile, TraceRequest, TransferRequest,
    },
    why::WhyRequest,
};
use crate::{
    failure::{Exit, Failure},
    lab::events::Events,
};
use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// How long a client may take for the head of a request, the first or a further one, and as long again for its body.
pub(super) const REQUEST: Duration = Duration::from_secs(5);
/// How many clients are heard at a time; the next one waits until one is gone. Those that follow events or captures stay.
pub(super) const CLIENTS: usize = 128;
/// The longest body of a request: a topology file of the greatest size, as JSON.
const BODY: usize = 2 << 20;

/// What can be asked of a running lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `show ports`.
    Ports,
    /// `show nodes`.
    Nodes,
    /// `show nodes --exits`.
    Exits,
    /// `show links`.
    Links,
    /// `show fdb`.
    Fdb,
    /// `show vlans`.
    Vlans,
    /// `show drops`.
    Drops,
    /// `show rules`.
    Rules(LookRequest),
    /// `show connections`.
    Connections(LookRequest),
    /// `show routes`.
    Routes,
    /// `show neighbours`.
    Neighbours,
    /// `show leases`.
    Leases,
    /// `show datapath`.
    Datapath,
    /// What becomes of a frame.
    Trace(TraceRequest),
    /// What was recorded.
    Why(WhyRequest),
    /// Whether the expectations hold.
    Test,
    /// Who reaches whom.
    Pingall,
    /// Run a command in a node.
    Exec(ExecRequest),
    /// Set a link up or down.
    SetLink(LinkRequest),
    /// Send bytes from one node to another.
    Transfer(TransferRequest),
    /// Measure between two ports.
    Bench(BenchRequest),
    /// What another VMM needs to attach.
    Export(ExportRequest),
}

/// A lab that can be asked.
pub trait Service: Clone + Send + Sync + 'static {
    /// The lab's name.
    fn name(&self) -> &str;
    /// Brings the lab up, or finds that it is up as the file says.
    fn put(&self, file: TopologyFile) -> impl Future<Output = Result<LabView, Failure>> + Send;
    /// The lab at this moment.
    fn view(&self) -> impl Future<Output = LabView> + Send;
    /// Takes the lab down, and ends the controller behind the answer.
    fn delete(&self) -> impl Future<Output = Result<LabView, Failure>> + Send;
    /// Answers a question, in the JSON form of the matching view in [`super::types`].
    fn ask(&self, question: Question) -> impl Future<Output = Result<serde_json::Value, Failure>> + Send;
    /// Captures frames of an interface.
    fn capture(&self, request: CaptureRequest) -> impl Future<Output = Result<Capturing, Failure>> + Send;
    /// Ends a capture in order, if it did not end yet.
    fn end_capture(&self, number: u32) -> impl Future<Output = Result<(), Failure>> + Send;
    /// What is counted, in the text format of Prometheus.
    fn metrics(&self) -> impl Future<Output = Result<String, Failure>> + Send;
    /// What happens.
    fn events(&self) -> Events;
}

/// The routes to `service`.
pub fn router<S: Service>(service: S) -> Router {
    let lab = put(put_lab::<S>).get(get_lab::<S>).delete(delete_lab::<S>);
    Router::new()
        .route("/metrics", get(metrics::<S>))
        .route("/v1/labs", get(list::<S>))
        .route("/v1/labs/{lab}", lab)
        .route("/v1/labs/{lab}/events", get(events::<S>))
        .route("/v1/labs/{lab}/metrics", get(metrics_of_lab::<S>))
        .route("/v1/labs/{lab}/{view}", get(look::<S>))
        .route("/v1/labs/{lab}/capture", post(begin_capture::<S>))
        .route("/v1/labs/{lab}/capture/{number}", delete(end_capture::<S>))
        .route("/v1/labs/{lab}/trace", post(trace::<S>))
        .route("/v1/labs/{lab}/why", get(why::<S>))
        .route("/v1/labs/{lab}/test", post(|s, p| act::<S>(s, p, Question::Test)))
        .route("/v1/labs/{lab}/pingall", post(|s, p| act::<S>(s, p, Question::Pingall)))
        .route("/v1/labs/{lab}/exec", post(exec::<S>))
        .route("/v1/labs/{lab}/link", post(set_link::<S>))
        .route("/v1/labs/{lab}/transfer", post(transfer::<S>))
        .route("/v1/labs/{lab}/bench", post(bench::<S>))
        .route("/v1/labs/{lab}/export", post(export::<S>))
        .method_not_allowed_fallback(|request: Request| async move {
            let what = format!("{} is no method of {}", request.method(), request.uri().path());
            Problem::of_request(StatusCode::METHOD_NOT_ALLOWED, what)
        })
        .fallback(|request: Request| async move { Problem::from(no_such(request.uri().path())) })
        .layer(middleware::from_fn(whole))
        .with_state(service)
}

/// Hands a request on once its body is there, in time and not too long.
async fn whole(request: Request, next: Next) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let too_long = || {
        let what = format!("the body is longer than {BODY} bytes");
        Problem::of_request(StatusCode::PAYLOAD_TOO_LARGE, what)
    };
    // What is announced need not come.
    if body.size_hint().lower() > BODY as u64 {
        return Err(too_long());
    }
    let body = match timeout(REQUEST, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(error)) => {
            return Err(Problem::of_request(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")));
        }
        Err(_) => {
            let what = format!("the body did not come within {} s", REQUEST.as_secs());
            return Err(Problem::of_request(StatusCode::REQUEST_TIMEOUT, what));
        }
    };
    Ok(next.run(Request::from_parts(head, body.into())).await)
}

/// Serves `routes` to who connects until `over`, and ends when what is under way then is answered.
pub async fn serve(listener: OwnersOnly, routes: Router, over: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST);
    let (end, ended) = watch::channel(());
    let (room, mut clients) = (Arc::new(Semaphore::new(CLIENTS)), JoinSet::new());
    let next = async || {
        let seat = room.clone().acquire_owned().await;
        (seat, listener.accept().await)
    };
    let mut over = pin!(over);
    loop {
        let (seat, stream) = tokio::select! {
            next = next() => next,
            Some(_) = clients.join_next() => continue,
            () = &mut over => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let (client, mut ended) = (http.serve_connection(TokioIo::new(stream), service), ended.clone());
        clients.spawn(async move {
            let _seat = seat;
            let mut client = pin!(client);
            tokio::select! {
                // Whatever ended it, it is gone.
                _ = client.as_mut() => {}
                // Said by the other end of the channel going.
                _ = ended.changed() => {
                    client.as_mut().graceful_shutdown();
                    let _ = client.await;
                }
            }
        });
    }
    drop((listener, end));
    while clients.join_next().await.is_some() {}
}

fn no_such(what: &str) -> Failure {
    Failure::new(Exit::NothingRunning, "no-such-resource", format!("there is no {what} here"))
}

/// Only the lab of this controller is here.
fn must_be<S: Service>(service: &S, lab: &str) -> Result<(), Failure> {
    if service.name() == lab { Ok(()) } else { Err(no_such(&format!("lab {lab}"))) }
}

/// Ours are the errors of a wrong body too, so that every error is a problem.
fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid("bad-request", format!("the body is not understood: {error}")))
}

async fn list<S: Service>(State(service): State<S>) -> Json<[LabView; 1]> {
    Json([service.view().await])
}

async fn put_lab<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
    body: Bytes,
) -> Result<Json<LabView>, Problem> {
    must_be(&service, &lab)?;
    Ok(Json(service.put(parsed(&body)?).await?))
}

async fn get_lab<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
) -> Result<Json<LabView>, Problem> {
    must_be(&service, &lab)?;
    Ok(Json(service.view().await))
}

async fn delete_lab<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
) -> Result<Json<LabView>, Problem> {
    must_be(&service, &lab)?;
    Ok(Json(service.delete().await?))
}

async fn look<S: Service>(
    State(service): State<S>,
    Path((lab, view)): Path<(String, String)>,
    looked: Result<Query<LookRequest>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    must_be(&service, &lab)?;
    let Query(looked) = looked.map_err(|error| Failure::invalid("bad-request", error.body_text()))?;
    let question = match view.as_str() {
        "ports" => Question::Ports,
        "nodes" => Question::Nodes,
        "exits" => Question::Exits,
        "links" => Question::Links,
        "fdb" => Question::Fdb,
        "vlans" => Question::Vlans,
        "drops" => Question::Drops,
        "rules" => Question::Rules(looked),
        "connections" => Question::Connections(looked),
        "routes" => Question::Routes,
        "neighbours" => Question::Neighbours,
        "leases" => Question::Leases,
        "datapath" => Question::Datapath,
        other => return Err(no_such(other).into()),
    };
    Ok(Json(service.ask(question).await?))
}

/// Where a collector looks that knows of no labs: this controller has one.
async fn metrics<S: Service>(State(service): State<S>) -> Result<Response, Problem> {
    let text = service.metrics().await?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

async fn metrics_of_lab<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
) -> Result<Response, Problem> {
    must_be(&service, &lab)?;
    metrics(State(service)).await
}

async fn act<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
    question: Question,
) -> Result<Json<serde_json::Value>, Problem> {
    must_be(&service, &lab)?;
    Ok(Json(service.ask(question).await?))
}

async fn trace<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::Trace(request)).await
}

async fn why<S: Service>(
    service: State<S>,
    lab: Path<String>,
    request: Result<Query<WhyRequest>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    let Query(request) = request.map_err(|error| Failure::invalid("bad-request", error.body_text()))?;
    act(service, lab, Question::Why(request)).await
}

async fn exec<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::Exec(request)).await
}

async fn set_link<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::SetLink(request)).await
}

async fn transfer<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::Transfer(request)).await
}

async fn bench<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::Bench(request)).await
}

async fn export<S: Service>(
    service: State<S>,
    lab: Path<String>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let request = parsed(&body)?;
    act(service, lab, Question::Export(request)).await
}

/// A pcapng file that grows until the capture ends. It ends in order (with its statistics) when the resource that `Location`
/// names is deleted, and at once when this answer is no longer read.
async fn begin_capture<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    must_be(&service, &lab)?;
    let Capturing { number, file } = service.capture(parsed(&body)?).await?;
    let headers = [
        (header::CONTENT_TYPE, capture::MEDIA_TYPE.to_owned()),
        (header::LOCATION, format!("/v1/labs/{lab}/capture/{number}")),
    ];
    Ok((headers, Body::from_stream(capture::File(file))).into_response())
}

async fn end_capture<S: Service>(
    State(service): State<S>,
    Path((lab, number)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    must_be(&service, &lab)?;
    let number = number.parse().map_err(|_| no_such(&format!("capture {number}")))?;
    service.end_capture(number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `?from=N`: the number of the first event that is wanted.
#[derive(Debug, Deserialize)]
struct From {
    #[serde(default)]
    from: u64,
}

/// Newline-delimited JSON, one event a line, for as long as the lab lives.
async fn events<S: Service>(
    State(service): State<S>,
    Path(lab): Path<String>,
    Query(From { from }): Query<From>,
) -> Result<Response, Problem> {
    must_be(&service, &lab)?;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, io::Error>>(16);
    let events = service.events();
    tokio::spawn(async move {
        let mut next = from;
        while let Some(event) = events.from(next).await {
            next = event.number + 1;
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            // The reader went away: nobody to tell.
            if sender.send(Ok(line.into())).await.is_err() {
                return;
            }
        }
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The socket of the API: it hears only processes of the same user, and root.
#[derive(Debug)]
pub struct OwnersOnly(
    /// What is listened on.
    pub UnixListener,
);

impl OwnersOnly {
    async fn accept(&self) -> UnixStream {
        let own = rustix::process::getuid().as_raw();
        loop {
            match self.0.accept().await {
                // SO_PEERCRED: who the peer was when it connected (unix(7)).
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == own || peer.uid() == 0 => return stream,
                    _ => tracing::warn!("a process of another user was turned away from the API"),
                },
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    // Out of descriptors, most likely: some are free again soon.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
