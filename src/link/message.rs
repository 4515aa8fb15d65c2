//! Messages on a stream of bytes: JSON behind its length.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Hears one message of at most `longest` bytes. Not to be dropped while it waits, unless the stream is, too.
///
/// # Errors
/// Where the stream breaks or ends, or what comes is too long or no such message.
pub async fn hear<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin), longest: u32) -> io::Result<M> {
    let len = stream.read_u32().await?;
    if len > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut text).await?;
    if u32::try_from(text.len()) != Ok(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Says one.
///
/// # Errors
/// Where the stream breaks.
pub async fn say(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    stream.write_u32(u32::try_from(text.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&text).await?;
    stream.flush().await
}
