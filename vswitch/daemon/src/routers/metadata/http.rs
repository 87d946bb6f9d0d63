//! As much of HTTP as who fetches a file needs (RFC 9110, RFC 9112): one request on a connection, of which only the path is read.

/// Bytes that a request may have.
pub(super) const REQUEST: usize = 4096;

/// The answer to what was received, as soon as that is a request or cannot become one; `tell` tells what stands at a path.
pub(super) fn answer(received: &[u8], tell: impl FnOnce(&str) -> Option<String>) -> Option<Vec<u8>> {
    let ends = |end: &[u8]| received.windows(end.len()).any(|bytes| bytes == end);
    // RFC 9112 §2.2: a lone LF may end a line, too.
    if !ends(b"\r\n\r\n") && !ends(b"\n\n") {
        return (received.len() >= REQUEST).then(|| response("431 Request Header Fields Too Large", None));
    }
    let line = received.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line).unwrap_or_default().trim_end_matches('\r');
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Some(response("400 Bad Request", None));
    };
    if !version.starts_with("HTTP/1.") {
        return Some(response("505 HTTP Version Not Supported", None));
    }
    if method != "GET" {
        return Some(response("405 Method Not Allowed\r\nAllow: GET", None));
    }
    let path = target.split('?').next().unwrap_or_default();
    Some(match tell(path) {
        Some(text) => response("200 OK", Some(&text)),
        None => response("404 Not Found", None),
    })
}

fn response(status: &str, text: Option<&str>) -> Vec<u8> {
    let text = text.unwrap_or_default();
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(received: &[u8]) -> Option<String> {
        let answer = answer(received, |path| (path == "/meta-data").then(|| "told".to_owned()))?;
        let text = String::from_utf8(answer).expect("text");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        assert_eq!(text.ends_with("\r\n\r\ntold"), text.starts_with("HTTP/1.1 200 "), "{text}");
        Some(text.split(' ').nth(1).expect("a status").to_owned())
    }

    #[test]
    fn only_what_is_asked_for_as_it_should_be_is_told() {
        for (received, wanted) in [
            (&b"GET /meta-data HTTP/1.1\r\nHost: x\r\n\r\n"[..], Some("200")),
            (b"GET /meta-data?x HTTP/1.0\r\n\r\n", Some("200")),
            (b"GET /meta-data HTTP/1.1\n\n", Some("200")),
            (b"GET /meta-data/ HTTP/1.1\r\n\r\n", Some("404")),
            (b"POST /meta-data HTTP/1.1\r\n\r\n", Some("405")),
            (b"GET /meta-data HTTP/2\r\n\r\n", Some("505")),
            (b"GET  /meta-data HTTP/1.1\r\n\r\n", Some("400")),
            (b"\xff\xfe\r\n\r\n", Some("400")),
            (b"\r\n\r\n", Some("400")),
            (b"GET /meta-data HTTP/1.1\r\nHost: x\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status(received).as_deref(), wanted, "{:?}", String::from_utf8_lossy(received));
        }
        assert_eq!(status(&[b'x'; REQUEST]).as_deref(), Some("431"));
        assert_eq!(status(&[b'x'; REQUEST - 1]), None);
    }
}
