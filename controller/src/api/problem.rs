//! Errors on the wire: RFC 9457 problem details, with the exit code and the code of ours.

use crate::failure::{Exit, Failure};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// The media type of RFC 9457 §3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Problem details (RFC 9457 §3.1) with the extension members `code`, `exit` and `help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem: `urn:vnet:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This one in words.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// How a command line that hears this ends.
    pub exit: Exit,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A request that is none of ours by HTTP's own rules, with the status that they give it.
    pub(super) fn of_request(status: StatusCode, what: String) -> Self {
        Self { status: status.as_u16(), ..Failure::invalid("bad-request", what).into() }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (status, title) = match failure.exit {
            Exit::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "the request or the file is not valid"),
            Exit::NothingRunning => (StatusCode::NOT_FOUND, "nothing runs there"),
            Exit::Busy => (StatusCode::CONFLICT, "it cannot be done now"),
            Exit::Lacking => (StatusCode::NOT_IMPLEMENTED, "this machine lacks something"),
            Exit::Done | Exit::Failed | Exit::ExpectationFailed => {
                (StatusCode::INTERNAL_SERVER_ERROR, "it failed")
            }
        };
        Self {
            kind: format!("urn:vnet:{}", failure.code),
            title: title.into(),
            status: status.as_u16(),
            detail: failure.message,
            code: failure.code,
            exit: failure.exit,
            help: failure.mend,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { exit: problem.exit, code: problem.code, message: problem.detail, mend: problem.help }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers always has a JSON form.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}
