//! More than the gateway carries: h2load's many requests, with wide windows and with tiny ones, and frames of HTTP/2 that
//! no client library would send (`frames.rs` of the proxy's own tests), over and over.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout_at,
};

use crate::{
    browse::Seen,
    frames::{self, Flood},
    harness::{Site, seconds},
    stage::{BEARABLE, CORES, Stage, was_served_within},
    wire,
};

/// What an answer may take where attackers have hundreds of handshakes done, each of which a program that is not optimised
/// does at the cost of several answers: 280 to 430 ms on a slow machine at rest. Where they come all at one moment, that is one
/// page.
const HANDSHAKES: Duration = Duration::from_millis(800);
/// What a flood may cost in memory, in bytes.
const ROOM: u64 = 64 << 20;
/// What ten thousand streams may, which wait to be told that they are too many.
const ROOM_OF_STREAMS: u64 = 128 << 20;

/// Twenty times the streams that one client may have open: the rest is told so, and counted.
pub(crate) fn of_requests(site: &Site) {
    let load = withstands(site, "requests", &["-c", "100", "-m", "100", "-D", "5"], ROOM_OF_STREAMS);
    assert!(load.told_503 > 1000, "too few are told: {load:?}");
    // h2load does not wait for the last answers.
    assert!(load.told_503 <= load.shed_requests, "{load:?}");
    assert_eq!(load.shed_connections, 0, "{load:?}");
}

/// More connections than one client may have.
pub(crate) fn of_connections(site: &Site) {
    let load = withstands(site, "connections", &["-c", "400", "-m", "1", "-n", "20000", "-T", "20"], ROOM);
    assert!(load.shed_connections > 0, "all of {load:?} fit");
    assert!(load.served > 1000, "those who fit were not served: {load:?}");
}

/// Answers in frames of a byte each, on two thousand streams. They would take an hour.
pub(crate) fn of_tiny_windows(site: &Site) {
    let _alone = CORES.write();
    let stage = Stage::new(site);
    let calm = stage.owner_loads(12);
    let cookie = format!("cookie: {}", stage.cookie_of_the_world());
    let base = stage.gateway().descriptors();
    let url = format!("https://{}/asset", stage.address());
    let words =
        ["h2load", "-H", &cookie, "-c", "100", "-m", "5", "-n", "100000", "-w", "1", "-W", "16", &url];
    let attack = stage.attack(&words);
    let attacked = stage.owner_loads(40);
    drop(attack);
    let asked = attacked.count("requests_total");
    eprintln!("tiny windows: {asked} requests");
    assert!(asked > 40 * 9 + 12 * 9 + 500, "only {asked} requests");
    calms_down(stage, base, "tiny windows", ROOM);
    was_served_but_for_a_page("tiny windows", &calm, &attacked);
}

/// What came of it, by h2load's word and by the gateway's.
#[derive(Debug)]
struct Load {
    served: u64,
    told_503: u64,
    shed_requests: u64,
    shed_connections: u64,
}

fn withstands(site: &Site, what: &str, words: &[&str], room: u64) -> Load {
    let _alone = CORES.write();
    let stage = Stage::new(site);
    let calm = stage.owner_loads(12);
    let cookie = format!("cookie: {}", stage.cookie_of_the_world());
    let base = stage.gateway().descriptors();
    let owner = stage.owner_works();
    let url = format!("https://{}/", stage.address());
    let begun = Instant::now();
    let said =
        stage.attack(&[&["h2load", "-H", &cookie], words, &[&url]].concat()).finish(seconds(40)).ok().stdout;
    let took = begun.elapsed();
    let attacked = owner.stops();
    let load = Load {
        served: codes(&said, "2xx"),
        told_503: codes(&said, "5xx"),
        shed_requests: attacked.count("shed_total{limit=\"requests\"}"),
        shed_connections: attacked.count("shed_total{limit=\"connections\"}"),
    };
    eprintln!("{what}: {load:?} in {took:?}");
    calms_down(stage, base, what, room);
    match what {
        "connections" => was_served_within(what, &calm, &attacked, HANDSHAKES, 100),
        _ => was_served_but_for_a_page(what, &calm, &attacked),
    }
    load
}

/// Checks that the owner was not kept from working but at the moment when a hundred connections were made at once.
fn was_served_but_for_a_page(what: &str, calm: &Seen, attacked: &Seen) {
    was_served_within(what, calm, attacked, HANDSHAKES, 200);
    let p95 = attacked.percentile(95);
    assert!(p95 < BEARABLE, "{what}: p95 is {p95:?}");
}

/// h2load's line `status codes: 512 2xx, 0 3xx, 0 4xx, 9488 5xx`.
fn codes(said: &str, class: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("status codes: "));
    let part = line.and_then(|line| line.split(", ").find_map(|part| part.strip_suffix(class)));
    part.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("no {class} in {said}"))
}

fn calms_down(stage: Stage<'_>, base: usize, what: &str, room: u64) {
    let gateway = stage.gateway();
    eprintln!("{what}: {} MiB at most, {} MiB after", gateway.peak() >> 20, gateway.resident() >> 20);
    assert!(gateway.peak() < room, "{what}: {} bytes", gateway.peak());
    gateway.until_at_most(base, seconds(15), "descriptors are back to base");
    stage.close();
}

/// The word in `argv[1]` for who floods; then the address.
pub(crate) const ROLE: &str = "@flood";

/// How long, and on how many connections of each kind.
const LASTS: Duration = Duration::from_secs(5);
const EACH: usize = 2;

/// What was sent.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    connections: usize,
    bytes: usize,
}

/// All kinds of floods at once, anew as soon as a connection ends.
pub(crate) fn of_frames(site: &Site) {
    let _alone = CORES.write();
    let stage = Stage::new(site);
    let calm = stage.owner_loads(12);
    let base = stage.gateway().descriptors();
    let owner = stage.owner_works();
    let said = stage.runs_in_world(&[ROLE, &stage.address().to_string()]).finish(seconds(40)).ok().stdout;
    let attacked = owner.stops();
    let sent: Sent = serde_json::from_str(&said).unwrap();
    eprintln!("frames: {sent:?}");
    // Those that are hostile are ended, again and again.
    assert!(sent.connections > 3 * EACH * KINDS, "{sent:?}");
    calms_down(stage, base, "frames", ROOM);
    was_served_within("frames", &calm, &attacked, HANDSHAKES, 50);
}

const KINDS: usize = Flood::HOSTILE.len() + Flood::IDLE.len();

/// The role.
pub(crate) fn run(address: &str) {
    let address = address.parse().unwrap();
    let sent = wire::runtime().block_on(async {
        let end = tokio::time::Instant::now() + LASTS;
        let mut all = tokio::task::JoinSet::new();
        for flood in Flood::HOSTILE.into_iter().chain(Flood::IDLE).flat_map(|flood| [flood; EACH]) {
            all.spawn(async move {
                let mut sent = Sent { connections: 0, bytes: 0 };
                while tokio::time::Instant::now() < end {
                    let stream = wire::connect(address, &[b"h2"]).await;
                    sent.connections += 1;
                    let _ = timeout_at(end, pour(flood, stream, &mut sent.bytes)).await;
                }
                sent
            });
        }
        all.join_all().await.into_iter().fold(Sent { connections: 0, bytes: 0 }, |sum, sent| Sent {
            connections: sum.connections + sent.connections,
            bytes: sum.bytes + sent.bytes,
        })
    });
    println!("{}", serde_json::to_string(&sent).unwrap());
}

/// Floods for as long as the connection takes it.
async fn pour(flood: Flood, stream: wire::Stream, count: &mut usize) {
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = async {
        let mut chunk = [0; 16 << 10];
        while let Ok(1..) = read.read(&mut chunk).await {}
    };
    let writing = async {
        let mut bytes = [frames::opening(), flood.begin()].concat();
        for n in 0.. {
            bytes.extend(flood.nth(n));
            if bytes.len() > 16 << 10 {
                if write.write_all(&bytes).await.is_err() {
                    break;
                }
                *count += bytes.len();
                bytes.clear();
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
