//! A session on a node with a network of its own, somebody who works in it, and a world full of attackers.

use std::{fs, net::SocketAddr, sync::RwLock, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    app, browse,
    browse::Seen,
    harness::{
        Running, Session, Site,
        http::split,
        pair::{NODE, Pair},
        place::place,
        seconds, until,
    },
};

/// Read by tests that mostly wait; written by one that wants both cores.
pub(crate) static CORES: RwLock<()> = RwLock::new(());

/// How long the owner may wait for an answer, but for one in a hundred, whoever attacks.
pub(crate) const BEARABLE: Duration = Duration::from_millis(250);

/// The word in `argv[1]` for who signs in from the world and says by which cookie; then a URL with a token, an address.
pub(crate) const SIGN_IN: &str = "@sign-in";

/// Loads pages without end, until it is asked to.
const ON_AND_ON: usize = 1500;

pub(crate) struct Stage<'s> {
    site: &'s Site,
    pair: Pair,
    session: Session<'s>,
}

impl<'s> Stage<'s> {
    /// Starts the session.
    pub(crate) fn new(site: &'s Site) -> Self {
        let pair = Pair::new();
        let (myself, port) = (place().myself().display().to_string(), app::PORT.to_string());
        let start = [
            "start",
            "--json",
            "--network",
            "isolated",
            "--name",
            "stage",
            "--port",
            &port,
            "--",
            &myself,
            app::ROLE,
        ];
        let json = pair.shlogin(&site.alice, &start).ok().json();
        Self { site, pair, session: Session { user: &site.alice, json } }
    }

    /// A URL that nobody used yet.
    fn fresh_url(&self) -> String {
        self.site.alice.shlogin(&["url", "stage"]).ok().stdout.trim().to_owned()
    }

    /// Where the gateway is for the world.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(NODE.parse().unwrap(), self.session.gateway_port())
    }

    /// Where the ssh server is for the world.
    pub(crate) fn ssh(&self) -> SocketAddr {
        let port = self.session.json["ssh"]["port"].as_u64().unwrap();
        SocketAddr::new(NODE.parse().unwrap(), u16::try_from(port).unwrap())
    }

    /// What the owner's browser calls it.
    pub(crate) fn authority(&self) -> String {
        split(self.session.url()).0
    }

    /// The supervisor, in which the gateway is.
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway(self.session.pid())
    }

    /// A cookie with which whoever is in the world is let in: not all attackers are strangers.
    pub(crate) fn cookie_of_the_world(&self) -> String {
        let (url, address) = (self.fresh_url(), self.address().to_string());
        let output = self.runs_in_world(&[SIGN_IN, &url, &address]).finish(seconds(30)).ok();
        output.stdout.trim().to_owned()
    }

    /// A program that somebody else runs in the world. It is on this machine and should not be: it only gets what the
    /// others leave of the cores.
    pub(crate) fn attack(&self, words: &[&str]) -> Running {
        let words = [&["nice", "-n", "19"], words].concat();
        Running::spawn(self.pair.in_world(&self.site.mallory, &words))
    }

    /// This binary, in a role of its own, likewise.
    pub(crate) fn runs_in_world(&self, role: &[&str]) -> Running {
        self.attack(&[&[myself().as_str()], role].concat())
    }

    /// The owner signs in anew, on the node, and loads so many pages.
    pub(crate) fn owner_loads(&self, pages: usize) -> Seen {
        Owner(self.browse(pages)).has_seen()
    }

    /// The owner signs in and works on.
    pub(crate) fn owner_works(&self) -> Owner {
        let owner = Owner(self.browse(ON_AND_ON));
        owner.0.wait_for(seconds(30), browse::WORKS);
        owner
    }

    fn browse(&self, pages: usize) -> Running {
        let loopback = SocketAddr::new([127, 0, 0, 1].into(), self.session.gateway_port());
        let words =
            [myself(), browse::ROLE.into(), self.fresh_url(), loopback.to_string(), pages.to_string()];
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        Running::spawn(self.pair.on_node(&self.site.alice, &words))
    }

    /// Ends it, while it still can be.
    pub(crate) fn close(self) {
        self.session.stop();
        self.site.close();
    }
}

fn myself() -> String {
    place().myself().display().to_string()
}

/// The one who works.
pub(crate) struct Owner(Running);

impl Owner {
    /// Stops working, and says how it was.
    pub(crate) fn stops(self) -> Seen {
        self.0.signal(Signal::SIGTERM);
        self.has_seen()
    }

    fn has_seen(self) -> Seen {
        let said = self.0.finish(seconds(60)).ok().stdout;
        serde_json::from_str(said.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {said}"))
    }
}

/// Checks that the owner was not kept from working, and tells how it was.
pub(crate) fn was_served(what: &str, calm: &Seen, attacked: &Seen) {
    was_served_within(what, calm, attacked, BEARABLE, 100);
}

/// The same, with so much time for an answer, and so many of them.
pub(crate) fn was_served_within(what: &str, calm: &Seen, attacked: &Seen, bearable: Duration, enough: usize) {
    eprintln!(
        "{what}: p99 of {} answers {:?}, of {} without the attack {:?}",
        attacked.answers(),
        attacked.p99(),
        calm.answers(),
        calm.p99()
    );
    assert!(attacked.failures.is_empty(), "{what}: {:?}", attacked.failures);
    assert!(attacked.answers() > enough, "{what}: only {} answers", attacked.answers());
    assert!(attacked.p99() < bearable, "{what}: p99 is {:?}", attacked.p99());
}

/// The process that serves all of them.
#[derive(Clone, Copy)]
pub(crate) struct Gateway(Pid);

impl Gateway {
    pub(crate) fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap().count()
    }

    /// The memory that it has, in bytes.
    pub(crate) fn resident(self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak(self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        kib * 1024
    }

    /// Waits until it has no more descriptors than this.
    pub(crate) fn until_at_most(self, descriptors: usize, within: Duration, what: &str) {
        until(within, what, || (self.descriptors() <= descriptors).then_some(()));
    }
}
