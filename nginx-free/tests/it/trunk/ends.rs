//! How channels and trunks end: a cut is never taken for an end.

use std::{io, pin::pin, time::Duration};

use h2::Reason;
use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nginx_free::trunk::{Ended, Trunk, TrunkError, TrunkLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

use super::{GET, HELLO, far::*};
use crate::support::*;

#[tokio::test]
async fn an_end_of_one_direction_leaves_the_other() {
    let app = app(|_, mut stream| async move {
        let asked = read_all(&mut stream).await;
        stream.write_all(format!("after the end of {asked}").as_bytes()).await
    })
    .await;
    let (trunk, _host) = trunk(TrunkLimits::default()).await;
    let mut channel = trunk.open(&app.to_string()).await.unwrap();
    channel.write_all(b"the question").await.unwrap();
    channel.shutdown().await.unwrap();
    let answer = timeout(SOON, async {
        let mut text = String::new();
        channel.read_to_string(&mut text).await.map(|_| text)
    });
    assert_eq!(answer.await.unwrap().unwrap(), "after the end of the question");
    assert_eq!(channel.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// What comes before it breaks off is no whole answer, although its end is where its connection ends.
#[tokio::test]
async fn an_answer_whose_host_vanishes_is_cut_and_the_next_host_takes_over() {
    let half = app(|number, mut stream| async move {
        read_head(&mut stream).await?;
        if number > 0 {
            return stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nwhole").await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await?;
        read_all(&mut stream).await;
        Ok(())
    })
    .await;
    let (first, host) = trunk(TrunkLimits::default()).await;
    let gateway = gateway(&half.to_string(), Some(first.clone())).await;
    let mut client = gateway.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    read_head(&mut client).await.unwrap();
    assert_eq!(read_exactly(&mut client, 9).await, b"4\r\nhalf\r\n");
    host.abort();
    assert_eq!(read_all(&mut client).await, "", "not the chunk that ends it");
    let why = timeout(SOON, first.ended()).await.unwrap();
    assert!(matches!(why, Ended::Broken(_) | Ended::Closed), "{why:?}");
    assert!(matches!(first.open("a:1").await, Err(TrunkError::Ended(_))));
    assert_eq!(status(&gateway.talk(GET).await), 502);

    let (second, _host) = trunk(TrunkLimits::default()).await;
    gateway.hosts.send_replace(Some(second));
    let got = gateway.talk(GET).await;
    assert!(got.ends_with("5\r\nwhole\r\n0\r\n\r\n"), "an end is an end: {got}");
}

#[tokio::test]
async fn a_reset_is_no_end() {
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::CONNECT_ERROR, Reason::INTERNAL_ERROR] {
        let (theirs, ours) = dialled().await;
        tokio::spawn(resetting(theirs, reason));
        let trunk = Trunk::over(ours, TrunkLimits::default()).await.unwrap();
        let mut channel = trunk.open("app:1").await.unwrap();
        channel.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(read_head(&mut channel).await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(read_exactly(&mut channel, 4).await, b"half");
        channel.write_all(b"go on").await.unwrap();
        let end = timeout(SOON, channel.read(&mut [0; 1])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{reason:?}");
        assert_eq!(trunk.has_ended(), None, "the others go on");
    }
}

#[tokio::test]
async fn a_channel_that_is_dropped_is_reset() {
    let (theirs, ours) = dialled().await;
    let host = tokio::spawn(async move {
        let mut connection = h2::server::handshake(theirs).await.unwrap();
        let (request, mut answer) = connection.accept().await.unwrap().unwrap();
        let _send = answer.send_response(Response::new(()), false).unwrap();
        let driven = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let end = request.into_body().data().await;
        driven.abort();
        end.map(|end| end.unwrap_err().reason())
    });
    let trunk = Trunk::over(ours, TrunkLimits::default()).await.unwrap();
    drop(trunk.open("app:1").await.unwrap());
    assert_eq!(timeout(SOON, host).await.unwrap().unwrap(), Some(Some(Reason::CANCEL)));
}

#[tokio::test]
async fn a_host_that_falls_silent_is_noticed() {
    let quick = Duration::from_millis(200);
    let limits = TrunkLimits { ping: quick, pong: quick, ..TrunkLimits::default() };
    let (theirs, ours) = dialled().await;
    let (fall_silent, silent) = oneshot::channel::<()>();
    // It answers pings and no CONNECT, until it does nothing at all, with its connection open.
    tokio::spawn(async move {
        let never = service_fn(|_| std::future::pending::<io::Result<Response<String>>>());
        let mut serving = pin!(roomy().serve_connection(TokioIo::new(theirs), never));
        tokio::select! {
            _ = &mut serving => {}
            _ = silent => std::future::pending().await,
        }
    });
    let trunk = Trunk::over(ours, limits).await.unwrap();
    assert!(timeout(4 * quick, trunk.ended()).await.is_err(), "pings are answered");
    let opening = trunk.open("app:1");
    fall_silent.send(()).unwrap();
    let (opened, why) = timeout(SOON, async { tokio::join!(opening, trunk.ended()) }).await.unwrap();
    assert_eq!(why, Ended::Silent);
    assert!(matches!(opened, Err(TrunkError::Ended(_))), "{opened:?}");
}

#[tokio::test]
async fn a_trunk_that_is_cut_takes_its_channels_along() {
    let (app, _heads) = canned("").await;
    let (trunk, host) = trunk(TrunkLimits::default()).await;
    let mut channel = trunk.open(&app.to_string()).await.unwrap();
    trunk.cut();
    assert_eq!(timeout(SOON, trunk.ended()).await.unwrap(), Ended::Cut);
    assert!(timeout(SOON, channel.read(&mut [0; 1])).await.unwrap().is_err());
    assert!(channel.write_all(b"x").await.is_err());
    timeout(SOON, host).await.expect("the host sees it").unwrap();
}

#[tokio::test]
async fn a_trunk_that_nobody_holds_is_closed() {
    let (app, _heads) = canned(HELLO).await;
    let (trunk, host) = trunk(TrunkLimits::default()).await;
    let mut channel = trunk.open(&app.to_string()).await.unwrap();
    drop(trunk);
    channel.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(read_exactly(&mut channel, HELLO.len()).await, HELLO.as_bytes(), "a channel holds it as well");
    drop(channel);
    timeout(SOON, host).await.expect("the host is kept").unwrap();
}
