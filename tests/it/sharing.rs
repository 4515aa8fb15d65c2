//! A colleague beside the owner: what he sees, what he may do, and how it ends.

use std::{os::unix::fs::PermissionsExt, thread, time::Instant};

use serde_json::{Value, json};

use super::harness::{
    Session, Site, User,
    http::{Gate, split},
    page::{Page, client},
    program::Output,
    seconds,
    terminal::Terminal,
};

/// What `share` printed, and the browser of the guest who has used its URL.
struct Guest {
    shared: Value,
    gate: Gate,
}

fn share(session: &Session<'_>, options: &[&str]) -> Guest {
    let args = [&["share", "--json", session.name()][..], options].concat();
    let shared = session.user.shlogin(&args).ok().json();
    let url = shared["url"].as_str().unwrap();
    let mut gate = Gate::to(url);
    let answer = gate.sign_in(url);
    assert_eq!(answer.header("location"), Some("/-/terminal"));
    Guest { shared, gate }
}

fn session<'s>(site: &'s Site, name: &str) -> (Session<'s>, Page) {
    let session = site.alice.start_bare(name, &["--network", "isolated"], &[]);
    let mut owner = Page::open(&session.signed_in(), 1);
    owner.keys("PS1='$ '; echo rea''dy\r");
    owner.wait_for("ready");
    (session, owner)
}

impl Guest {
    fn id(&self) -> &str {
        self.shared["guest"].as_str().unwrap()
    }

    fn open(&self, n: usize) -> Page {
        Page::open(&self.gate, n)
    }
}

pub(crate) fn a_viewer_sees_and_does_nothing(site: &Site) {
    let (session, mut owner) = session(site, "view");
    let guest = share(&session, &["--as", "bob"]);
    assert_eq!(guest.shared["access"], "view");
    assert_eq!(guest.shared["seconds"], 1800);
    let mut page = guest.open(2);
    assert_eq!((&page.attached["access"], &page.attached["leads"]), (&json!("view"), &json!(false)));
    page.wait_for("ready");
    while owner.hear_of("notice")["text"] != "bob (g1) is here and watches" {}
    let people = page.said.iter().find(|said| said["type"] == "people").unwrap();
    assert_eq!(people["people"][0]["name"], "bob");
    assert_eq!(people["people"].as_array().unwrap().len(), 1);

    // Every message there is, whatever it asks for; none reaches the terminal, none changes its size.
    owner.keys("cat -v\r");
    page.wait_for("cat -v\r\n\x1b[?2004l\r");
    owner.wait_for("cat -v\r\n\x1b[?2004l\r");
    page.screen.clear();
    let before = owner.attached["size"].clone();
    for bytes in [
        &b"rm -rf /\r"[..],
        b"\x03",
        b"\x04",
        b"\x1a",
        b"\x1b[200~x\x1b[201~",
        b"\x02d",
        b"\x02:run-shell id\r",
        b"\x1bP$q\"p\x1b\\",
        b"\x1b]52;c;?\x07",
        b"%begin 1 1 0\n",
        b"\0",
        b"~.",
        b"\x1b[c",
        b"\xff\xfe",
    ] {
        page.keys_at(page.typed, bytes);
        page.keys_at(u64::MAX, bytes);
        page.keys_at(0, bytes);
    }
    page.keys_at(0, &vec![b'x'; 60_000]);
    page.say(&json!({ "type": "focus" }));
    page.say(&json!({ "type": "resize", "size": { "cols": 3, "rows": 3 } }));
    page.say(&json!({ "type": "ack", "at": 9_000_000_000_u64 }));
    for message in [
        json!({ "type": "end", "terminal": page.attached["terminal"] }),
        json!({ "type": "revoke", "guest": null }),
        json!({ "type": "revoke", "guest": "g1" }),
        json!({ "type": "attach", "client": client(9), "terminal": 1, "new": true, "have": 0, "size": { "cols": 1, "rows": 1 } }),
    ] {
        let mut other = guest.open(3);
        other.say(&message);
        assert!(other.until_closed() < seconds(5), "{message}");
    }
    // Another terminal, or a new one, is not to be had: it is always the one he was let in to.
    let second = Page::attach(
        &session.signed_in(),
        &json!({ "type": "attach", "client": client(4), "terminal": null,
        "new": true, "have": null, "size": { "cols": 50, "rows": 10 } }),
    );
    for (terminal, new) in
        [(second.attached["terminal"].clone(), false), (Value::Null, true), (json!(4_000_000_000_u32), false)]
    {
        let attach = json!({ "type": "attach", "client": client(5), "terminal": terminal, "new": new, "have": null,
            "size": { "cols": 1, "rows": 1 } });
        let other = Page::attach(&guest.gate, &attach);
        assert_eq!(other.attached["terminal"], owner.attached["terminal"]);
        assert_eq!(other.attached["size"], before);
    }
    owner.screen.clear();
    owner.keys("only mine\r");
    owner.wait_for("only mine\r\nonly mine\r\n");
    assert_eq!(owner.text(), "only mine\r\nonly mine\r\n", "nothing else was typed");
    page.wait_for("only mine\r\nonly mine\r\n");
    // Nothing but the terminal.
    for path in ["/", "/report", "/-/metrics", "/-/starting/log"] {
        assert_eq!(guest.gate.get(path).status, 403, "{path}");
    }
    assert_eq!(
        guest.gate.websocket("/ws", &[("Origin", &guest.gate.origin())]).err().map(|a| a.status),
        Some(403)
    );
}

pub(crate) fn a_guest_who_may_type_types_and_resizes_nothing(site: &Site) {
    let (session, mut owner) = session(site, "type");
    let refused = site.alice.shlogin(&["share", session.name(), "--type"]).ended_with(2);
    assert!(refused.stderr.contains("with all your files and rights"), "{refused:#?}");
    site.alice.shlogin(&["share", session.name(), "--for", "0s"]).ended_with(2).says("no time");
    let guest = share(&session, &["--type", "--yes"]);
    let mut page = guest.open(2);
    assert_eq!(page.attached["access"], "type");
    page.say(&json!({ "type": "resize", "size": { "cols": 20, "rows": 5 } }));
    page.keys("stty size; echo by''guest\r");
    owner.wait_for("byguest");
    assert!(owner.text().contains("30 100"), "{}", owner.text());
    page.say(&json!({ "type": "revoke", "guest": null }));
    assert!(page.until_closed() < seconds(5), "that is the owner's alone");
}

/// A guest who is revoked is cut off within two seconds, in the middle of whatever it is, and does not come back.
pub(crate) fn revoking_cuts_off_at_once(site: &Site) {
    let (session, mut owner) = session(site, "revoke");
    for (round, by_page) in [(0, false), (1, true)] {
        let guest = share(&session, &["--type", "--yes"]);
        let mut page = guest.open(2);
        page.keys("yes\r");
        for _ in 0..20 {
            page.next();
        }
        let began = Instant::now();
        // He goes on reading, also while the command runs: who does not is not told why.
        thread::scope(|scope| {
            let revoking = scope.spawn(|| {
                if by_page {
                    owner.say(&json!({ "type": "revoke", "guest": guest.id() }));
                } else {
                    site.alice.shlogin(&["share", session.name(), "--revoke", guest.id()]).ok();
                }
            });
            page.until_closed();
            assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
            revoking.join().unwrap();
        });
        assert_eq!(page.said.last().unwrap()["type"], "refused", "{:?}", page.said);
        assert_eq!(Page::connect(&guest.gate).err(), Some(401), "round {round}: by cookie");
        let url = guest.shared["url"].as_str().unwrap();
        assert_eq!(Gate::to(url).get(&split(url).1).status, 403, "round {round}: by code");
        assert_eq!(guest.gate.get("/-/terminal").status, 401);
        owner.keys("\x03");
    }
    site.alice.shlogin(&["share", session.name(), "--revoke", "g1"]).ended_with(1);
    let guests: Vec<_> = (0..3).map(|_| share(&session, &[])).collect();
    let listed = site.alice.shlogin(&["share", "--json", session.name(), "--list"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    site.alice.shlogin(&["share", session.name(), "--revoke", "--all"]).ok();
    for guest in guests {
        assert_eq!(Page::connect(&guest.gate).err(), Some(401));
    }
}

/// Threat 37: who reads nothing is not told that his visit is over, and is heard no more all the same.
pub(crate) fn revoking_cuts_off_who_does_not_listen(site: &Site) {
    let (session, mut owner) = session(site, "deaf");
    let guest = share(&session, &["--type", "--yes"]);
    let mut page = guest.open(2);
    // More than there is room for on the way to him, and all of it acknowledged.
    page.say(&json!({ "type": "ack", "at": 9_000_000_000_u64 }));
    page.keys("head -c 8000000 /dev/zero | tr '\\0' x; echo; echo fil''led\r");
    owner.wait_for("filled");
    owner.screen.clear();
    site.alice.shlogin(&["share", session.name(), "--revoke", guest.id()]).ok();
    page.keys("echo by''guest\r");
    owner.keys("sleep 2; echo by''owner\r");
    owner.wait_for("byowner");
    assert!(!owner.text().contains("byguest"), "{}", owner.text());
    let gone = || site.alice.shlogin(&["share", "--json", session.name(), "--list"]).ok().json();
    assert_eq!(gone(), json!([]));
}

/// Threat 37: who fills a terminal that no program reads from does not keep the owner from ending his visit, and what he
/// has typed goes with him.
pub(crate) fn revoking_is_heard_while_nothing_is_read(site: &Site) {
    let (session, mut owner) = session(site, "full");
    let guest = share(&session, &["--type", "--yes"]);
    let mut page = guest.open(2);
    owner.keys("stty raw -echo; echo st''ill; sleep 4; timeout 1 cat > /dev/null; stty sane; echo ba''ck\r");
    owner.wait_for("still");
    // The kernel keeps some of it.
    page.keys(&"x".repeat(50_000));
    page.keys(&"x".repeat(50_000));
    for _ in 0..22 {
        page.keys(&format!("{}\recho by''guest\r", "x".repeat(50_000)));
    }
    owner.keys("\x03");
    owner.say(&json!({ "type": "revoke", "guest": guest.id() }));
    let took = page.until_closed();
    assert!(took < seconds(2), "{took:?}");
    owner.wait_for("back");
    owner.keys("echo by''owner\r");
    owner.wait_for("byowner");
    assert!(!owner.text().contains("byguest"), "{}", owner.text());
}

pub(crate) fn a_visit_ends_by_itself_unless_it_is_extended(site: &Site) {
    let (session, _owner) = session(site, "expires");
    let (brief, longer) = (share(&session, &["--for", "3s"]), share(&session, &["--for", "3s"]));
    let (mut page, mut stays) = (brief.open(2), longer.open(3));
    site.alice.shlogin(&["share", session.name(), "--extend", longer.id(), "--for", "10m"]).ok();
    let took = page.until_closed();
    assert!(took < seconds(5), "{took:?}");
    assert_eq!(page.said.last().unwrap()["why"], "Your visit is over: its time is up.");
    assert_eq!(Page::connect(&brief.gate).err(), Some(401));
    loop {
        let people = stays.hear_of("people");
        if people["people"][0]["seconds_left"].as_u64().unwrap() > 500 {
            break;
        }
    }
}

/// Who has read the code over somebody's shoulder, on the same node, is another user of it.
pub(crate) fn a_code_is_good_for_one_person(site: &Site) {
    let (session, _owner) = session(site, "code");
    let guest = share(&session, &[]);
    let url = guest.shared["url"].as_str().unwrap().to_owned();
    let status = |user: &User| {
        let args = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", &url];
        user.run(&args).ok().stdout
    };
    assert_eq!(status(&site.mallory), "403");
    let other = site.alice.shlogin(&["share", "--json", session.name()]).ok().json();
    let url = other["url"].as_str().unwrap();
    let first = site.mallory.run(&["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url]).ok().stdout;
    assert_eq!(first, "303");
    assert_eq!(Gate::to(url).get(&split(url).1).status, 403);
}

pub(crate) fn a_recording_says_who_typed_what(site: &Site) {
    let (session, mut owner) = session(site, "record");
    let file = site.alice.home.join("visit.cast");
    let option = format!("--record={}", file.display());
    let guest = share(&session, &["--type", "--yes", "--as", "bob", &option]);
    let mut page = guest.open(2);
    owner.keys("echo from al''ice\r");
    page.wait_for("from alice");
    page.keys("echo from b''ob\r");
    owner.wait_for("from bob");
    site.alice.shlogin(&["share", session.name(), "--revoke", "bob"]).ok();
    page.until_closed();
    let text = super::harness::until(seconds(5), "the recording is written", || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("from bob"))
    });
    let events: Vec<(f64, String, String)> =
        text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut typist = String::new();
    let mut typed = [("owner types", String::new()), ("bob (g1) types", String::new())];
    for (_, kind, text) in events {
        match kind.as_str() {
            "m" => typist = text,
            "i" => typed.iter_mut().find(|(who, _)| *who == typist).unwrap().1 += &text,
            _ => {}
        }
    }
    assert_eq!(typed.map(|(_, text)| text), ["echo from al''ice\r", "echo from b''ob\r"]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Who works by ssh sees in her terminal who comes and goes, and ends it with one key, which is no key of hers then.
pub(crate) fn an_owner_by_ssh_sees_who_is_there_and_ends_it_with_one_key(site: &Site) {
    let session = site.alice.start_bare("key", &["--network", "isolated"], &[]);
    let mut owner = Terminal::shlogin(&site.alice, &["ssh", "key"]);
    owner.keys("PS1='$ '; echo rea''dy\r");
    owner.wait_for(seconds(10), "ready");
    let guest = share(&session, &["--as", "bob"]);
    owner.wait_for(seconds(5), "[shlogin: g1 may watch here; over ssh, Ctrl-^ ends all visits]");
    let mut page = guest.open(2);
    owner.wait_for(seconds(5), "[shlogin: bob (g1) is here and watches]");
    page.wait_for("ready");
    assert!(!page.text().contains("[shlogin:"), "what the owner is told is not for guests: {}", page.text());
    let began = Instant::now();
    owner.keys("\u{1e}");
    page.until_closed();
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    owner.wait_for(seconds(5), "[shlogin: the visit of bob (g1) is over: the owner has ended it]");
    assert_eq!(Page::connect(&guest.gate).err(), Some(401));
    // With nobody there it is her own key again.
    owner.keys("cat -v\r\u{1e}");
    owner.wait_for(seconds(5), "^^");
}

/// A guest's ssh, with the code where a person would type it.
struct BySsh<'u> {
    user: &'u User,
    words: Vec<String>,
}

impl<'u> BySsh<'u> {
    fn new(user: &'u User, guest: &Value) -> Self {
        let code = guest["code"].as_str().unwrap();
        let ask = user.own_file("ask", &format!("#!/bin/sh\necho {code}\n"), 0o700).display().to_string();
        let line = guest["ssh"].as_str().unwrap();
        let port = line.split(' ').nth(2).unwrap();
        assert!(line.starts_with("ssh -p ") && line.contains(" pair@"), "{line}");
        let words = [
            "env",
            &format!("SSH_ASKPASS={ask}"),
            "SSH_ASKPASS_REQUIRE=force",
            "ssh",
            "-F",
            "none",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "NumberOfPasswordPrompts=1",
            "-p",
            port,
        ];
        Self { user, words: words.map(str::to_owned).to_vec() }
    }

    fn words<'a>(&'a self, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        let words = self.words.iter().map(String::as_str);
        words
            .chain(options.iter().copied())
            .chain(["pair@127.0.0.1"])
            .chain(command.iter().copied())
            .collect()
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.user.run(&self.words(options, command))
    }

    fn terminal(&self) -> Terminal {
        Terminal::run(self.user, &self.words(&["-tt"], &[]))
    }
}

/// Threat 37: a guest by ssh sees the terminal, and gets no command, no files, no forward, no agent, no X11.
pub(crate) fn threat_37_a_guest_by_ssh_gets_the_terminal_and_nothing_else(site: &Site) {
    let (session, mut owner) = session(site, "byssh");
    let guest = site.alice.shlogin(&["share", "--json", session.name(), "--as", "mal"]).ok().json();
    let ssh = BySsh::new(&site.mallory, &guest);
    let mut seen = ssh.terminal();
    seen.wait_for(seconds(10), "ready");
    seen.wait_for(seconds(10), "you watch; q leaves");
    seen.resize(10, 40);
    seen.keys("rm -rf /\r\u{1a}\u{2}:kill-server\r");
    owner.screen.clear();
    owner.keys("stty size; echo only-$((6*7))\r");
    owner.wait_for("only-42");
    assert!(owner.text().contains("30 100"), "{}", owner.text());
    assert!(!owner.text().contains("rm -rf") && !owner.text().contains("kill-server"), "{}", owner.text());
    seen.wait_for(seconds(10), "only-42");

    for command in ["id", "sftp-server", "tmux attach", ""] {
        let said = ssh.run(&["-T"], &[command]);
        assert_ne!(said.code(), 0, "{command:?}: {said:#?}");
        assert!(!said.stdout.contains("uid="), "{said:#?}");
    }
    assert_ne!(ssh.run(&["-tt"], &["id"]).code(), 0);
    assert_ne!(ssh.run(&["-s"], &["sftp"]).code(), 0);
    let port = session.app_port().to_string();
    for refused in [
        &["-W", &format!("127.0.0.1:{port}")][..],
        &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "7000:127.0.0.1:1"],
        &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "/tmp/guest.sock:127.0.0.1:1"],
    ] {
        let said = ssh.run(refused, &[]);
        assert_ne!(said.code(), 0, "{refused:?}: {said:#?}");
    }
    seen.keys("q");
    seen.wait_for(seconds(5), "you have left");
    assert_eq!(seen.finish(seconds(5)), 0);

    // Somebody else's code, no code, another name.
    let mut wrong = guest.clone();
    wrong["code"] = json!("aaaa-bbbb-cccc-dddd");
    let said = BySsh::new(&site.mallory, &wrong).run(&["-T"], &[]);
    assert!(said.code() == 255 && said.stderr.contains("Permission denied"), "{said:#?}");
}

/// Revoked in the middle of a picture, of typing, and of nothing at all: gone within two seconds, and refused after that.
pub(crate) fn revoking_cuts_ssh_off_at_once(site: &Site) {
    let (session, mut owner) = session(site, "cutssh");
    let grant = || site.alice.shlogin(&["share", "--json", session.name(), "--type", "--yes"]).ok().json();
    let guest = grant();
    let ssh = BySsh::new(&site.mallory, &guest);
    let mut types = ssh.terminal();
    types.wait_for(seconds(10), "ready");
    types.keys("echo by-$((6*7))\r");
    owner.wait_for("by-42");
    types.keys("yes\r");
    types.wait_for(seconds(10), "y");
    let words: Vec<_> = ssh.words(&["-N"], &[]);
    let mut idle = site.mallory.command(words[0]);
    idle.args(&words[1..]);
    let idle = super::harness::Running::spawn(idle);
    super::harness::until(seconds(10), "the idle connection is in", || {
        let pid = session.pid().as_raw();
        let log =
            std::fs::read_to_string(session.show()["log"].as_str().unwrap().replace("/log", "/shlogin.log"));
        (pid > 0 && log.ok()?.matches("ssh lets g1 in").count() >= 2).then_some(())
    });
    let began = Instant::now();
    site.alice.shlogin(&["share", session.name(), "--revoke", "g1"]).ok();
    types.wait_for(seconds(2), "your visit is over");
    types.finish(seconds(2));
    idle.finish(seconds(2));
    assert!(began.elapsed() < seconds(2), "{:?}", began.elapsed());
    let said = ssh.run(&["-T"], &[]);
    assert!(said.code() == 255 && said.stderr.contains("Permission denied"), "{said:#?}");
    owner.keys("\x03");
}
