//! WebSockets through the proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: node\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_websocket_goes_through_both_ways() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "sec-websocket-key"), Some(KEY));
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
        stream
            .write_all(b"HTTP/1.1 101 Hi\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly")
            .await?;
        let mut four = [0; 4];
        stream.read_exact(&mut four).await?;
        stream.write_all(&four).await
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    client.write_all(format!("{HANDSHAKE}X-Forwarded-For: 6.6.6.6\r\n\r\nping").as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(read_exactly(&mut client, 9).await, b"earlyping");
    assert_eq!(read_all(&mut client).await, "");
}
