//! Terminals in the browser, over their WebSocket: nothing is lost, nothing comes twice, nothing fills memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{
    Session, Site,
    page::{Page, SIZE, client},
    seconds,
    terminal::Terminal,
};

/// A session, and its owner's browser.
fn session<'s>(site: &'s Site, name: &str) -> Session<'s> {
    site.alice.start_bare(name, &["--network", "isolated"], &[])
}

/// Types a line that ends in a mark that the line itself does not show.
fn run(page: &mut Page, line: &str) {
    page.keys(&format!("{line}; echo do''ne\r"));
    page.wait_for("done");
    page.screen.clear();
}

/// Memory of the supervisor, in KiB.
fn resident(session: &Session<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", session.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn a_page_gets_a_shell_in_the_session(site: &Site) {
    let session = session(site, "shell");
    let gate = session.signed_in();
    let mut page = Page::open(&gate, 1);
    assert_eq!(page.attached["access"], "owner");
    page.keys("echo $((6*7)) $TERM $SHLOGIN_NAME; stty size; cat /proc/net/dev | wc -l\r");
    page.wait_for("42 xterm-256color shell");
    page.wait_for(&format!("{} {}", SIZE.1, SIZE.0));
    page.wait_until("its own network", |screen| screen.contains("\r\n3\r\n"));
    page.say(&json!({ "type": "resize", "size": { "cols": 70, "rows": 20 } }));
    page.hear_of("size");
    page.keys("stty size\r");
    page.wait_for("20 70");
    page.keys("exit 7\r");
    let ended = page.hear_of("ended");
    assert_eq!(ended["summary"], "It ended with status 7.");
    page.until_closed();
}

pub(crate) fn several_terminals_and_several_pages_of_one(site: &Site) {
    let session = session(site, "several");
    let gate = session.signed_in();
    let mut first = Page::open(&gate, 1);
    first.keys("echo fi''rst\r");
    first.wait_for("first");
    let attach = |n: usize, terminal: Value, new: bool| {
        json!({ "type": "attach", "client": client(n), "terminal": terminal, "new": new, "have": null,
            "size": { "cols": 60, "rows": 15 } })
    };
    let mut second = Page::attach(&gate, &attach(2, Value::Null, true));
    assert_ne!(second.attached["terminal"], first.attached["terminal"]);
    second.keys("echo sec''ond\r");
    second.wait_for("second");
    let mut beside = Page::attach(&gate, &attach(3, first.attached["terminal"].clone(), false));
    beside.wait_for("first");
    assert!(!beside.text().contains("second"));
    assert_eq!(
        first.hear_of("size")["size"],
        json!({ "cols": 60, "rows": 15 }),
        "the page opened last leads"
    );
    beside.keys("echo both''\r");
    first.wait_for("both\r\n");
    beside.wait_for("both\r\n");
    first.say(&json!({ "type": "end", "terminal": second.attached["terminal"] }));
    assert_eq!(second.hear_of("ended")["summary"], "It was ended.");
    while first.hear_of("terminals")["terminals"].as_array().unwrap().len() != 1 {}
    let mut gone = Page::connect(&gate).unwrap();
    gone.say(&attach(4, second.attached["terminal"].clone(), false));
    assert_eq!(gone.hear_of("refused")["why"], "This terminal has ended.");
}

/// A connection breaks fifty times while the program writes and the person types: each byte comes once.
pub(crate) fn fifty_broken_connections_lose_nothing_and_double_nothing(site: &Site) {
    const LINES: usize = 250_000;
    let session = session(site, "broken");
    let gate = session.signed_in();
    let mut page = Page::open(&gate, 1);
    run(&mut page, "stty -echo; PS1=");
    page.keys(&format!(
        "seq -f 'line %06.0f of the output' 1 {LINES}; n=0; while read -r l; do n=$((n+1)); echo \"$n:$l\"; \
         [ \"$l\" = last ] && break; done; echo al''l\r"
    ));
    let (mut output, mut typed) = (Vec::new(), String::new());
    let mut random = 7_u64;
    for round in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Sent, and sent again from the beginning at each return, as a page does that has not heard of its arrival.
        let line = format!("typed {round}\n");
        page.keys(&line);
        typed += &line;
        let enough = page.have + (random >> 48);
        while page.have < enough && page.next().is_some() {}
        let unread = page.have;
        output.append(&mut page.screen);
        // Cut off as a network cuts it: without a word.
        let before = page.typed;
        drop(page);
        page = Page::again(&gate, 1, unread);
        assert_eq!(page.attached["reset"], false, "round {round}");
        assert!(page.typed <= before);
        let lost = usize::try_from(before - page.typed).unwrap();
        let again = typed[typed.len() - lost..].to_owned();
        page.keys(&again);
    }
    page.keys("last\n");
    typed += "last\n";
    while !output[output.len().saturating_sub(100)..].windows(5).any(|end| end == b"all\r\n") {
        assert!(page.next().is_some());
        output.append(&mut page.screen);
    }
    let output = String::from_utf8(output).unwrap();
    let mut lines = output.split("\r\n").skip_while(|line| !line.starts_with("line 000001"));
    for n in 1..=LINES {
        assert_eq!(lines.next(), Some(format!("line {n:06} of the output").as_str()));
    }
    for (n, line) in typed.lines().enumerate() {
        assert_eq!(lines.next(), Some(format!("{}:{line}", n + 1).as_str()));
    }
    assert_eq!(lines.next(), Some("all"));
}

/// An interrupt shows soon after it is typed, however much the program writes and however slowly the page shows it.
pub(crate) fn an_interrupt_is_seen_at_once(site: &Site) {
    let session = session(site, "interrupt");
    let gate = session.signed_in();
    let mut page = Page::open(&gate, 1);
    run(&mut page, "PS1=inter''rupted");
    let mut took = Vec::new();
    for _ in 0..5 {
        page.keys("yes\r");
        for _ in 0..200 {
            page.next();
            page.screen.clear();
        }
        page.keys("\x03");
        let typed = Instant::now();
        page.wait_for("interrupted");
        took.push(typed.elapsed());
        page.screen.clear();
    }
    took.sort();
    assert!(took[2] < Duration::from_millis(200), "{took:?}");
}

/// A hundred megabytes to a page that shows little, to one that shows nothing, and to one that is gone.
pub(crate) fn what_is_not_shown_fills_no_memory(site: &Site) {
    let session = session(site, "memory");
    let gate = session.signed_in();
    let mut page = Page::open(&gate, 1);
    run(&mut page, "true");
    let before = resident(&session);
    page.keys("head -c 100000000 /dev/zero | tr '\\0' x | fold -w 99; echo en''d\r");
    page.acknowledges = false;
    // No more than the window comes without a word from the page.
    while page.have < 190_000 {
        page.next();
    }
    assert!(page.have < 300_000);
    assert!(resident(&session) < before + 16 * 1024, "{before} KiB, then {}", resident(&session));
    page.acknowledges = true;
    page.say(&json!({ "type": "ack", "at": page.have }));
    let mut most = 0;
    while !page.screen.ends_with(b"end\r\n") && !page.text().contains("end\r\n") {
        page.screen.clear();
        assert!(page.next().is_some());
        most = most.max(resident(&session));
    }
    assert!(most < before + 16 * 1024, "{before} KiB, then {most}");
}

/// Whatever a page says that it should not, its connection is closed, and nobody else is harmed.
pub(crate) fn threat_39_no_message_does_harm(site: &Site) {
    use tokio_tungstenite::tungstenite::Message;
    let session = session(site, "unruly");
    let gate = session.signed_in();
    let mut witness = Page::open(&gate, 1);
    run(&mut witness, "true");
    let attach = json!({ "type": "attach", "client": client(2), "terminal": null, "new": false, "have": null,
        "size": { "cols": 0, "rows": 4_294_967_295_u32 } });
    let unruly = [
        Message::text("{}"),
        Message::text("{\"type\":\"attach\"}"),
        Message::text("[".repeat(60_000)),
        Message::text(attach.to_string()),
        Message::Binary(vec![0; 7].into()),
        Message::text("{\"type\":\"resize\",\"size\":{\"cols\":-1,\"rows\":1}}"),
        Message::text("{\"type\":\"focus\",\"extra\":1}"),
    ];
    for message in unruly {
        let mut page = Page::attach(&gate, &attach);
        assert_eq!(page.attached["size"], json!({ "cols": 2, "rows": 500 }));
        page.send(message.clone());
        assert!(page.until_closed() < seconds(5), "{message:?}");
    }
    let mut huge = Page::attach(&gate, &attach);
    huge.send(Message::Binary(vec![b'x'; 1_000_000].into()));
    assert!(huge.until_closed() < seconds(5));
    let mut silent = Page::connect(&gate).unwrap();
    assert!(
        (seconds(8)..seconds(15)).contains(&silent.until_closed()),
        "who says nothing is not waited for long"
    );
    for n in 0..200_u32 {
        witness
            .say(&json!({ "type": "resize", "size": { "cols": n * 77 % 65_536, "rows": n * 991 % 65_536 } }));
    }
    witness.screen.clear();
    witness.say(&json!({ "type": "resize", "size": { "cols": 90, "rows": 25 } }));
    witness.keys("stty size; echo still''here\r");
    witness.wait_for("stillhere");
    assert!(witness.text().contains("25 90"), "{}", witness.text());
}

/// With `--tmux`, whoever comes in by ssh or by the page is in one and the same tmux session, which outlives them all.
pub(crate) fn tmux_is_one_for_all_ways_in(site: &Site) {
    for tmp in ["private", "shared"] {
        let name = format!("tmux-{tmp}");
        let session = site.alice.start_bare(&name, &["--network", "isolated", "--tmux", "--tmp", tmp], &[]);
        let gate = session.signed_in();
        let mut page = Page::open(&gate, 1);
        page.keys("tmux display -p 'in-#{session_name}-#{window_width}'\r");
        page.wait_for("in-main-100");
        let program = super::harness::place::place().program().display().to_string();
        let mut by_ssh = Terminal::run(&site.alice, &[&program, "ssh", &name]);
        by_ssh.wait_for(seconds(10), "in-main-100");
        by_ssh.keys("echo from-ssh-$((6*7))\r");
        page.wait_for("from-ssh-42");
        // What is typed by ssh without a terminal is no tmux.
        assert_eq!(site.alice.shlogin(&["ssh", &name, "echo ${TMUX:-none}"]).ok().stdout, "none\n");
        let other = site.alice.run(&["tmux", "ls"]);
        assert_ne!(other.code(), 0, "the node's own tmux has nothing to do with it: {other:#?}");
        drop(by_ssh);
        page.keys("tmux kill-server\r");
        page.hear_of("ended");
        session.stop();
    }
    // With a shared /tmp, tmux leaves its folder in it.
    std::fs::remove_dir_all(format!("/tmp/tmux-{}", site.alice.uid)).unwrap();
}

/// An image that asks for tmux in its environment has it without `--tmux`; one that does not, has a shell.
pub(crate) fn an_image_has_tmux_by_default_where_it_says_so(site: &Site) {
    let folder = site.alice.home.join("asks");
    site.alice.run(&["mkdir", &folder.display().to_string()]).ok();
    let bind = format!("{}:/mnt:ro", folder.display());
    for (asks, began_in) in [(false, "in-none"), (true, "in-main")] {
        if asks {
            site.alice.run(&["touch", &folder.join("with-tmux").display().to_string()]).ok();
        }
        let session = site.alice.start_image("asks", &["--bind", &bind], &[]);
        let mut page = Page::open(&session.signed_in(), 1);
        page.keys("echo in-${TMUX:+$(tmux display -p '#{session_name}')}${TMUX:-none}\r");
        page.wait_for(began_in);
        session.stop();
    }
    std::fs::remove_dir_all(folder).unwrap();
}
