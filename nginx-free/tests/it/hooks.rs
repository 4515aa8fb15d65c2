//! What a judge can do beside letting a request through.

use std::sync::Arc;

use http::{Response, StatusCode};
use nginx_free::{
    Admit, Body, FailedRequest, Failure, Gate, Head, Hooks, Kind, Limits, Listener, Proxy, Verdict,
};
use tokio::{net::TcpListener, sync::watch};

use crate::support::*;

fn hooks() -> Hooks {
    Hooks {
        hides_cookie: Some(Box::new(|name| name == b"ours")),
        edit_answer: Some(Box::new(|head| drop(head.headers.remove("x-secret")))),
        on_failure: Some(Box::new(|failed: &FailedRequest| {
            let mut answer = Response::new(Body::full(format!("{:?}", failed.wants_page)));
            *answer.status_mut() = match failed.failure {
                Failure::Unreachable => StatusCode::IM_A_TEAPOT,
                other => other.status(),
            };
            answer
        })),
    }
}

#[tokio::test]
async fn cookies_are_hidden_and_answers_edited() {
    let (app, mut heads) =
        canned("HTTP/1.1 200 OK\r\nX-Secret: 1\r\nX-Own: 2\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = proxy_with(app, Limits::default(), hooks(), None).await;
    let got = proxy
        .talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: a=1; ours=2\r\nCookie: ours=3; b=4\r\n\r\n")
        .await;
    assert_eq!((field(&got, "x-secret"), field(&got, "x-own")), (None, Some("2")));
    let (_, head) = heads.recv().await.unwrap();
    assert_eq!(field(&head, "cookie"), Some("a=1; b=4"));
}

#[tokio::test]
async fn a_failure_can_have_a_page_of_its_own() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let proxy = proxy_with(address, Limits::default(), hooks(), None).await;
    for (accept, wants_page) in [("text/html,*/*;q=0.1", "true"), ("application/json", "false")] {
        let got = proxy
            .talk(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"))
            .await;
        assert_eq!(status(&got), 418);
        assert!(got.ends_with(wants_page), "{got}");
    }
}

/// Answers everything with what it saw.
struct Mirror;

impl Admit for Mirror {
    type Dial = Tcp;

    async fn admit<'r>(&self, head: &Head<'_>, _gate: Gate<'r>) -> Verdict<'r, Tcp> {
        let seen = format!("{} {} {} {:?} {:?}", head.method, head.host, head.path, head.query, head.kind);
        Verdict::Answer(Response::new(Body::full(seen)))
    }
}

#[tokio::test]
async fn what_is_answered_here_never_reaches_the_app() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Arc::new(Proxy::new(Mirror, Limits::default()));
    let (closing, closed) = watch::channel(false);
    let serving = Arc::clone(&proxy);
    tokio::spawn(async move { serving.serve(Listener::tcp(listener), closed).await });
    let talk = async |bytes: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    };
    let got = talk("GET /a%20b?c=d HTTP/1.1\r\nHost: Node:1\r\nConnection: close\r\n\r\n").await;
    assert!(got.ends_with("GET Node:1 /a%20b Some(\"c=d\") Plain"), "{got}");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
    ] {
        let kind = if request.contains("websocket") { Kind::WebSocket } else { Kind::Plain };
        let got = talk(&(request + smuggled)).await;
        assert!(got.contains(&format!("{kind:?}")) && !got.contains("smuggled"), "{got}");
        assert_eq!(field(&got, "connection"), Some("close"), "{got}");
    }
    drop(closing);
}
