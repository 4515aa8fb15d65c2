//! Acknowledges at once what a new client sends.
//!
//! OpenSSH's client lets the kernel gather what it sends until it has signed in (Nagle's algorithm): its half of the key exchange stays
//! with it until its list of algorithms was acknowledged. A server has said all it can say by then, so no answer of ours carries that
//! acknowledgement, and the kernel holds a bare one back for 40 ms, which is more than all the rest of a sign-in takes.

use std::{os::fd::OwnedFd, sync::Arc};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::io::InspectReader;

/// So many reads: the client's version, its algorithms, its half of the key exchange, and what it may send in pieces.
const READS: usize = 8;

/// `stream`, whose first reads are acknowledged as they are made. `socket` is the same connection.
pub(super) fn prompt(
    stream: TcpStream,
    socket: Arc<OwnedFd>,
) -> InspectReader<TcpStream, impl FnMut(&[u8]) + Send + Unpin + 'static> {
    let mut left = READS;
    InspectReader::new(stream, move |_: &[u8]| {
        if left > 0 {
            left -= 1;
            // The kernel goes back to waiting by itself. It is only slower without.
            let _ = SockRef::from(&*socket).set_tcp_quickack(true);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Bytes sent from this port that were not acknowledged, by proc(5).
    fn unacknowledged(port: u16) -> u64 {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let of_port = |line: &&str| {
            line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
        };
        let line = table.lines().find(of_port).unwrap();
        let queues = line.split_whitespace().nth(4).unwrap();
        u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
    }

    #[tokio::test]
    async fn what_a_new_client_sends_is_acknowledged_as_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let port = client.local_addr().unwrap().port();
        let (stream, _) = listener.accept().await.unwrap();
        let socket = Arc::new(stream.as_fd().try_clone_to_owned().unwrap());
        let mut server = prompt(stream, socket);
        let (mut room, mut held_back) = ([0; 16], 0);
        for _ in 0..READS {
            client.write_all(b"asked").await.unwrap();
            let read = server.read(&mut room).await.unwrap();
            assert_eq!(&room[..read], b"asked");
            held_back += usize::from(unacknowledged(port) > 0);
            // An answer is what has the kernel wait for the next one.
            server.write_all(b"told").await.unwrap();
            client.read_exact(&mut room[..4]).await.unwrap();
        }
        // A busy machine may deliver one late.
        assert!(held_back < READS / 2, "{held_back} of {READS} were");
    }
}
