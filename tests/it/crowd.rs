//! Many sessions at once.

use std::{collections::HashSet, thread, time::Instant};

use crate::harness::{Running, Site, User, heavy, program::bare, seconds, until};

pub(crate) fn fifty_sessions_at_once_by_two_users(site: &Site) {
    let _alone = heavy();
    let users = [&site.alice, &site.mallory];
    let started = Instant::now();
    let running: Vec<(&User, Running)> = (0..50)
        .map(|number| {
            let user = users[number % 2];
            let words = bare(
                &format!("s{number}"),
                &["--network", "isolated", "--json"],
                &[&format!("+mark=session {number}")],
            );
            let mut args = vec!["start"];
            args.extend(words.iter().map(String::as_str));
            (user, Running::spawn(user.shlogin_command(&args)))
        })
        .collect();
    let sessions: Vec<_> =
        running.into_iter().map(|(user, start)| (user, start.finish(seconds(120)).ok().json())).collect();
    eprintln!("fifty sessions were up after {:?}", started.elapsed());

    let mut ports = HashSet::new();
    let mut pods = HashSet::new();
    for (_, json) in &sessions {
        assert!(ports.insert(json["gateway"]["port"].clone()), "a port is shared: {json:#}");
        assert!(pods.insert(json["pod"].clone()), "a pod is shared: {json:#}");
    }
    // Each gateway leads to its own app, though all apps have the same port.
    thread::scope(|scope| {
        for part in sessions.chunks(10) {
            scope.spawn(move || {
                for (_, json) in part {
                    let name = json["name"].as_str().unwrap();
                    let mut gate = crate::harness::http::Gate::to(json["url"].as_str().unwrap());
                    gate.sign_in(json["url"].as_str().unwrap());
                    assert_eq!(gate.get("/").text(), name.replace('s', "session "));
                }
            });
        }
    });
    for user in users {
        assert_eq!(user.list().len(), 25);
    }
    let stopping = Instant::now();
    for user in users {
        user.shlogin(&["stop", "--all"]).ok();
        user.wait_until_nothing_is_left(seconds(5));
        assert!(user.list().is_empty());
    }
    eprintln!("and gone {:?} after the first stop", stopping.elapsed());
}

/// Connections of every kind come and go; the processes of the session have as many descriptors after as before.
pub(crate) fn connections_leave_no_descriptor(site: &Site) {
    let session = site.alice.start_bare("fds", &["--network", "isolated"], &[]);
    let gate = session.signed_in();
    let origin = gate.origin();
    let count = || -> Vec<(String, usize)> {
        let ours = site.alice.processes().into_iter().filter(|process| process.role().starts_with('@'));
        ours.map(|process| (process.role().to_owned(), process.descriptors())).collect()
    };
    // What is opened once and kept, like a connection to the app, is there after the first round.
    let mut before = Vec::new();
    for round in 0..6 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_eq!(gate.get("/").status, 200);
                        drop(gate.connect().unwrap());
                        assert_eq!(
                            gate.websocket("/ws", &[("Origin", &origin)]).ok().unwrap().ask(b"x"),
                            b"x"
                        );
                        assert!(session.stranger().get("/").status >= 400);
                    }
                });
            }
        });
        site.alice.shlogin(&["exec", "fds", "--", "true"]).ok();
        site.alice.shlogin(&["url", "fds"]).ok();
        if round == 0 {
            before = count();
        }
    }
    assert!(before.len() >= 3, "{before:?}");
    until(seconds(15), "descriptors are back to base", || {
        let now = count();
        now.iter().zip(&before).all(|((_, now), (_, before))| now <= before).then_some(())
    });
}
