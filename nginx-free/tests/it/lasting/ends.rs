//! How a stream ends, and how it does not.

use std::io;

use nginx_free::lasting::LastingLimits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::timeout,
};

use super::both;
use crate::support::*;

#[tokio::test]
async fn what_is_written_arrives_and_the_end_as_well() {
    let ((mut a, mut by_a), (mut b, mut by_b)) = both(&LastingLimits::default());
    let (here, there) = duplex(1000);
    let carried = tokio::spawn(async move { tokio::join!(by_a.carry(here), by_b.carry(there)) });
    a.write_all(b"there").await.unwrap();
    assert_eq!(read_exactly(&mut b, 5).await, b"there");
    b.write_all(b"and back").await.unwrap();
    assert_eq!(read_exactly(&mut a, 8).await, b"and back");
    a.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, b.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert_eq!(a.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    b.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, a.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let (a, b) = timeout(SOON, carried).await.unwrap().unwrap();
    a.and(b).unwrap();
}

#[tokio::test]
async fn what_was_written_before_an_end_arrives_though_its_writer_is_gone() {
    let ((mut a, mut by_a), (mut b, mut by_b)) = both(&LastingLimits::default());
    let text = vec![7; 3 << 20];
    a.write_all(&text).await.unwrap();
    a.shutdown().await.unwrap();
    drop(a);
    b.write_all(b"nobody reads this").await.unwrap();
    let (here, there) = duplex(1000);
    let carried = tokio::spawn(async move { tokio::join!(by_a.carry(here), by_b.carry(there)) });
    let mut read = Vec::new();
    timeout(SOON, b.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, text);
    let (a, b_carried) = timeout(SOON, carried).await.unwrap().unwrap();
    a.and(b_carried).unwrap();
    assert_eq!(b.write(b"more").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_is_gone_at_the_other_end_over_the_next_connection() {
    let ((mut a, mut by_a), (mut b, mut by_b)) = both(&LastingLimits::default());
    let (here, there) = duplex(1000);
    let half = async {
        a.write_all(b"half").await.unwrap();
        read_exactly(&mut b, 4).await;
    };
    tokio::select! {
        ended = async { tokio::join!(by_a.carry(here), by_b.carry(there)) } => panic!("{ended:?}"),
        () = half => {}
    }
    assert!(!by_a.is_dropped());
    drop(a);
    assert!(by_a.is_dropped());
    let (here, there) = duplex(1000);
    let (a, carried) = tokio::join!(by_a.carry(here), by_b.carry(there));
    a.and(carried).unwrap();
    assert_eq!(b.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(b.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // There is nothing to be carried any more, and nobody is waited for.
    by_b.carry(duplex(1).0).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_given_up_fails_and_says_why() {
    let ((mut a, by_a), (mut b, by_b)) = both(&LastingLimits::default());
    let reading = tokio::spawn(async move { a.read(&mut [0; 1]).await });
    tokio::task::yield_now().await;
    by_a.give_up("the job has ended");
    let why = timeout(SOON, reading).await.unwrap().unwrap().unwrap_err();
    assert_eq!(
        (why.kind(), why.to_string().as_str()),
        (io::ErrorKind::ConnectionAborted, "the job has ended")
    );
    drop(by_b);
    assert_eq!(b.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}
