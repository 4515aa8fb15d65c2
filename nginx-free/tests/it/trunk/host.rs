//! The host's half: what is asked for, what is refused, and how it ends.

use std::{io, time::Duration};

use h2::Reason;
use http::{Method, Request, StatusCode};
use nginx_free::trunk::{Asked, Ended, Trunk, TrunkError, TrunkLimits, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::far::dialled;
use crate::support::*;

/// A trunk, and the host at its other end. The host is gone without a word when that is aborted.
async fn pair<A>(answer: impl Fn(Asked) -> A + Send + 'static) -> (Trunk, JoinHandle<Ended>)
where
    A: Future<Output = ()> + Send + 'static,
{
    let (theirs, ours) = dialled().await;
    let host = tokio::spawn(serve(theirs, TrunkLimits::default(), answer));
    (Trunk::over(ours, TrunkLimits::default()).await.unwrap(), host)
}

async fn echo(asked: Asked) {
    let (mut read, mut write) = split(asked.accept().unwrap());
    copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_channel_says_what_it_is_for_and_carries_both_ways() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (trunk, _host) = pair(move |asked| {
        let known = (asked.authority().to_owned(), asked.protocol().map(str::to_owned));
        tell.send((known, asked.path().map(str::to_owned))).unwrap();
        echo(asked)
    })
    .await;
    let mut channel = trunk.open("app:1").await.unwrap();
    channel.write_all(b"hello").await.unwrap();
    assert_eq!(read_exactly(&mut channel, 5).await, b"hello");
    channel.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, channel.read(&mut [0; 1])).await.unwrap().unwrap(), 0, "an end is an end");
    assert_eq!(told.recv().await.unwrap(), (("app:1".to_owned(), None), None));

    let _terminal = trunk.open_protocol("session:1", "/pty?rows=24", "terminal").await.unwrap();
    let known = ("session:1".to_owned(), Some("terminal".to_owned()));
    assert_eq!(told.recv().await.unwrap(), (known, Some("/pty?rows=24".to_owned())));
}

#[tokio::test]
async fn what_is_refused_or_dropped_opens_nothing() {
    let (trunk, _host) = pair(|asked| async {
        match asked.authority() {
            "dropped:1" => drop(asked),
            "opens:1" => asked.refuse(StatusCode::OK),
            "interim:1" => asked.refuse(StatusCode::CONTINUE),
            _ => asked.refuse(StatusCode::FORBIDDEN),
        }
    })
    .await;
    for (to, status) in [("no:1", 403), ("opens:1", 500), ("interim:1", 500)] {
        let refused = trunk.open(to).await;
        assert!(matches!(refused, Err(TrunkError::Refused(got)) if got == status), "{to}: {refused:?}");
    }
    let dropped = trunk.open("dropped:1").await;
    assert!(matches!(dropped, Err(TrunkError::Reset(_))), "{dropped:?}");
    assert_eq!(trunk.has_ended(), None);
}

#[tokio::test]
async fn nothing_but_connect_is_taken() {
    let (theirs, ours) = dialled().await;
    tokio::spawn(serve(theirs, TrunkLimits::default(), |asked| async move { panic!("{asked:?}") }));
    let (mut streams, connection) = h2::client::handshake(ours).await.unwrap();
    tokio::spawn(connection);
    for (method, uri, status) in [
        (Method::GET, "http://app:1/", 405),
        (Method::POST, "http://app:1/", 405),
        (Method::CONNECT, "app", 400),
    ] {
        let request = Request::builder().method(&method).uri(uri).body(()).unwrap();
        let (answer, _send) = streams.send_request(request, false).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{method} {uri}");
    }
}

#[tokio::test]
async fn a_host_that_drops_a_channel_resets_it_and_one_that_ends_it_does_not() {
    let (trunk, _host) = pair(|asked| async {
        let cut = asked.authority() == "cut:1";
        let mut channel = asked.accept().unwrap();
        channel.write_all(b"half").await.unwrap();
        read_exactly(&mut channel, 4).await;
        if !cut {
            channel.shutdown().await.unwrap();
        }
    })
    .await;
    for (to, end) in [("cut:1", Err(io::ErrorKind::ConnectionReset)), ("whole:1", Ok(0))] {
        let mut channel = trunk.open(to).await.unwrap();
        assert_eq!(read_exactly(&mut channel, 4).await, b"half");
        channel.write_all(b"read").await.unwrap();
        let read = timeout(SOON, channel.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.map_err(|error| error.kind()), end, "{to}");
    }
}

#[tokio::test]
async fn a_channel_that_is_dropped_is_reset_at_the_host() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (trunk, _host) = pair(move |asked| {
        let tell = tell.clone();
        async move {
            let mut channel = asked.accept().unwrap();
            tell.send(channel.read(&mut [0; 1]).await.map_err(|error| error.kind())).unwrap();
        }
    })
    .await;
    drop(trunk.open("app:1").await.unwrap());
    let read = timeout(SOON, told.recv()).await.unwrap().unwrap();
    assert_eq!(read, Err(io::ErrorKind::ConnectionReset));
}

/// Whoever asks and takes it back, again and again, does not get more answers at a time than there may be channels.
#[tokio::test]
async fn channels_that_are_taken_back_take_their_places_until_they_are_answered() {
    let (theirs, ours) = dialled().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let limits = TrunkLimits { channels: 4, ..TrunkLimits::default() };
    tokio::spawn(serve(theirs, limits, move |asked| {
        tell.send(()).unwrap();
        async move {
            std::future::pending::<()>().await;
            drop(asked);
        }
    }));
    let (mut streams, connection) = h2::client::handshake(ours).await.unwrap();
    tokio::spawn(connection);
    let mut refused = 0;
    for _ in 0..20 {
        let request = Request::builder().method(Method::CONNECT).uri("app:1").body(()).unwrap();
        streams = streams.ready().await.unwrap();
        let (answer, mut send) = streams.send_request(request, false).unwrap();
        tokio::select! {
            answer = answer => {
                assert_eq!(answer.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
                refused += 1;
            }
            asked = told.recv() => {
                asked.unwrap();
                send.send_reset(Reason::CANCEL);
            }
        }
    }
    assert_eq!(refused, 12, "twice as many as there may be were answered");
}

#[tokio::test]
async fn the_host_sees_how_its_trunk_ends() {
    let (trunk, host) = pair(echo).await;
    let mut channel = trunk.open("app:1").await.unwrap();
    drop(trunk);
    channel.write_all(b"still").await.unwrap();
    assert_eq!(read_exactly(&mut channel, 5).await, b"still");
    channel.shutdown().await.unwrap();
    assert_eq!(channel.read(&mut [0; 1]).await.unwrap(), 0);
    drop(channel);
    assert_eq!(timeout(SOON, host).await.unwrap().unwrap(), Ended::Closed);

    let quick = Duration::from_millis(100);
    let limits = TrunkLimits { handshake: quick, ping: quick, pong: quick, ..TrunkLimits::default() };
    let (theirs, _ours) = dialled().await;
    let why = timeout(SOON, serve(theirs, limits.clone(), echo)).await.unwrap();
    assert_eq!(why, Ended::Silent, "it never says what it is");

    let (theirs, mut ours) = dialled().await;
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let why = timeout(SOON, serve(theirs, limits.clone(), echo)).await.unwrap();
    assert!(matches!(why, Ended::Broken(_)), "{why:?}");

    let (theirs, ours) = dialled().await;
    let (_streams, _idle) = h2::client::handshake(ours).await.unwrap();
    let why = timeout(SOON, serve(theirs, limits, echo)).await.unwrap();
    assert_eq!(why, Ended::Silent, "it answers no ping");
}

#[tokio::test]
async fn a_host_that_is_dropped_cuts_its_channels() {
    let (trunk, host) = pair(echo).await;
    let mut channel = trunk.open("app:1").await.unwrap();
    host.abort();
    assert!(timeout(SOON, channel.read(&mut [0; 1])).await.unwrap().is_err());
    timeout(SOON, trunk.ended()).await.unwrap();
}

/// A channel that nobody reads, and that is written to byte by byte: each is a frame, and frames are dear.
#[tokio::test]
async fn one_channel_of_small_pieces_does_not_end_the_trunk() {
    let (theirs, ours) = dialled().await;
    let limits = TrunkLimits { window: 32 * 1024, ..TrunkLimits::default() };
    tokio::spawn(serve(theirs, limits.clone(), |asked| async {
        if asked.authority() == "echo:1" {
            return echo(asked).await;
        }
        let mut channel = asked.accept().unwrap();
        while channel.write_all(b"x").await.is_ok() {}
    }));
    let trunk = Trunk::over(ours, limits).await.unwrap();
    let mut still = trunk.open("drip:1").await.unwrap();
    let mut moving = trunk.open("echo:1").await.unwrap();
    for _ in 0..500 {
        moving.write_all(&[7; 1000]).await.unwrap();
        timeout(SOON, async { assert_eq!(read_exactly(&mut moving, 1000).await, [7; 1000]) }).await.unwrap();
    }
    assert_eq!(trunk.has_ended(), None);
    assert_eq!(read_exactly(&mut still, 40_000).await, [b'x'; 40_000]);
}
