//! Streams that outlive their connections.

use nginx_free::lasting::{LastingLimits, lasting};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::timeout,
};

use crate::support::*;

#[tokio::test]
async fn what_is_written_arrives_and_the_end_as_well() {
    let ((mut a, mut by_a), (mut b, mut by_b)) =
        (lasting(LastingLimits::default()), lasting(LastingLimits::default()));
    let (here, there) = duplex(1000);
    let carried = tokio::spawn(async move { tokio::join!(by_a.carry(here), by_b.carry(there)) });
    a.write_all(b"there").await.unwrap();
    assert_eq!(read_exactly(&mut b, 5).await, b"there");
    b.write_all(b"and back").await.unwrap();
    assert_eq!(read_exactly(&mut a, 8).await, b"and back");
    a.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, b.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    b.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, a.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let (a, b) = timeout(SOON, carried).await.unwrap().unwrap();
    (a.unwrap(), b.unwrap());
}
