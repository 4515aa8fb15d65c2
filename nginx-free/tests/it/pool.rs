//! Connections to the app: kept while beyond doubt, and never the client's trouble.

use tokio::io::AsyncWriteExt;

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_connection_is_used_again() {
    let (app, mut heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    for _ in 0..5 {
        let got = proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(got.ends_with("hello"), "{got}");
        assert_eq!(heads.recv().await.unwrap().0, 0, "on the app's first connection");
    }
}

#[tokio::test]
async fn old_connections_are_looked_for_by_one_task() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    for _ in 0..50 {
        proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    }
    let tasks = tokio::runtime::Handle::current().metrics();
    let few = async {
        while tasks.num_alive_tasks() > 10 {
            tokio::task::yield_now().await;
        }
    };
    let soon = nginx_free::Limits::default().pool_idle / 2;
    assert!(tokio::time::timeout(soon, few).await.is_ok(), "{} tasks", tasks.num_alive_tasks());
}

/// An app whose first connection answers once, and at the second request ends without a word.
async fn forgetful() -> std::net::SocketAddr {
    app(|number, mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(HELLO.as_bytes()).await?;
        if number > 0 {
            read_head(&mut stream).await?;
        } else {
            read_exactly(&mut stream, 1).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dead_connection_is_not_the_clients_trouble() {
    let proxy = proxy(forgetful().await).await;
    for method in ["GET", "PUT", "GET"] {
        let got = proxy.talk(&format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert!(got.ends_with("hello"), "{method}: {got}");
    }
}

#[tokio::test]
async fn what_is_sent_again_is_what_was_sent() {
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |number, mut stream| {
        let heads = heads.clone();
        async move {
            read_head(&mut stream).await.map(|head| drop(heads.send(head)))?;
            stream.write_all(HELLO.as_bytes()).await?;
            if number == 0 {
                // The second one is read and not answered.
                read_head(&mut stream).await.map(|head| drop(heads.send(head)))?;
            }
            Ok(())
        }
    })
    .await;
    let proxy = proxy(app).await;
    proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let asked = "DELETE /a%20b?d=%0a&e=%C3%A9 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Empty:\r\nX: a: b\r\n\
                 X:   two \r\nCookie: a=1; b=\"2\"\r\nContent-Length: 0\r\n\r\n";
    let got = proxy.talk(asked).await;
    assert!(got.ends_with("hello"), "{got}");
    let (_, first, again) = (seen.recv().await, seen.recv().await.unwrap(), seen.recv().await.unwrap());
    assert!(
        first.starts_with("DELETE /a%20b?d=%0a&e=%C3%A9 HTTP/1.1\r\n")
            && first.contains("x: a: b\r\nx: two\r\n"),
        "{first}"
    );
    assert_eq!(first, again);
}

/// What the `next` request gets after three connections have answered one each, and then did
/// `what` while nobody used them. Later ones answer with "good".
async fn after_idle_connections(what: &'static [u8], next: &str) -> String {
    let all = std::sync::Arc::new(tokio::sync::Barrier::new(4));
    let ours = std::sync::Arc::clone(&all);
    let app = app(move |number, mut stream| {
        let all = std::sync::Arc::clone(&all);
        async move {
            let head = read_head(&mut stream).await?;
            if number > 2 {
                let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                read_exactly(&mut stream, length).await;
                return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
            }
            all.wait().await;
            stream.write_all(HELLO.as_bytes()).await?;
            all.wait().await;
            if what.is_empty() {
                drop(stream);
                all.wait().await;
                return Ok(());
            }
            stream.write_all(what).await?;
            all.wait().await;
            assert_eq!(read_head(&mut stream).await.unwrap_or_default(), "", "it is not used again");
            Ok(())
        }
    })
    .await;
    let proxy = proxy(app).await;
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (first, second, third, _) =
        tokio::join!(proxy.talk(asked), proxy.talk(asked), proxy.talk(asked), ours.wait());
    assert!([first, second, third].iter().all(|got| got.ends_with("hello")));
    ours.wait().await;
    ours.wait().await;
    proxy.talk(next).await
}

/// None of them may be sent twice.
const NEXT: [&str; 3] = [
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
    "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
];

#[tokio::test]
async fn dead_connections_are_passed_over() {
    for next in NEXT {
        let got = after_idle_connections(b"", next).await;
        assert!(got.ends_with("good"), "{next}: {got}");
    }
}

#[tokio::test]
async fn what_comes_while_nobody_asks_reaches_nobody() {
    for next in NEXT {
        let got = after_idle_connections(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", next).await;
        assert!(got.ends_with("good"), "{next}: {got}");
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let proxy = proxy(forgetful().await).await;
        assert!(
            proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ends_with("hello")
        );
        assert_eq!(status(&proxy.talk(request).await), 502, "{request:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_connection_along() {
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await?;
            // The proxy's end of the connection, and nothing before it.
            drop(ended.send(read_all(&mut stream).await));
            Ok(())
        }
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_head(&mut client).await.unwrap();
    drop(client);
    assert_eq!(tokio::time::timeout(SOON, end.recv()).await.unwrap().as_deref(), Some(""));
}
