//! Apps under prefixes, side by side on one host.

use std::{net::SocketAddr, sync::Arc};

use nginx_free::{Admit, Body, Gate, Head, Limits, Listener, Prefix, Proxy, Routes, Upstream, Verdict};
use tokio::{io::AsyncWriteExt, net::TcpListener, net::TcpStream, sync::watch};

use crate::support::*;

struct Routed(Routes<Arc<Upstream<Tcp>>>);

impl Admit for Routed {
    type Dial = Tcp;

    async fn admit<'r>(&self, head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, Tcp> {
        match self.0.find(head.path) {
            Some((prefix, upstream)) => Verdict::Forward(gate.open(upstream).under(prefix)),
            None => Verdict::Answer(http::Response::new(Body::full("nothing here"))),
        }
    }
}

struct Served {
    address: SocketAddr,
    _closing: watch::Sender<bool>,
}

async fn serve(prefixes: Vec<(Prefix, SocketAddr)>) -> Served {
    let mut routes = Routes::default();
    for (prefix, app) in prefixes {
        routes.add(prefix, Upstream::new(Tcp(app), Limits::default())).unwrap();
    }
    let limits = Limits { routed_segments: routes.segments(), ..Limits::default() };
    let proxy = Proxy::new(Routed(routes), limits).with_server_timing();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_closing, closed) = watch::channel(false);
    tokio::spawn(async move { proxy.serve(Listener::tcp(listener), closed).await });
    Served { address, _closing }
}

impl Served {
    async fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: node\r\nX-Forwarded-Prefix: /evil\r\nX_Script_Name: /evil\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }
}

const ANSWER: &str = "HTTP/1.1 302 Found\r\nLocation: http://node/login\r\nContent-Location: /a\r\nContent-Length: 0\r\n\
                      Set-Cookie: theia-connection-token=x; Path=/; HttpOnly\r\nService-Worker-Allowed: /\r\n\r\n";

#[tokio::test]
async fn a_stripped_prefix_is_put_before_what_the_app_says() {
    let (app, mut heads) = canned(ANSWER).await;
    let served = serve(vec![(Prefix::stripped("/pod/3/theia").unwrap(), app)]).await;
    let answer = served.get("/pod/3/theia/a/%2e%2e/b?c=/d").await;
    for (name, wanted) in [
        ("location", "/pod/3/theia/login"),
        ("content-location", "/pod/3/theia/a"),
        ("set-cookie", "theia-connection-token=x; Path=/pod/3/theia; HttpOnly"),
        ("service-worker-allowed", "/pod/3/theia/"),
    ] {
        assert_eq!(field(&answer, name), Some(wanted), "{answer}");
    }
    assert!(field(&answer, "server-timing").unwrap().starts_with("app;dur="), "{answer}");
    let (_, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /a/%2e%2e/b?c=/d HTTP/1.1\r\n"), "{head}");
    for name in ["x-forwarded-prefix", "x-script-name", "x-rstudio-root-path"] {
        assert_eq!(field(&head, name), Some("/pod/3/theia"), "{head}");
    }
    assert!(!head.contains("evil"), "{head}");
    assert_eq!(served.get("/pod/3/theiax").await.lines().last(), Some("nothing here"));
}

#[tokio::test]
async fn a_kept_prefix_is_the_apps_own_business_but_for_the_neighbours() {
    let (app, mut heads) = canned(ANSWER).await;
    let served = serve(vec![(Prefix::kept("/pod/5/lab").unwrap(), app)]).await;
    let answer = served.get("/pod/5/lab").await;
    assert_eq!(field(&answer, "location"), Some("http://node/login"));
    assert_eq!(
        field(&answer, "set-cookie"),
        Some("theia-connection-token=x; Path=/pod/5/lab; HttpOnly"),
        "{answer}"
    );
    assert_eq!(field(&answer, "service-worker-allowed"), None);
    let (_, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /pod/5/lab HTTP/1.1\r\n"), "{head}");
    assert!(field(&head, "x-forwarded-prefix").is_none() && !head.contains("evil"), "{head}");
}

#[tokio::test]
async fn the_slash_is_added_unless_the_app_takes_it_off_again() {
    let (app, mut heads) =
        canned("HTTP/1.1 302 Found\r\nLocation: /wetty\r\nContent-Length: 0\r\n\r\n").await;
    let served = serve(vec![(Prefix::stripped("/wetty").unwrap(), app)]).await;
    let answer = served.get("/wetty?a=b").await;
    assert_eq!((status(&answer), field(&answer, "location")), (307, Some("/wetty/?a=b")));
    let answer = served.get("/wetty/?a=b").await;
    assert_eq!((status(&answer), field(&answer, "location")), (302, Some("/wetty")));
    assert!(heads.recv().await.unwrap().1.starts_with("GET /?a=b HTTP/1.1\r\n"));
    assert_eq!(status(&served.get("/wetty?a=b").await), 302, "no more of ours: it would go on for ever");
    assert!(heads.recv().await.unwrap().1.starts_with("GET /?a=b HTTP/1.1\r\n"));
}

#[tokio::test]
async fn another_app_s_path_is_never_read_as_this_one_s() {
    let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let ((one, mut to_one), (two, mut to_two)) = (canned(hello).await, canned(hello).await);
    let prefixes =
        vec![(Prefix::stripped("/pod/1").unwrap(), one), (Prefix::stripped("/pod/2").unwrap(), two)];
    let served = serve(prefixes).await;
    for target in [
        "/pod/1/../2",
        "/pod/1/%2e%2e/2",
        "/pod/1/..%2f2",
        "/pod/1/..%5c2",
        "/pod/1/..;/2",
        "/pod/1/x/../../2",
        "/pod/%2e/1/",
        "/pod/1;x/",
        "/pod//1/",
        "//pod/1/",
        "/pod/./1/",
        "/pod\\1/",
    ] {
        assert_eq!(status(&served.get(target).await), 400, "{target}");
    }
    for target in ["/pod/01/", "/pod/+1/", "/pod/1x/", "/pod/", "/Pod/1/"] {
        assert!(served.get(target).await.ends_with("nothing here"), "{target}");
    }
    assert!(to_one.try_recv().is_err() && to_two.try_recv().is_err());
    assert!(served.get("/pod/2/x/%2e%2e%2fx/%2F/;y/%00?%00").await.ends_with("hello"));
    assert!(to_two.recv().await.unwrap().1.starts_with("GET /x/%2e%2e%2fx/%2F/;y/%00?%00 HTTP/1.1\r\n"));
    assert!(to_one.try_recv().is_err());
}
