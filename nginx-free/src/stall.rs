//! How long a stream of HTTP/2 may wait for its client. Its socket does not show who waits: a client that opens no window
//! leaves it empty. So each answer's body says what it has given out, and the stream it goes on is reset where that is
//! not taken; the others of the connection go on.
//!
//! And those that are late wait here to be begun (see [`Seat::stream`]).

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use hyper::rt::Executor;

use crate::{patience::Patience, room::Seat};

tokio::task_local! {
    static STREAM: Arc<Taken>;
}

/// What an answer's body has given out.
#[derive(Default)]
pub(crate) struct Taken {
    /// Bytes that wait for the client.
    held: AtomicUsize,
    /// Bytes that have waited, and were taken since this was last looked at.
    moved: AtomicUsize,
    /// The request was one too many when it came.
    late: bool,
}

/// Whether the stream whose request is answered here was one too many when it came.
pub(crate) fn is_late() -> bool {
    STREAM.try_with(|taken| taken.late).unwrap_or(false)
}

impl Taken {
    /// That of the stream whose request is answered here; `None` in HTTP/1.1.
    pub(crate) fn here() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The body is asked for more: all that it gave was taken.
    pub(crate) fn asked(&self) {
        self.moved.fetch_add(self.held.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The body has given this much.
    pub(crate) fn gave(&self, bytes: usize) {
        self.held.store(bytes, Ordering::Relaxed);
    }
}

/// Runs the streams of a connection, each for as long as its client does not keep it waiting for too long.
#[derive(Clone)]
pub(crate) struct Streams {
    seat: Arc<Seat>,
    stall: Duration,
}

impl Streams {
    pub(crate) fn new(seat: Arc<Seat>, stall: Duration) -> Self {
        Self { seat, stall }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Dropped, it is reset.
        let Some(place) = self.seat.stream() else { return };
        let taken = Arc::new(Taken { late: place.late().is_some(), ..Taken::default() });
        let mut patience = Patience::new(self.stall);
        let watched = Arc::clone(&taken);
        // Boxed here, for it is handed on several times until it stands in its task.
        let mut stream = Box::pin(stream);
        tokio::spawn(STREAM.scope(taken, async move {
            if let Some(wait) = place.late() {
                // Boxed, for nearly none waits.
                Box::pin(tokio::time::sleep(wait)).await;
            }
            poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let moved = watched.moved.swap(0, Ordering::Relaxed);
                let waits = watched.held.load(Ordering::Relaxed) > 0;
                if moved > 0 || !waits {
                    patience.moved(moved);
                }
                if waits { patience.poll_out(cx) } else { Poll::Pending }
            })
            .await;
        }));
    }
}
