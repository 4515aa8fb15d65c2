//! HTTP/1.1 through the proxy.

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_request_goes_through_with_our_word_on_the_client() {
    let (app, mut heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    let answer = proxy
        .talk(
            "GET /x/a%2Fb?q=%20 HTTP/1.1\r\nHost: node:1\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
             Connection: close, X-Secret\r\nX-Secret: 1\r\nCookie: a=1; b=2\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let (_, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /x/a%2Fb?q=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("node:1"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&head, "forwarded"), Some("for=127.0.0.1;host=\"node:1\";proto=http"));
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert!(!head.contains("6.6.6.6") && field(&head, "x-secret").is_none(), "{head}");
}
