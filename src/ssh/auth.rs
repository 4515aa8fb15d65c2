//! Who comes in, and as what. There is one user, the session's owner; every other name is refused as a wrong key is, after
//! the same time and in the same words. What the log has of it, a stranger does not hear.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use nginx_free::Peer;
use russh::{
    MethodKind, MethodSet,
    keys::{Algorithm, Certificate, HashAlg, PublicKey},
    server::Auth,
};
use tokio::{sync::watch, task::spawn_blocking};

use super::{
    authorized_keys::{self, Refusal},
    certificate,
    owner::Owner,
    password::Passwords,
    penalties::{Offence, Penalties},
    permits::Permits,
    source::Source,
};
use crate::share::{Connected, Guests, Over, Visit};

/// How long it takes to hear that a password is wrong. PAM itself takes about two seconds, and only where the name is
/// right: longer than that, so that nobody hears which of the two it was.
const WRONG_PASSWORD: Duration = Duration::from_secs(3);
/// So much of a stranger's name is put down.
const SHOWN: usize = 64;

/// How a connection reached us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// From one of the owner's own processes: the kernel has said so, and nothing more need be proved.
    Control,
    /// Over the network.
    Network,
}

/// How far a client has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It has not tried to prove who it is.
    Silent,
    /// It has tried, and failed.
    Refused,
    /// It has proved it.
    Known,
}

/// How far a client has come, and as whom, for who is not its connection.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) progress: watch::Receiver<Progress>,
    visit: Arc<OnceLock<Visit>>,
}

impl Seen {
    /// Waits until the client is a guest whose visit is over. Anybody else stays.
    pub(super) async fn visit_over(mut self) -> Over {
        // Without a word, the connection has ended, which is seen elsewhere.
        let known = self.progress.wait_for(|progress| *progress == Progress::Known).await.is_ok();
        match self.visit.get().filter(|_| known) {
            Some(visit) => visit.over().await,
            None => std::future::pending().await,
        }
    }
}

/// Spends a token of the session's, if it is one.
pub type SpendToken = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The name under which guests come in, who have a code each.
const GUEST: &str = "pair";

/// What all connections share.
pub(super) struct Door {
    pub(super) owner: Owner,
    pub(super) guests: Guests,
    /// None where passwords are not taken.
    pub(super) passwords: Option<Passwords>,
    pub(super) spend_token: SpendToken,
    pub(super) penalties: Mutex<Penalties>,
}

impl Door {
    /// Notes what became of a connection.
    pub(super) fn note(&self, peer: &Peer, offence: Offence) {
        self.penalties().note(peer.key(), offence, Instant::now());
    }

    /// Whether a client from there is to wait before it comes again.
    pub(super) fn keeps_away(&self, peer: &Peer) -> bool {
        self.penalties().keep_away(peer.key(), Instant::now())
    }

    fn penalties(&self) -> MutexGuard<'_, Penalties> {
        self.penalties.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As what a client has come in.
enum Admitted {
    /// As the owner, with what her key, certificate or password is for.
    Owner(Permits),
    /// As somebody who is let in to a terminal, and to nothing else.
    Guest(Visit, #[expect(dead_code, reason = "counted while it is there")] Connected),
}

/// One client's way through the door.
pub(super) struct Authentication {
    door: Arc<Door>,
    way: Way,
    peer: Peer,
    admitted: Option<Admitted>,
    progress: watch::Sender<Progress>,
    /// Set with [`Admitted::Guest`], for whoever ends the connection when the visit is over.
    visit: Arc<OnceLock<Visit>>,
}

impl Authentication {
    /// Before anything is proved; beside it, what is to be seen of it from outside.
    pub(super) fn new(door: Arc<Door>, way: Way, peer: Peer) -> (Self, Seen) {
        let (progress, seen) = watch::channel(Progress::Silent);
        let visit = Arc::default();
        let seen = Seen { progress: seen, visit: Arc::clone(&visit) };
        (Self { door, way, peer, admitted: None, progress, visit }, seen)
    }

    /// What the owner's client may do, once it has proved that it is hers.
    pub(super) fn permits(&self) -> Option<&Permits> {
        match self.admitted() {
            Some(Admitted::Owner(permits)) => Some(permits),
            _ => None,
        }
    }

    /// The visit of a guest's client, once it has shown its code.
    pub(super) fn visit(&self) -> Option<&Visit> {
        match self.admitted() {
            Some(Admitted::Guest(visit, _)) => Some(visit),
            _ => None,
        }
    }

    /// Whose session it is.
    pub(super) fn owner_name(&self) -> &str {
        &self.door.owner.name
    }

    fn admitted(&self) -> Option<&Admitted> {
        self.admitted.as_ref().filter(|_| *self.progress.borrow() == Progress::Known)
    }

    /// Nothing is proved; clients ask so what can be.
    pub(super) fn none(&mut self, user: &str) -> Auth {
        if self.way == Way::Control && self.is_owner(user) {
            return self.accept(Permits::all(), "she comes from her own process");
        }
        Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: false }
    }

    /// The owner's password, or a token of the session's; a guest's code.
    pub(super) async fn password(&mut self, user: &str, password: &str) -> Auth {
        let until = tokio::time::Instant::now() + WRONG_PASSWORD;
        if self.way == Way::Network && self.is_owner(user) {
            if (self.door.spend_token)(password) {
                return self.accept(Permits::all(), "by a token");
            }
            if self.is_password(password).await {
                return self.accept(Permits::all(), "by her password");
            }
        }
        if self.way == Way::Network
            && user == GUEST
            && let Some(visit) = self.door.guests.claim(password, &self.peer)
            && let Some(connected) = visit.connect()
        {
            tracing::info!(peer = %shown(&self.peer), "ssh lets {} in", visit.name());
            let _ = self.visit.set(visit.clone());
            self.admitted = Some(Admitted::Guest(visit, connected));
            return Auth::Accept;
        }
        let refusal = self.refuse(user, "wrong name or password");
        tokio::time::sleep_until(until).await;
        refusal
    }

    async fn is_password(&self, password: &str) -> bool {
        let Some(passwords) = &self.door.passwords else { return false };
        match passwords.check(&self.door.owner, password, &self.source()).await {
            Ok(right) => right,
            Err(error) => {
                tracing::warn!(%error, "cannot check a password");
                false
            }
        }
    }

    /// Whether it is worth proving that one has this key.
    pub(super) async fn offered(&mut self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Auth {
        let (owner, source) = (self.door.owner.clone(), self.source());
        if self.is_acceptable(user, algorithm) {
            let (offered, now) = (key.clone(), SystemTime::now());
            // Her home may lie on a server that hangs.
            let look = move || authorized_keys::may_come_in(&owner, &offered, &source, now);
            if spawn_blocking(look).await.unwrap_or_default() {
                return Auth::Accept;
            }
        }
        self.refuse(user, &format!("{} is not hers", fingerprint(key)))
    }

    /// A key, which the client has proved to have.
    pub(super) async fn key(&mut self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Auth {
        let (owner, source) = (self.door.owner.clone(), self.source());
        let (shown, now) = (key.clone(), SystemTime::now());
        let judged = if self.is_acceptable(user, algorithm) {
            spawn_blocking(move || authorized_keys::judge(&owner, &shown, &source, now)).await.ok()
        } else {
            None
        };
        self.by(user, judged, &fingerprint(key))
    }

    /// A certificate, whose key the client has proved to have.
    pub(super) async fn certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let (owner, source) = (self.door.owner.clone(), self.source());
        let (shown, now) = (certificate.clone(), SystemTime::now());
        let judged = if self.way == Way::Network && self.is_owner(user) {
            spawn_blocking(move || certificate::judge(&owner, &shown, &source, now)).await.ok()
        } else {
            None
        };
        let what = format!(
            "certificate {:?} of {}",
            shorten(certificate.key_id()),
            certificate.signature_key().fingerprint(HashAlg::Sha256)
        );
        self.by(user, judged, &what)
    }

    fn by(&mut self, user: &str, judged: Option<Result<Permits, Refusal>>, what: &str) -> Auth {
        match judged {
            Some(Ok(permits)) => self.accept(permits, &format!("by {what}")),
            Some(Err(why)) => self.refuse(user, &format!("{what}: {why}")),
            None => self.refuse(user, &format!("{what}: not her name, or too weak a signature")),
        }
    }

    /// The client has been told that it may come in.
    pub(super) fn succeeded(&self) {
        self.progress.send_replace(Progress::Known);
    }

    fn is_owner(&self, user: &str) -> bool {
        user == self.door.owner.name
    }

    /// Whether this name may show a key with this kind of signature: SHA-1's can be forged.
    fn is_acceptable(&self, user: &str, algorithm: &Algorithm) -> bool {
        self.way == Way::Network && self.is_owner(user) && *algorithm != Algorithm::Rsa { hash: None }
    }

    fn source(&self) -> Source {
        Source::from(&self.peer)
    }

    /// By which one can prove something: always the same, whoever asks.
    fn methods(&self) -> MethodSet {
        match self.way {
            Way::Control => MethodSet::from(&[MethodKind::None][..]),
            Way::Network => MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]),
        }
    }

    fn accept(&mut self, permits: Permits, how: &str) -> Auth {
        tracing::info!(peer = %shown(&self.peer), "ssh lets the owner in: {how}");
        self.admitted = Some(Admitted::Owner(permits));
        Auth::Accept
    }

    fn refuse(&mut self, user: &str, why: &str) -> Auth {
        tracing::info!(peer = %shown(&self.peer), user = ?shorten(user), "ssh refuses: {why}");
        self.admitted = None;
        self.progress.send_replace(Progress::Refused);
        Auth::Reject { proceed_with_methods: Some(self.methods()), partial_success: false }
    }
}

/// Who is at the other end, for the log.
pub(super) fn shown(peer: &Peer) -> String {
    let at = |address: &SocketAddr| format!("{} port {}", address.ip().to_canonical(), address.port());
    match peer {
        Peer::Tcp(address) => at(address),
        Peer::Local { address, uid } => format!("{} (user {uid} of this node)", at(address)),
        Peer::Unix { .. } => "a process of the owner's".to_owned(),
    }
}

fn fingerprint(key: &PublicKey) -> String {
    format!("key {}", key.fingerprint(HashAlg::Sha256))
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
