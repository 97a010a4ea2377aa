//! Just enough HTTP to see every byte that a server sends.

#![allow(dead_code, clippy::unwrap_used)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads what came until the connection ended.
    pub fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The objects of a stream, and whether it ended as one does.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let lines = self.body.split("\n\n").filter(|line| !line.is_empty());
        let mut data: Vec<&str> = lines
            .filter(|l| !l.starts_with(':'))
            .map(|l| l.strip_prefix("data: ").unwrap())
            .collect();
        let done = data.last() == Some(&"[DONE]");
        if done {
            data.pop();
        }
        (data.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect(), done)
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

/// Sends a request and leaves the answer to be read.
pub fn send(at: &str, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    // A server that has said no already may have hung up on the rest.
    drop(stream.write_all(request.as_bytes()));
    stream
}

/// What comes on a connection until it ends.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    assert!(ended.is_ok() || !bytes.is_empty(), "{ended:?}");
    Answer::of(&bytes)
}

/// Asks and waits.
pub fn ask(at: &str, method: &str, path: &str, body: &str) -> Answer {
    receive(send(at, method, path, "", body))
}

/// Asks for a completion.
pub fn complete(at: &str, body: &Value) -> Answer {
    ask(at, "POST", "/v1/chat/completions", &body.to_string())
}
