//! What a channel can take from the others, and a host from its gateway.

use std::time::Duration;

use nginx_free::trunk::{Trunk, TrunkError, TrunkLimits};
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};

use super::{GET, HELLO, far::*};
use crate::support::*;

/// Readers that do not read, as many as there may be but one, leave that one its way.
#[tokio::test]
async fn those_who_stand_still_do_not_hold_up_the_others() {
    let flood = app(|number, mut stream| async move {
        let (chunk, most) = (vec![b'x'; 64 * 1024], if number < 31 { usize::MAX } else { 16 << 20 });
        let mut sent = 0;
        while sent < most {
            stream.write_all(&chunk).await?;
            sent += chunk.len();
        }
        Ok(())
    })
    .await;
    let limits = TrunkLimits { channels: 32, window: 64 * 1024, ..TrunkLimits::default() };
    let (trunk, _host) = trunk(limits).await;
    let mut still = Vec::new();
    for _ in 0..31 {
        let mut channel = trunk.open(&flood.to_string()).await.unwrap();
        assert_eq!(read_exactly(&mut channel, 1).await, b"x");
        still.push(channel);
    }
    // It carries far more than all windows together: long before its end, nothing is left in them for the others.
    let mut moving = trunk.open(&flood.to_string()).await.unwrap();
    let mut sink = tokio::io::sink();
    let carried = timeout(SOON, tokio::io::copy(&mut moving, &mut sink)).await.expect("it is held up");
    assert_eq!(carried.unwrap(), 16 << 20);
}

/// The same the other way: apps that do not read leave the host no more than their own windows.
#[tokio::test]
async fn apps_that_stand_still_do_not_hold_up_the_others() {
    let (seen, mut ends) = mpsc::unbounded_channel();
    let app = app(move |number, mut stream| {
        let seen = seen.clone();
        async move {
            if number < 31 {
                return std::future::pending().await;
            }
            let received = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            let _ = seen.send(received);
            Ok(())
        }
    })
    .await;
    let (trunk, _host) = trunk(TrunkLimits { channels: 32, ..TrunkLimits::default() }).await;
    let chunk = vec![b'x'; 1 << 20];
    let mut still = Vec::new();
    for _ in 0..31 {
        let mut channel = trunk.open(&app.to_string()).await.unwrap();
        let stuck = async { while channel.write_all(&chunk).await.is_ok() {} };
        assert!(timeout(Duration::from_millis(100), stuck).await.is_err(), "nobody took it");
        still.push(channel);
    }
    let mut moving = trunk.open(&app.to_string()).await.unwrap();
    for _ in 0..16 {
        timeout(SOON, moving.write_all(&chunk)).await.expect("it is held up").unwrap();
    }
    moving.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, ends.recv()).await.unwrap(), Some(16 << 20));
}

/// A write that was taken in part has asked for more of the window than it got. What its writer does not come back for is
/// the others'.
#[tokio::test]
async fn half_a_write_keeps_no_window_for_its_other_half() {
    let (theirs, ours) = dialled().await;
    let (opened, mut bodies) = mpsc::unbounded_channel();
    // The window of all of its streams is no larger than that of each: 65,535 bytes.
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(theirs).await.unwrap();
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            let send = answer.send_response(http::Response::new(()), false).unwrap();
            let _ = opened.send((request.into_body(), send));
        }
    });
    let trunk = Trunk::over(ours, TrunkLimits::default()).await.unwrap();
    let (mut full, mut half) = (trunk.open("a:1").await.unwrap(), trunk.open("a:2").await.unwrap());
    full.write_all(&[0; 65_520]).await.unwrap();
    assert_eq!(half.write(&[0; 65_536]).await.unwrap(), 15, "all that was left");
    let (mut body, _send) = bodies.recv().await.unwrap();
    let mut taken = 0;
    while taken < 65_520 {
        taken += timeout(SOON, body.data()).await.unwrap().unwrap().unwrap().len();
    }
    body.flow_control().release_capacity(taken).unwrap();
    timeout(SOON, full.write_all(&[0; 65_000])).await.expect("it is kept for nobody").unwrap();
}

#[tokio::test]
async fn what_is_refused_opens_nothing_and_keeps_nothing() {
    let (app, _heads) = canned(HELLO).await;
    let (trunk, _host) = trunk(TrunkLimits { window: 64 * 1024, ..TrunkLimits::default() }).await;
    // Were what they say kept, it would fill the window of the whole trunk.
    for _ in 0..300 {
        let refused = timeout(SOON, trunk.open(BABBLER)).await.expect("the host does not get through");
        assert!(matches!(refused, Err(TrunkError::Refused(status)) if status == 403), "{refused:?}");
    }
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let refused = gateway(&nobody, Some(trunk.clone())).await.talk(GET).await;
    assert_eq!(status(&refused), 502, "{refused}");
    assert!(gateway(&app.to_string(), Some(trunk.clone())).await.talk(GET).await.ends_with("hello"));
    assert!(matches!(trunk.open("localhost").await, Err(TrunkError::BadTarget(_))));
    assert_eq!(trunk.has_ended(), None);
}

#[tokio::test]
async fn one_channel_too_many_is_told_so() {
    let (app, mut heads) = canned("").await;
    let few = TrunkLimits { channels: 2, ..TrunkLimits::default() };
    let (ours, _host) = trunk(few).await;
    let (theirs, stream) = dialled().await;
    let _other = host(theirs, roomy().max_concurrent_streams(2));
    for trunk in [ours, Trunk::over(stream, TrunkLimits::default()).await.unwrap()] {
        let gateway = gateway(&app.to_string(), Some(trunk.clone())).await;
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let mut client = gateway.connect().await;
            client.write_all(GET.as_bytes()).await.unwrap();
            heads.recv().await.unwrap();
            waiting.push(client);
        }
        let refused = gateway.talk(GET).await;
        assert_eq!((status(&refused), field(&refused, "retry-after")), (503, Some("1")), "{refused}");
        assert!(matches!(trunk.open("a:1").await, Err(TrunkError::Full)));
    }
}

#[tokio::test]
async fn what_does_not_speak_http2_is_no_trunk() {
    let quick = TrunkLimits { handshake: Duration::from_millis(200), ..TrunkLimits::default() };
    let (mut theirs, ours) = dialled().await;
    assert!(matches!(Trunk::over(ours, quick).await, Err(TrunkError::TimedOut)), "it says nothing");
    read_all(&mut theirs).await;

    let (mut theirs, ours) = dialled().await;
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let told = timeout(SOON, Trunk::over(ours, TrunkLimits::default())).await.unwrap();
    assert!(matches!(told, Err(TrunkError::Ended(_))), "{told:?}");
}
