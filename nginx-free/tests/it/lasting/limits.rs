//! What the other end can do, and cannot: fall silent, leave unread, lie.

use std::time::Duration;

use nginx_free::lasting::{Broken, Carrier, Lasting, LastingLimits, Misfit, lasting};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, timeout},
};

use super::both;
use crate::support::*;

/// The other end's name, where that is made up.
const THEM: u64 = 77;

fn hello(me: u64, you: u64, received: u64, granted: u64) -> Vec<u8> {
    let numbers = [me, you, received, granted].map(u64::to_be_bytes);
    [b"lasting\x01".as_slice(), &numbers.concat()].concat()
}

fn data(length: u32, bytes: &[u8]) -> Vec<u8> {
    [[1].as_slice(), &length.to_be_bytes(), bytes].concat()
}

fn progress(received: u64, granted: u64) -> Vec<u8> {
    [[2].as_slice(), &received.to_be_bytes(), &granted.to_be_bytes()].concat()
}

const END: &[u8] = &[3];

fn small() -> LastingLimits {
    LastingLimits { unread: 100, ..LastingLimits::default() }
}

/// What becomes of a connection whose other end says this.
async fn told(carrier: &mut Carrier, said: &[&[u8]]) -> Result<(), Broken> {
    let (ours, mut theirs) = duplex(10_000);
    let said = said.concat();
    let talking = async {
        theirs.write_all(&said).await.unwrap();
        // Until it is let go of, or nothing comes for too long.
        while timeout(Duration::from_secs(1), theirs.read(&mut [0; 100]))
            .await
            .is_ok_and(|read| read.unwrap() > 0)
        {}
        drop(theirs);
    };
    tokio::join!(carrier.carry(ours), talking).0
}

/// A stream that has met [`THEM`], and sent them five bytes that nobody has acknowledged.
async fn known() -> (Lasting, Carrier) {
    let (mut stream, mut carrier) = lasting(small());
    stream.write_all(b"hello").await.unwrap();
    let broke = told(&mut carrier, &[&hello(THEM, 0, 0, 100)]).await;
    assert!(matches!(broke, Err(Broken::Connection(_))), "{broke:?}");
    (stream, carrier)
}

#[tokio::test(start_paused = true)]
async fn numbers_that_do_not_fit_resume_nothing() {
    for (said, misfit) in [
        (hello(THEM, 0, 6, 100), Misfit::Unsent { received: 6, sent: 5 }),
        (hello(THEM, 0, u64::MAX, u64::MAX), Misfit::Unsent { received: u64::MAX, sent: 5 }),
        (hello(THEM + 1, 0, 5, 100), Misfit::Stranger),
        (hello(THEM, THEM, 5, 100), Misfit::Stranger),
    ] {
        let (mut stream, mut carrier) = known().await;
        let broke = told(&mut carrier, &[&said]).await;
        assert!(matches!(broke, Err(Broken::Unresumable(why)) if why == misfit), "{misfit:?}: {broke:?}");
        assert!(broke.unwrap_err().is_final());
        stream.write_all(b"the stream is none the worse").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_not_asked_for_again() {
    let (mut stream, mut carrier) = lasting(small());
    stream.write_all(b"hello").await.unwrap();
    let (ours, mut theirs) = duplex(10_000);
    let talking = async {
        theirs.write_all(&hello(THEM, 0, 0, 100)).await.unwrap();
        assert_eq!(read_exactly(&mut theirs, 40 + 5 + 5).await[40..], data(5, b"hello"));
        theirs.write_all(&progress(3, 100)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(theirs);
    };
    let (broke, ()) = tokio::join!(carrier.carry(ours), talking);
    assert!(matches!(broke, Err(Broken::Connection(_))), "{broke:?}");
    let broke = told(&mut carrier, &[&hello(THEM, 0, 2, 100)]).await;
    let forgotten = Misfit::Forgotten { received: 2, acknowledged: 3 };
    assert!(matches!(broke, Err(Broken::Unresumable(why)) if why == forgotten), "{broke:?}");
    let (ours, mut theirs) = duplex(10_000);
    let talking = async {
        theirs.write_all(&hello(THEM, 0, 4, 100)).await.unwrap();
        assert_eq!(
            read_exactly(&mut theirs, 40 + 5 + 1).await[40..],
            data(1, b"o"),
            "the rest is sent again"
        );
    };
    tokio::select! {
        broke = carrier.carry(ours) => panic!("{broke:?}"),
        () = talking => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_made_anew_is_noticed_at_both() {
    let ((mut a, mut by_a), (mut b, mut by_b)) = both(&small());
    a.write_all(b"hello").await.unwrap();
    let (here, there) = duplex(1000);
    tokio::select! {
        ended = async { tokio::join!(by_a.carry(here), by_b.carry(there)) } => panic!("{ended:?}"),
        came = read_exactly(&mut b, 5) => assert_eq!(came, b"hello"),
    }
    let (mut anew, mut by_anew) = lasting(small());
    anew.write_all(b"another five and more").await.unwrap();
    let (here, there) = duplex(1000);
    let (old, new) = tokio::join!(by_a.carry(here), by_anew.carry(there));
    for (which, broke) in [("old", old), ("new", new)] {
        assert!(matches!(broke, Err(Broken::Unresumable(Misfit::Stranger))), "{which}: {broke:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_breaks_the_rules_loses_the_connection_and_not_the_stream() {
    let greeting = hello(THEM, 0, 0, 100);
    let mut cases: Vec<Vec<u8>> = vec![
        data(101, &[]),
        [data(60, &[0; 60]), data(41, &[])].concat(),
        data(0, &[]),
        data(u32::MAX, &[]),
        [END, &data(1, b"x")].concat(),
        [END, END].concat(),
        progress(6, 100),
        progress(0, 99),
        vec![0],
        vec![200],
    ];
    cases.push([progress(0, 200), progress(0, 199)].concat());
    for case in cases {
        let (mut stream, mut carrier) = lasting(small());
        stream.write_all(b"hello").await.unwrap();
        let broke = told(&mut carrier, &[&greeting, &case]).await;
        assert!(matches!(broke, Err(Broken::Rules(_))), "{case:?}: {broke:?}");
        stream.write_all(b"more").await.unwrap();
    }
    for foreign in ["HTTP/1.1 400 Bad Request\r\n\r\n", "x", "lasting\x02"] {
        let broke = told(&mut lasting(small()).1, &[foreign.as_bytes()]).await;
        assert!(matches!(broke, Err(Broken::Foreign)), "{foreign}: {broke:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_falls_silent_is_noticed_when_it_is_due() {
    let limits = LastingLimits::default();
    for said in [Vec::new(), hello(THEM, 0, 0, 100)] {
        let (mut stream, mut carrier) = lasting(limits.clone());
        stream.write_all(b"hello").await.unwrap();
        let (ours, mut theirs) = duplex(10);
        let begun = Instant::now();
        let talking = async {
            // It takes what comes, but has nothing to say.
            let _ = theirs.write_all(&said).await;
            while theirs.read(&mut [0; 100]).await.unwrap() > 0 {}
        };
        let (broke, ()) = tokio::join!(
            async {
                let mut ours = ours;
                carrier.carry(&mut ours).await
            },
            talking
        );
        assert!(matches!(broke, Err(Broken::Silent)), "{broke:?}");
        let late = begun.elapsed().abs_diff(limits.silence);
        assert!(late < Duration::from_millis(10), "it was noticed after {:?}", begun.elapsed());
    }
}

/// A day without a word, and with a reader who does not read: the stream is neither cut nor does it grow.
#[tokio::test(start_paused = true)]
async fn what_is_not_read_holds_the_writer_back_and_nothing_else() {
    let limits = LastingLimits { unacknowledged: 3000, unread: 1000, ..LastingLimits::default() };
    let ((mut a, mut by_a), (mut b, mut by_b)) = both(&limits);
    let (here, there) = duplex(100);
    let mut carrying = Box::pin(async { tokio::join!(by_a.carry(here), by_b.carry(there)) });
    let mut written = 0;
    let writing = async {
        let day = Duration::from_secs(24 * 3600);
        while let Ok(count) = timeout(day, a.write(&[7; 600])).await {
            written += count.unwrap();
        }
    };
    tokio::select! {
        ended = &mut carrying => panic!("{ended:?}"),
        () = writing => {}
    }
    assert_eq!(written, 3000 + 1000, "as much as is kept at both ends");
    // The other way is open all the while, and so is this one as soon as somebody reads: no heartbeat has to come first.
    let rest = async {
        let begun = Instant::now();
        b.write_all(b"back").await.unwrap();
        assert_eq!(read_exactly(&mut a, 4).await, b"back");
        assert_eq!(read_exactly(&mut b, 4000).await, [7; 4000]);
        a.write_all(&[8; 3000]).await.unwrap();
        assert_eq!(read_exactly(&mut b, 3000).await, [8; 3000]);
        assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    };
    tokio::select! {
        ended = &mut carrying => panic!("{ended:?}"),
        () = rest => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_byte_is_acknowledged_soon_and_once() {
    let (mut stream, mut carrier) = lasting(LastingLimits::default());
    let (ours, mut theirs) = duplex(10_000);
    let talking = async |theirs: &mut DuplexStream| {
        theirs.write_all(&hello(THEM, 0, 0, 100)).await.unwrap();
        theirs.write_all(&data(1, b"x")).await.unwrap();
        read_exactly(theirs, 40).await;
        let begun = Instant::now();
        assert_eq!(read_exactly(theirs, 17).await[..9], progress(1, 0)[..9]);
        assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
        // After that, heartbeats alone.
        read_exactly(theirs, 17).await;
        let late = begun.elapsed().abs_diff(LastingLimits::default().heartbeat);
        assert!(late < Duration::from_millis(50), "{:?}", begun.elapsed());
    };
    tokio::select! {
        broke = carrier.carry(ours) => panic!("{broke:?}"),
        () = talking(&mut theirs) => {}
    }
    assert_eq!(read_exactly(&mut stream, 1).await, b"x");
}
