//! The ports: what listens inside must not answer on any address of the host.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    Finding,
    client::{self, CONNECT},
    finding::Outcome,
    tables::{self, Listening},
    target::{Mark, Place, SandboxAt, Target},
};
use crate::words::Isolation;

/// So many connections at once.
const AT_ONCE: usize = 64;

/// Connects to each port on each address, and to the pod's ssh port.
pub(super) async fn attack(target: &Target) -> Vec<Finding> {
    let mut findings = match &target.sandbox {
        SandboxAt::Here => attack_app(target).await,
        SandboxAt::Elsewhere { node, port } => vec![from_afar(node.as_deref(), *port, target).await],
    };
    findings.push(ssh(target, &tables::host_addresses()).await);
    findings
}

/// Connects to what listens in the sandbox, on each address of the machine that it is on.
pub(super) async fn attack_app(target: &Target) -> Vec<Finding> {
    let addresses = tables::host_addresses();
    let mut ports = target.ports.clone();
    if matches!(target.door.place, Place::Unix(_)) && !ports.contains(&target.door.port) {
        // A gateway on a unix socket has a port only in its URL.
        ports.push(target.door.port);
    }
    let mut findings = Vec::new();
    if target.ports.is_empty() {
        findings.push(Finding::new(
            "ports inside",
            "look for any",
            Outcome::Held("nothing listens on one".to_owned()),
        ));
    }
    let pairs: Vec<SocketAddr> =
        ports.iter().flat_map(|port| addresses.iter().map(|address| with_port(*address, *port))).collect();
    for (address, answered) in connect_all(&pairs).await {
        let outcome = match answered {
            Err(why) => Outcome::Held(why),
            Ok(()) => whose(address, &tables::listening(&tables::ours()).unwrap_or_default(), target),
        };
        let what = format!("port {} on {}", address.port(), ip(address));
        findings.push(Finding::new(what, "TCP connect", outcome));
    }
    findings
}

/// The app's port on another machine. Whose the port is that answers there, its answer alone can tell.
async fn from_afar(node: Option<&str>, port: Option<u16>, target: &Target) -> Finding {
    let what = match (node, port) {
        (Some(node), Some(port)) => format!("port {port} on {node}"),
        (Some(node), None) => format!("the app on {node}"),
        (None, _) => "the app".to_owned(),
    };
    let outcome = match (node, port) {
        (Some(node), Some(port)) => knock(node, port, target).await,
        (None, _) => Outcome::Untried("it has no node yet".to_owned()),
        (_, None) if target.isolation == Isolation::Socket => {
            Outcome::Held("it listens on a socket in a folder of its own".to_owned())
        }
        (_, None) => Outcome::Untried("it listens on no port that is known here".to_owned()),
    };
    Finding::new(what, "TCP connect from here", outcome)
}

async fn knock(node: &str, port: u16, target: &Target) -> Outcome {
    let found = timeout(CONNECT, tokio::net::lookup_host((node, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        _ => return Outcome::Untried("that name has no address here".to_owned()),
    };
    let mut why = String::new();
    for address in addresses {
        match connect(address).await {
            Err(error) => why = error,
            Ok(_) => {
                let ask = client::request("GET /", &target.door.authority(), &[]);
                let answer = client::in_the_clear(&Place::Tcp(address), &ask).await;
                let is_it = |mark: &Mark| answer.is_ok_and(|answer| mark.is_in(answer.bytes()));
                return match &target.mark {
                    Some(mark) if is_it(mark) => Outcome::Through("the app's own page came back".to_owned()),
                    Some(_) => Outcome::Held("something else answers there".to_owned()),
                    None => Outcome::Untried(
                        "something answers: whether it is the app, cannot be told".to_owned(),
                    ),
                };
            }
        }
    }
    Outcome::Held(why)
}

/// The address with this port; a link-local one keeps its scope.
pub(super) fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// `fe80::1%2`, without the port.
fn ip(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        _ => address.ip().to_string(),
    }
}

/// Why each did not answer, or that it did; in the order given.
async fn connect_all(pairs: &[SocketAddr]) -> Vec<(SocketAddr, Result<(), String>)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (order, address) in pairs.iter().copied().enumerate() {
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            // Never closed, so there is always one to come.
            let _place = places.acquire().await;
            (order, address, connect(address).await.map(drop))
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(order, _, _)| *order);
    done.into_iter().map(|(_, address, answered)| (address, answered)).collect()
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) if stream.local_addr().ok() == stream.peer_addr().ok() => {
            // Its own port was picked for it, and it met itself (RFC 9293, simultaneous open): nobody was there.
            Err("nobody there".to_owned())
        }
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Whose the socket is that took a connection to `address`.
fn whose(address: SocketAddr, table: &[Listening], target: &Target) -> Outcome {
    let owner = &target.owner;
    let takers: Vec<u32> = table.iter().filter(|one| one.takes(address)).map(|one| one.uid).collect();
    if takers.contains(&owner.uid) {
        return if target.doors.contains(&address.port()) {
            Outcome::Held(format!("on the host this is the port of a gateway of {}'s", owner.name))
        } else {
            Outcome::Through(format!("answered, and a process of {}'s listens on it on the host", owner.name))
        };
    }
    match takers.first() {
        Some(uid) => {
            Outcome::Held(format!("answered by a process of user {uid}'s, which is not in the session"))
        }
        None => Outcome::Through("answered, and nobody on the host is seen to listen on it".to_owned()),
    }
}

/// The pod's first port, which is the one before the gateway's. Bound, so that nobody else gets it; if an ssh server
/// listens there, who may sign in is its affair.
async fn ssh(target: &Target, addresses: &[SocketAddr]) -> Finding {
    let port = target.door.port.saturating_sub(1);
    let mut answered = Vec::new();
    let mut closed = Vec::new();
    let mut strange = Vec::new();
    for address in addresses.iter().map(|address| with_port(*address, port)) {
        let Ok(mut stream) = connect(address).await else { continue };
        let mut said = [0; 64];
        // A busy machine's server may take a moment; one that waits for its client to begin says nothing at all.
        let len = timeout(Duration::from_secs(5), stream.read(&mut said)).await;
        match len {
            Ok(Ok(4..)) if said.starts_with(b"SSH-") => answered.push(ip(address)),
            // It has enough of strangers, or is another that wants none.
            Ok(Ok(0) | Err(_)) => closed.push(ip(address)),
            _ => strange.push(format!("something that is no ssh server answered on {}", ip(address))),
        }
    }
    let held = match (&answered[..], &closed[..]) {
        ([], []) => "nobody listens".to_owned(),
        ([], _) => format!("closed at once on {}", closed.join(", ")),
        _ => format!("an ssh server answers on {}", answered.join(", ")),
    };
    Finding::new(
        format!("ssh port {port}"),
        "TCP connect on every address",
        Outcome::of_opened(&strange, held),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_answers_is_told_from_what_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let done = connect_all(&[closed, open]).await;
        assert!(done[0].1.is_err() && done[0].0 == closed);
        assert!(done[1].1.is_ok() && done[1].0 == open);
    }

    #[test]
    fn a_link_local_address_is_shown_with_its_link() {
        let address = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, 4);
        assert_eq!(ip(with_port(address.into(), 80)), "fe80::1%4");
        assert_eq!(ip("10.0.0.1:80".parse().unwrap()), "10.0.0.1");
    }
}
