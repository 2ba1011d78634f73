//! The HTTP client against a server that is a few lines of this file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use driftline_emitter::{HttpUplink, Reply, Uplink};

/// What the server saw of a request.
struct Seen {
    head: String,
    body: Vec<u8>,
}

/// Answers one connection per entry with its text; an empty text closes the connection instead.
fn serve(answers: Vec<&'static str>) -> (String, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length: usize = head
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                })
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            sender.send(Seen { head, body }).unwrap();
            reader.into_inner().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, receiver)
}

#[test]
fn requests_are_authorised_and_answers_are_understood() {
    let (url, seen) = serve(vec![
        "HTTP/1.1 503 busy\r\nretry-after: 7\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfull",
        "",
        "HTTP/1.1 401 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 ok\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{\"rows\":1}",
    ]);
    let mut uplink = HttpUplink::new(&format!("{url}/"), "secret\n");
    let body = vec![7u8; 100_000];
    let busy = uplink.send(&body);
    assert_eq!(
        busy,
        Reply::Later {
            retry_after: Some(Duration::from_secs(7)),
            reason: "status 503: full".into()
        }
    );
    assert!(matches!(
        uplink.send(&body),
        Reply::Later {
            retry_after: None,
            ..
        }
    ));
    assert!(matches!(
        uplink.send(&body),
        Reply::Denied { status: 401, .. }
    ));
    let Reply::Acknowledged { body: Some(json) } = uplink.send(&body) else {
        panic!("200 acknowledges");
    };
    assert_eq!(json["rows"], 1);
    for _ in 0..4 {
        let seen = seen.recv().unwrap();
        let head = seen.head.to_lowercase();
        assert!(head.starts_with("post /v1/frames http/1.1"), "{head}");
        assert!(head.contains("authorization: bearer secret\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/vnd.driftline.frames"),
            "{head}"
        );
        assert_eq!(seen.body, body);
    }
}

#[test]
fn a_gateway_that_is_not_there_is_tried_again_later() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut uplink = HttpUplink::new(&format!("http://{address}"), "t");
    assert!(matches!(uplink.send(b"x"), Reply::Later { .. }));
}
