//! slowhttptest's four ways of holding a thousand connections without using them.

use std::time::{Duration, Instant};

use crate::{
    harness::{Running, Site, seconds, until},
    stage::{CORES, Stage, was_served},
};

const CONNECTIONS: &str = "1000";
/// Those of them that one client may have, nearly: the attack has taken hold.
const HELD: usize = 240;
/// What the owner has open besides, and what is kept to the app.
const ORDINARY: usize = 48;
/// slowhttptest asks whether others are served, again and again, and does not read what it is told.
const ASKING: usize = 60;
/// `Limits` bears with each for 30 seconds from when it came, and with some a second or two longer: a trickle earns that.
const REAPED: Duration = Duration::from_secs(45);
/// What a second attack may take besides, in bytes.
const AGAIN: u64 = 8 << 20;

pub(crate) fn heads(site: &Site) {
    hangs(site, "slow heads", &["-H", "-x", "24"], "/", 16 << 20);
}

pub(crate) fn bodies(site: &Site) {
    hangs(site, "slow bodies", &["-B", "-x", "24", "-s", "100000"], "/", 24 << 20);
}

/// What waits for them is held for each in full: on its way from the app, in TLS, on its way to the client.
pub(crate) fn readers(site: &Site) {
    hangs(site, "slow readers", &["-X", "-w", "64", "-y", "256", "-n", "1", "-z", "5"], "/large", 80 << 20);
}

/// 20 KiB of ranges in each head, which go to the app as they are. These connections do not hang: they ask, and end.
pub(crate) fn ranges(site: &Site) {
    let _waits = CORES.read();
    let stage = Stage::new(site);
    let gateway = stage.gateway();
    let calm = stage.owner_loads(30);
    let cookie = stage.cookie_of_the_world();
    let (base, before) = (gateway.descriptors(), gateway.peak());
    let owner = stage.owner_works();
    let said =
        attack(&stage, &["-R", "-a", "5", "-b", "3000"], "/large", &cookie).finish(seconds(60)).ok().stdout;
    assert!(said.contains("No open connections left"), "{said}");
    let newcomer = stage.owner_loads(15);
    let attacked = owner.stops();
    let (asked, own) =
        (attacked.count("requests_total"), attacked.answers() + calm.answers() + newcomer.answers());
    eprintln!("ranges: {asked} requests, {own} of them the owner's; {} MiB at most", gateway.peak() >> 20);
    assert!(asked > own as u64 + 500, "{asked} requests, {own} of them the owner's");
    was_served("ranges", &calm, &attacked);
    assert!(gateway.peak() < before + (32 << 20), "{before}, then {} bytes", gateway.peak());
    gateway.until_at_most(base, seconds(15), "descriptors are back to base");
    stage.close();
}

/// So many connections hang: the owner works on, somebody who comes is let in, and they are gone in time. The gateway may
/// take `room` for them.
fn hangs(site: &Site, what: &str, mode: &[&str], path: &str, room: u64) {
    let _waits = CORES.read();
    let stage = Stage::new(site);
    let gateway = stage.gateway();
    let calm = stage.owner_loads(30);
    let cookie = stage.cookie_of_the_world();
    let (base, before) = (gateway.descriptors(), gateway.peak());
    let owner = stage.owner_works();
    let attack = attack(&stage, mode, path, &cookie);
    let holds = || (gateway.descriptors() > base + HELD).then_some(());
    until(seconds(60), "the attack takes hold", holds);
    let newcomer = stage.owner_loads(5);
    assert!(newcomer.failures.is_empty(), "{what}: {:?}", newcomer.failures);
    until(seconds(60), "all have come", || all_have_come(&attack.stdout()).then_some(()));
    let begun = Instant::now();
    gateway.until_at_most(base + ORDINARY + ASKING, seconds(80), "slow connections are gone");
    let reaped = begun.elapsed();
    drop(attack);
    let (first, resident) = (gateway.peak(), gateway.resident());

    // What the allocator has kept is used again.
    let again = self::attack(&stage, mode, path, &cookie);
    until(seconds(60), "the attack takes hold again", holds);
    drop(again);
    gateway.until_at_most(base + ORDINARY, seconds(20), "what ends is let go");
    let second = gateway.peak();
    let attacked = owner.stops();
    let mib = |bytes: u64| bytes >> 20;
    eprintln!(
        "{what}: gone after {reaped:?}; MiB: {} before, {} at most, {} after, {} the second time; {} turned away",
        mib(before),
        mib(first),
        mib(resident),
        mib(second),
        attacked.count("shed_total{limit=\"connections\"}")
    );
    was_served(what, &calm, &attacked);
    assert!(reaped < REAPED, "{what}: gone after {reaped:?}");
    assert!(first < before + room, "{what}: {before}, then {first} bytes");
    assert!(second < first + AGAIN, "{what}: {first} bytes, then {second}");
    // Of a thousand at once, three quarters; of those who come slowly, fewer, for others have gone.
    assert!(attacked.count("shed_total{limit=\"connections\"}") > 100, "{what}: too few were turned away");
    gateway.until_at_most(base, seconds(15), "descriptors are back to base");
    stage.close();
}

fn attack(stage: &Stage<'_>, mode: &[&str], path: &str, cookie: &str) -> Running {
    let url = format!("https://{}{path}", stage.address());
    // Each line as it is said, and each second.
    let begin = [&["stdbuf", "-oL", "slowhttptest"], mode].concat();
    let rest = ["-c", CONNECTIONS, "-r", "400", "-i", "1", "-l", "120", "-p", "5", "-j", cookie, "-u", &url];
    stage.attack(&[&begin[..], &rest].concat())
}

/// Whether slowhttptest has made all its connections, by its last two reports: those that were cut at once stay pending
/// with it, and no more are.
fn all_have_come(said: &str) -> bool {
    let counts = |name: &str| -> Vec<usize> {
        let lines = said.lines().rev().filter(|line| line.contains(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).take(2).collect()
    };
    let [now, before] = counts("pending:")[..] else { return false };
    now == before && counts("initializing:") == [0, 0]
}
