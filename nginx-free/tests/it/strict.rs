//! Requests that never reach the app.

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Sends a request, `\n` standing for CRLF, and returns the status. The connection must end, and the app must not have heard of it.
async fn refused(request: &str) -> u16 {
    let (app, mut heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    // What follows is on the same connection: it must not be answered.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = proxy.talk(&(request.replace('\n', "\r\n") + smuggled)).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer}");
    assert!(heads.try_recv().is_err(), "{request:?} reached the app");
    status(&answer)
}

#[tokio::test]
async fn host_is_said_once_and_without_contradiction() {
    for request in [
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
        "GET / HTTP/1.1\nHost: a, b\n\n",
        "GET / HTTP/1.1\nHost:\n\n",
        "GET / HTTP/1.1\nHost: u@a\n\n",
        "GET / HTTP/1.1\nHost: a:0\n\n",
        "GET / HTTP/1.1\nHost: a:x\n\n",
        "GET http://b/ HTTP/1.1\nHost: a\n\n",
        "GET http://u:p@a/ HTTP/1.1\nHost: a\n\n",
        "GET http://a:81/ HTTP/1.1\nHost: a\n\n",
        "GET ftp://a/ HTTP/1.1\nHost: a\n\n",
    ] {
        assert_eq!(refused(request).await, 400, "{request:?}");
    }
}

#[tokio::test]
async fn a_bodys_length_is_said_once() {
    for fields in [
        "Content-Length: 3\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nContent-Length: 3",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: 3\nContent-Length: 4",
        "Content-Length: 3\nContent-Length: 3",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -1",
        "Content-Length: 18446744073709551616",
        "Connection: content-length\nContent-Length: 0",
    ] {
        assert_eq!(refused(&format!("POST / HTTP/1.1\nHost: a\n{fields}\n\n")).await, 400, "{fields}");
    }
    assert_eq!(refused("POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n").await, 400);
}

#[tokio::test]
async fn lines_are_lines() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /é HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        let (app, mut heads) = canned(HELLO).await;
        let answer = proxy(app).await.talk(request).await;
        assert_eq!(status(&answer), 400, "{request:?}: {answer}");
        assert!(heads.try_recv().is_err(), "{request:?} reached the app");
    }
}

#[tokio::test]
async fn the_routed_part_of_a_path_has_one_reading() {
    for path in
        ["/..", "/../x", "/%2e%2e/x", "/%2f", "/%5c", "/a%00", "/a;b", "//evil", "/a/../..", "/%252e%252e/"]
    {
        assert_eq!(refused(&format!("GET {path} HTTP/1.1\nHost: a\n\n")).await, 400, "{path}");
    }
}

#[tokio::test]
async fn there_is_no_tunnel_and_no_other_protocol() {
    assert_eq!(refused("CONNECT a:443 HTTP/1.1\nHost: a:443\n\n").await, 501);
    assert_eq!(refused("TRACE / HTTP/1.1\nHost: a\n\n").await, 501);
    assert_eq!(refused("OPTIONS * HTTP/1.1\nHost: a\n\n").await, 501);
    let h2c = "GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\n\n";
    assert_eq!(refused(h2c).await, 501);
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: tls/1.0\n\n").await, 501);
    assert_eq!(refused("PUT / HTTP/1.1\nHost: a\nExpect: miracles\n\n").await, 417);
    let (app, _) = canned(HELLO).await;
    let answer = proxy(app).await.talk("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(matches!(status(&answer), 0 | 400), "no HTTP/2 without ALPN: {answer}");
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let long = "x".repeat(40 * 1024);
    assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a\nX: {long}\n\n")).await, 431);
    let many = (0..200).map(|n| format!("X{n}: 1\n")).collect::<String>();
    assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a\n{many}\n")).await, 431);
}
