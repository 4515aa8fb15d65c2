//! Channels joined with a stream at the host: what goes through arrives, and no end is lost or made up.

use std::{io, time::Duration};

use nginx_free::trunk::{Asked, Channel, Trunk, TrunkLimits, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};

use super::far::dialled;
use crate::support::*;

/// A channel that the host joins with `stream`, and what comes of that.
async fn joined(
    limits: TrunkLimits,
    stream: DuplexStream,
) -> (Trunk, Channel, mpsc::Receiver<io::Result<()>>) {
    let (theirs, ours) = dialled().await;
    let (tell, told) = mpsc::channel(1);
    let stream = std::sync::Mutex::new(Some(stream));
    let answer = move |asked: Asked| {
        let (tell, stream) = (tell.clone(), stream.lock().unwrap().take());
        async move { tell.send(asked.accept().unwrap().join(stream.unwrap()).await).await.unwrap() }
    };
    tokio::spawn(serve(theirs, limits.clone(), answer));
    let trunk = Trunk::over(ours, limits).await.unwrap();
    let channel = trunk.open("app:1").await.unwrap();
    (trunk, channel, told)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length as u64).map(|number| (number.wrapping_mul(0x9E37_79B9) >> 24).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn all_arrives_both_ways_in_pieces_of_any_size() {
    for room in [1, 100, 8 * 1024, 100_000] {
        let (app, stream) = duplex(room);
        let (_trunk, channel, mut told) = joined(TrunkLimits::default(), stream).await;
        let length = 300_000.min(room * 2_000);
        let all = bytes(length);
        let write = |mut to: Box<dyn tokio::io::AsyncWrite + Unpin + Send>, all: Vec<u8>| async move {
            let (mut rest, mut size) = (&all[..], 1);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                to.write_all(now).await.unwrap();
                (rest, size) = (later, size * 3 % 90_001);
            }
            to.shutdown().await.unwrap();
        };
        let (mut near_read, near_write) = tokio::io::split(channel);
        let (mut far_read, far_write) = tokio::io::split(app);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let moved = async {
            let reading = async {
                tokio::try_join!(far_read.read_to_end(&mut there), near_read.read_to_end(&mut back))
            };
            tokio::join!(
                write(Box::new(near_write), all.clone()),
                write(Box::new(far_write), all.clone()),
                reading
            )
        };
        timeout(SOON, moved).await.expect("it stands still").2.unwrap();
        assert!(there == all && back == all, "{room}");
        timeout(SOON, told.recv()).await.unwrap().unwrap().unwrap();
    }
}

/// The end of one direction leaves the other as it is.
#[tokio::test]
async fn half_an_end_is_half_an_end() {
    let (mut app, stream) = duplex(1000);
    let (_trunk, mut channel, mut told) = joined(TrunkLimits::default(), stream).await;
    channel.write_all(b"all of it").await.unwrap();
    channel.shutdown().await.unwrap();
    assert_eq!(read_all(&mut app).await, "all of it");
    app.write_all(b"and an answer").await.unwrap();
    assert_eq!(read_exactly(&mut channel, 13).await, b"and an answer");
    assert!(told.try_recv().is_err());
    app.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, channel.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    timeout(SOON, told.recv()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_breaks_one_breaks_the_other_and_is_no_end() {
    let (app, stream) = duplex(1000);
    let (_trunk, mut channel, mut told) = joined(TrunkLimits::default(), stream).await;
    drop(app);
    // Nothing comes any more, as after a FIN; but what is written breaks it.
    assert_eq!(timeout(SOON, channel.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    channel.write_all(b"nobody").await.unwrap();
    timeout(SOON, told.recv()).await.unwrap().unwrap().unwrap_err();

    let (mut app, stream) = duplex(1000);
    let (_trunk, channel, mut told) = joined(TrunkLimits::default(), stream).await;
    drop(channel);
    timeout(SOON, told.recv()).await.unwrap().unwrap().unwrap_err();
    // Dropped, for an in-memory stream has nothing that says more.
    assert_eq!(timeout(SOON, app.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

/// A reader who does not read leaves what is joined no more than its window, and what a program on either side holds.
#[tokio::test]
async fn nobody_who_stands_still_makes_the_other_run_on() {
    let (mut app, stream) = duplex(1000);
    let limits = TrunkLimits { window: 64 * 1024, ..TrunkLimits::default() };
    let (_trunk, mut channel, _told) = joined(limits, stream).await;
    let mut written = 0;
    let writing = async {
        loop {
            app.write_all(&[7; 100]).await.unwrap();
            written += 100;
        }
    };
    assert!(timeout(Duration::from_millis(300), writing).await.is_err());
    // The window, what is read ahead at the host, and the stream's own room.
    assert!((64 * 1024..=2 * 64 * 1024 + 1000).contains(&written), "{written}");
    assert_eq!(read_exactly(&mut channel, written).await, vec![7; written]);
}
