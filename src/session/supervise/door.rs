//! The session's gateway, as its supervisor holds it: certificate, listener, URLs, and what the app is told of them.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use super::RequestLog;
use crate::{
    activity::Activity,
    gateway::{Gateway, Options, Phase, Restart, Seen, certificate},
    host::Dialer,
    session::{Record, SessionSpec},
    share::Guests,
    ssh::SpendToken,
    terminal::Terminals,
    words::Secret,
};

/// How long requests under way may take to finish when the session has ended.
const DRAIN: Duration = Duration::from_millis(300);

/// The gateway, served.
pub(super) struct Door {
    handle: DoorHandle,
    site: Option<certificate::Certificate>,
    phase: watch::Sender<Phase>,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// What it shows of the session beside its app.
pub(super) struct Inside {
    pub(super) request_log: RequestLog,
    pub(super) log_len: watch::Receiver<u64>,
    pub(super) terminals: Terminals,
    pub(super) guests: Guests,
    /// When its time is over, where something limits that.
    pub(super) ends: watch::Receiver<Option<Timestamp>>,
    /// To whoever can start it again.
    pub(super) restart: mpsc::Sender<Restart>,
    pub(super) activity: Activity,
}

/// What others need of it.
#[derive(Clone)]
pub(super) struct DoorHandle {
    gateway: Arc<Gateway<Dialer>>,
    base_url: String,
}

impl DoorHandle {
    /// The URL with a new token.
    pub(super) fn url(&self) -> io::Result<String> {
        Ok(format!("{}?token={}", self.base_url, self.gateway.issue()?.reveal()))
    }

    /// By which a token can be spent elsewhere.
    pub(super) fn spend_token(&self) -> SpendToken {
        let gateway = Arc::clone(&self.gateway);
        Box::new(move |text| gateway.spend(text))
    }

    /// The URL by which a guest gets to his terminal.
    pub(super) fn guest_url(&self, code: &Secret) -> String {
        format!("{}-/terminal?token={}", self.base_url, code.reveal())
    }
}

impl Door {
    /// Opens it; the app may not answer yet. Puts the certificate's fingerprint into the record.
    pub(super) fn open(
        spec: &SessionSpec,
        record: &mut Record,
        listener: OwnedFd,
        dialer: Dialer,
        inside: Inside,
    ) -> Result<Self, String> {
        let settings = &spec.gateway;
        let certificate = match &settings.certificate {
            Some((chain, key)) => certificate::from_files(chain, key, settings.ocsp.as_deref()),
            None => certificate::load_or_create(&settings.keys.join("tls"), &settings.names),
        }
        .map_err(|error| error.to_string())?;
        record.gateway.fingerprint = certificate.fingerprint();
        let base_url = base_url(spec, record);
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let options = Options {
            session: record.id,
            name: record.name.clone(),
            names: settings.names.clone(),
            token_lifetime: settings.token_lifetime,
            cookie_lifetime: settings.cookie_lifetime,
            bind_cookie: settings.bind_cookie_to_address,
            server_timing: settings.server_timing,
            log: record.log.clone(),
        };
        let Inside { request_log, log_len, terminals, guests, ends, restart, activity } = inside;
        let seen = Seen { phase: phase_seen, log_len, terminals, guests, ends, restart, activity };
        let gateway = Gateway::new(options, certificate.server_config(), dialer, seen, request_log);
        let (shutdown, stopped) = watch::channel(false);
        let serving = match record.gateway.socket {
            Some(_) => {
                let listener = std::os::unix::net::UnixListener::from(listener);
                tokio::spawn(Arc::clone(&gateway).serve_unix(listener, stopped))
            }
            None => {
                let listener = std::net::TcpListener::from(listener);
                tokio::spawn(Arc::clone(&gateway).serve_tcp(listener, stopped))
            }
        };
        // Our own changes only for sessions that start with other names; who has accepted it shall not be asked again.
        let site = settings.certificate.as_ref().map(|_| certificate);
        Ok(Self { handle: DoorHandle { gateway, base_url }, site, phase, shutdown, serving })
    }

    /// Waits until the site has renewed its certificate, which is then in use; returns its fingerprint.
    pub(super) fn renewed(&self) -> impl Future<Output = String> + use<> {
        let site = self.site.clone();
        async move {
            match site {
                Some(certificate) => {
                    certificate.renewed().await;
                    certificate.fingerprint()
                }
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn handle(&self) -> DoorHandle {
        self.handle.clone()
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Tells those who look at a page, lets requests under way finish, and closes.
    pub(super) async fn close(self, summary: &str) {
        self.phase.send_replace(Phase::Ended { summary: summary.to_owned() });
        self.shutdown.send_replace(true);
        // What has not finished by then is cut: the app it speaks to is gone.
        let _ = timeout(DRAIN, self.serving).await;
    }
}

/// The session's URL, without a token.
pub(super) fn base_url(spec: &SessionSpec, record: &Record) -> String {
    format!("https://{}:{}/", bracketed(&spec.gateway.host), record.gateway.port)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
