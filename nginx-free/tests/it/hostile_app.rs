//! Apps that break the rules. Their neighbours, and the next request, must not notice.

use tokio::io::AsyncWriteExt;

use crate::support::*;

/// What a client gets where the app's first connection says `answer`, and then what the next client gets from the well-behaved rest.
async fn after(request: &str, answer: String) -> (String, String) {
    let app = app(move |number, mut stream| {
        let answer = answer.clone();
        async move {
            read_head(&mut stream).await?;
            let good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_owned();
            stream.write_all(if number == 0 { answer } else { good }.as_bytes()).await?;
            // Stays open, as an app would that wants its connection used again.
            read_head(&mut stream).await.map(drop)
        }
    })
    .await;
    let proxy = proxy(app).await;
    let first = proxy.talk(request).await;
    let next = proxy.talk("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    (first, next)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn an_unreadable_answer_is_a_502_and_its_connection_is_gone() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\rSet-Cookie: evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 99 Odd\r\nContent-Length: 0\r\n\r\n",
        "evil\r\n\r\n",
    ] {
        let (first, next) = after(GET, answer.to_owned()).await;
        assert_eq!(status(&first), 502, "{answer:?}: {first}");
        assert!(!first.contains("evil"), "{answer:?}: {first}");
        assert!(next.ends_with("good"), "{answer:?}: {next}");
    }
}

#[tokio::test]
async fn endless_heads_come_to_an_end() {
    let reason = format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(1 << 20));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1 << 15));
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1 << 15);
    for answer in [reason, fields, early] {
        let (first, next) = after(GET, answer).await;
        let (_, last) = without_interim(&first);
        assert_eq!(status(last), 502, "{first}");
        assert!(next.ends_with("good"), "{next}");
    }
}

const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";

/// How many early hints came before an answer, and the answer.
fn without_interim(answer: &str) -> (usize, &str) {
    let (mut count, mut rest) = (0, answer);
    while let Some(next) = rest.strip_prefix(EARLY) {
        (count, rest) = (count + 1, next);
    }
    (count, rest)
}

#[tokio::test]
async fn of_a_thousand_interim_answers_few_wait_for_a_client() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (first, next) = after(GET, EARLY.repeat(1000) + answer).await;
    let (count, last) = without_interim(&first);
    assert!((1..=1000).contains(&count), "{count}");
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n") && last.ends_with("ok"), "{last}");
    assert!(next.ends_with("good"), "{next}");
}

#[tokio::test]
async fn bytes_after_an_answer_reach_nobody() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
    ] {
        let (first, next) = after(GET, answer.to_owned()).await;
        assert!(matches!(status(&first), 200 | 204 | 304), "{first}");
        assert!(!first.contains("evil") && next.ends_with("good"), "{answer:?}: {first} {next}");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_owned();
    let (first, next) = after(&GET.replacen("GET", "HEAD", 1), head).await;
    assert!(first.ends_with("\r\n\r\n") && next.ends_with("good"), "{first} {next}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    let app = app(|_, mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await
    })
    .await;
    let got = proxy(app).await.talk("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(field(&got, "content-length"), Some("10"));
    assert!(got.ends_with("short"), "cut, not padded and not ended well: {got}");
    for chunks in ["5\nshort\n0\n\n", "5;x\nshort\r\n0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\nx", "5\r\nshortX\r\n"]
    {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let (first, next) = after("GET / HTTP/1.1\r\nHost: a\r\n\r\n", answer).await;
        assert!(!first.ends_with("0\r\n\r\n"), "{chunks:?}: {first}");
        assert!(next.ends_with("good"), "{next}");
    }
}
