//! One client connection: its TLS handshake, then HTTP/1.1 or HTTP/2 until it ends, idles for too long, or the run ends.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use http::header;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{task::coop, time::Instant};
use tokio_rustls::TlsAcceptor;

use crate::{
    Admit, Limits, Peer,
    cork::{Push, cork},
    fields::Scheme,
    io::{ClientIo, Socket},
    metrics::add,
    proxy::Shared,
    room::{Exit, Seat},
    service::{Run, Service, busy, last},
    stall::Streams,
    ticket::Ticketed,
    tls::{AT_ONCE, FRAME_HEADS},
    wire::Hold,
};

/// Serves one connection to its end.
pub(crate) async fn serve<A: Admit>(
    shared: Arc<Shared<A>>,
    seat: Arc<Seat>,
    socket: Socket,
    peer: Peer,
    tls: Option<Arc<ServerConfig>>,
    run: Run,
) {
    let limits = shared.room.limits.clone();
    let (io, scheme) = match tls {
        None => (ClientIo::plain(socket), Scheme::Http),
        Some(config) => match Box::pin(handshake(config, socket, &run, limits.handshake)).await {
            Some(io) => (io, Scheme::Https),
            None => return add(&seat.metrics().handshakes_failed, 1),
        },
    };
    let serving = |hold| Arc::new(Service { shared, seat, peer, scheme, run, word: OnceLock::new(), hold });
    if io.speaks_http2() {
        // Boxed, so that it takes no room in connections that do not speak it.
        Box::pin(http2(io, &serving(None), &limits)).await;
    } else {
        let hold = Hold::new(io);
        http1(hold.clone(), &serving(Some(hold)), &limits).await;
    }
}

/// Tells the client of a connection too many that it is, where that can be done in little time.
pub(crate) async fn turn_away(
    socket: Socket,
    tls: Option<Arc<ServerConfig>>,
    run: Run,
    limits: Limits,
    _exit: Exit,
) {
    let turned_away = async {
        let io = match tls {
            None => ClientIo::plain(socket),
            Some(config) => match handshake(config, socket, &run, limits.leave).await {
                Some(io) => io,
                None => return,
            },
        };
        let told = |_| async { Ok::<_, Infallible>(last(busy("too many connections are open"))) };
        // What goes wrong with it is nobody's loss.
        if io.speaks_http2() {
            let told = move |request| async move {
                let mut answer = told(request).await?;
                answer.headers_mut().remove(header::CONNECTION);
                Ok::<_, Infallible>(answer)
            };
            let builder = http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(io), service_fn(told)).await;
        } else {
            let _ = http1::Builder::new()
                .max_header_size(limits.head_bytes)
                .serve_connection(TokioIo::new(io), service_fn(told))
                .await;
        }
    };
    let _ = tokio::time::timeout(limits.leave, turned_away).await;
}

async fn handshake(
    config: Arc<ServerConfig>,
    socket: Socket,
    run: &Run,
    limit: Duration,
) -> Option<ClientIo> {
    let accepted = TlsAcceptor::from(config).accept(Ticketed::new(socket));
    tokio::select! {
        shaken = tokio::time::timeout(limit, accepted) => match shaken {
            Ok(Ok(mut stream)) => {
                let (ticketed, tls) = stream.get_mut();
                ticketed.shaken();
                tls.set_buffer_limit(Some(AT_ONCE));
                Some(ClientIo::tls(stream))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        },
        () = run.ended() => None,
    }
}

/// A connection that says nothing for so long after an answer, or up to twice that, is served without hyper until it does:
/// hyper's two buffers are most of what an idle connection takes. To make hyper anew takes some microseconds.
const LULL: Duration = Duration::from_millis(125);

/// Serves requests as they come, and waits in between.
async fn http1<A: Admit>(hold: Hold<ClientIo>, service: &Arc<Service<A>>, limits: &Limits) {
    loop {
        match requests(&hold, service, limits).await {
            Pause::Lull => {}
            Pause::Ended(Ok(())) => return,
            Pause::Ended(Err(error)) => {
                return tracing::debug!(%error, peer = %service.peer, "a client's connection broke off");
            }
        }
        let arrival = tokio::time::timeout(limits.head, poll_fn(|cx| hold.poll_arrival(cx)));
        let arrived = tokio::select! {
            arrived = arrival => matches!(arrived, Ok(Ok(true))),
            () = service.run.ended() => false,
        };
        if !arrived {
            let goodbye = poll_fn(|cx| hold.poll_shutdown(cx));
            drop(tokio::time::timeout(limits.leave, goodbye).await);
            return;
        }
    }
}

/// Why hyper is not needed any more.
enum Pause {
    Ended(hyper::Result<()>),
    Lull,
}

/// Serves requests until the connection ends, or none comes for a while.
async fn requests<A: Admit>(hold: &Hold<ClientIo>, service: &Arc<Service<A>>, limits: &Limits) -> Pause {
    let answering = Arc::clone(service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_header_size(limits.head_bytes)
        .max_headers(limits.fields)
        .max_buf_size(limits.buffer.max(8192))
        .half_close(false)
        .serve_connection(
            TokioIo::new(hold.wire()),
            service_fn(move |request| Arc::clone(&answering).answer(request)),
        )
        .with_upgrades();
    let mut connection = pin!(connection);
    match until_lull(connection.as_mut(), hold, service).await {
        Some(pause) => pause,
        None => {
            connection.as_mut().graceful_shutdown();
            Pause::Ended(connection.await)
        }
    }
}

/// Runs a connection to its end, or to a lull after an answer; `None` when the run is to end before that. Whether it is,
/// is asked for once: to listen anew at each poll would cost as much as the poll.
async fn until_lull<C, A>(
    mut connection: Pin<&mut C>,
    hold: &Hold<ClientIo>,
    service: &Service<A>,
) -> Option<Pause>
where
    C: Future<Output = hyper::Result<()>>,
{
    // Where the budget of a task is used up, a future of tokio's is not ready and wakes it: it would not be listening.
    let mut closing = pin!(coop::unconstrained(service.run.ended()));
    let mut listening = false;
    let (before, _) = service.seat.turns();
    let mut seen = before;
    let mut lull = pin!(tokio::time::sleep(LULL));
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(Pause::Ended(ended)));
        }
        let (begun, open) = service.seat.turns();
        if open == 0 && begun > before && hold.is_between(begun) {
            // To look now and then whether anything came takes less than to look at the clock each time that it does.
            while lull.as_mut().poll(cx).is_ready() {
                if begun == seen {
                    return Poll::Ready(Some(Pause::Lull));
                }
                seen = begun;
                lull.as_mut().reset(Instant::now() + LULL);
            }
        }
        if listening && !service.run.has_news() {
            return Poll::Pending;
        }
        listening = true;
        closing.as_mut().poll(cx).map(|()| None)
    })
    .await
}

async fn http2<A: Admit>(io: ClientIo, service: &Arc<Service<A>>, limits: &Limits) {
    let answering = Arc::clone(service);
    let send_buffer = limits.buffer;
    let (io, push) = cork(io, limits.buffer.max(CORKED) + FRAME_HEADS);
    let list = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(Streams::new(Arc::clone(&service.seat), limits.send_stall))
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(list)
        .max_send_buf_size(send_buffer)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(
            TokioIo::new(io),
            // hyper and the executor hand a stream on some twenty times before it is first polled: as a box.
            service_fn(move |request| Box::pin(Arc::clone(&answering).answer(request))),
        );
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = pushed(connection.as_mut(), &push) => ended,
        () = idle(&service.seat, limits.idle) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.drain, pushed(connection, &push)).await.unwrap_or(Ok(()))
        }
        () = service.run.ended() => {
            connection.as_mut().graceful_shutdown();
            pushed(connection, &push).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %service.peer, "a client's connection broke off");
    }
}

/// Runs an HTTP/2 connection, and sends what it has written each time it has been polled.
async fn pushed<C>(mut connection: Pin<&mut C>, push: &Push<ClientIo>) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        match push.poll_push(cx) {
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a client is gone");
                Poll::Ready(Ok(()))
            }
            _ => ended,
        }
    })
    .await
}

/// What HTTP/2 may gather at least: less would hold up its own flow control.
const CORKED: usize = 32 * 1024;

/// Ends when nothing was open on the connection for `limit`, or up to twice that.
async fn idle(seat: &Seat, limit: Duration) {
    let (mut seen, _) = seat.turns();
    loop {
        tokio::time::sleep(limit).await;
        let (begun, open) = seat.turns();
        if open == 0 && begun == seen {
            return;
        }
        seen = begun;
    }
}
