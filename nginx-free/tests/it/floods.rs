//! Floods of HTTP/2 frames, written by hand: the one who sends them loses the connection, others do not notice.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    http2::{tls, with_tls},
    support::*,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET https://node/` in HPACK.
fn get() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x41, 4];
    block.extend(b"node");
    block
}

/// Sends frames after a good beginning; whether the connection ended, by GOAWAY or at once.
async fn flood(frames: Vec<u8>) -> bool {
    let (app, _heads) = canned(HELLO).await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    let stream = tls(&proxy, &connector).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    bytes.extend(frames);
    let sending = tokio::spawn(async move {
        // The connection may be gone before all is written: that is the point.
        let _ = write.write_all(&bytes).await;
        write
    });
    let ended = tokio::time::timeout(SOON, async {
        loop {
            let mut head = [0; 9];
            if read.read_exact(&mut head).await.is_err() || head[3] == GOAWAY {
                return true;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if read.read_exact(&mut payload).await.is_err() {
                return true;
            }
        }
    });
    let ended = ended.await.unwrap_or(false);
    sending.abort();

    let mut other = connector_http1(&proxy, &connector).await;
    other.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut other).await.ends_with("hello"), "somebody else was not served");
    ended
}

/// The same client without HTTP/2.
async fn connector_http1(
    proxy: &Running,
    connector: &tokio_rustls::TlsConnector,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut config = connector.config().as_ref().clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls(proxy, &tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))).await
}

#[tokio::test]
async fn rapid_resets() {
    let frames = (0..2000_u32)
        .flat_map(|n| [frame(1, 5, 2 * n + 1, &get()), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat())
        .collect();
    assert!(flood(frames).await);
}

#[tokio::test]
async fn continuations_without_end() {
    let mut frames = frame(1, 1, 1, &get());
    for n in 0..2000 {
        let field = [&[0x00, 5][..], format!("x{n:04}").as_bytes(), &[0]].concat();
        frames.extend(frame(9, 0, 1, &field));
    }
    assert!(flood(frames).await);
}

#[tokio::test]
async fn a_list_of_fields_that_unpacks_to_megabytes() {
    // One field of 4000 bytes goes into the table, and is then named again and again with one byte each.
    let mut block = get();
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend(vec![b'y'; 4000]);
    block.extend(vec![0xbe; 8000]);
    let mut frames = frame(1, 5, 1, &block);
    // It may be answered with 431 or an end of the stream; a good one after it must still be possible, or the connection over.
    frames.extend(frame(0, 0, 0, b"a frame on no stream"));
    assert!(flood(frames).await);
}

#[tokio::test]
async fn data_on_streams_that_nobody_opened() {
    assert!(flood(frame(0, 0, 1, b"x")).await);
    assert!(flood(frame(8, 0, 0, &0_u32.to_be_bytes())).await);
}
