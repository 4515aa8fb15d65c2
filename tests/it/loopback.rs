//! Users of one node, all of whom come to a gateway from the same address: the kernel tells them apart.

use crate::harness::{Running, Session, Site, User, heavy, http::split, seconds};

const ISOLATED: [&str; 2] = ["--network", "isolated"];

/// Asks the gateway on loopback at a port for some paths, with a cookie where one is given, or else with the one that the
/// first answer set; from any interface, or from loopback's by name. Prints each answer's status and body, then the cookie.
const ASK: &str = r#"
import http.client, socket, ssl, sys
port, cookie, device, paths = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
context = ssl._create_unverified_context()
for path in paths:
    wire = socket.socket()
    if device:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    wire.settimeout(20)
    wire.connect(("127.0.0.1", port))
    asking = http.client.HTTPConnection("127.0.0.1", port)
    asking.sock = context.wrap_socket(wire)
    asking.request("GET", path, headers={"Cookie": cookie} if cookie else {})
    answer = asking.getresponse()
    cookie = cookie or (answer.getheader("Set-Cookie") or "").split(";")[0]
    print(answer.status, answer.read().decode())
print(cookie)
"#;

/// Opens connections, as many as 300 from any interface and as many from loopback's by name, and holds them.
const HOLD: &str = r#"
import signal, socket, ssl, sys
port, context, held = int(sys.argv[1]), ssl._create_unverified_context(), []
for number in range(600):
    wire = socket.socket()
    if number >= 300:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    wire.settimeout(20)
    try:
        wire.connect(("127.0.0.1", port))
        held.append(context.wrap_socket(wire))
    except OSError:
        held.append(wire)
print("held", flush=True)
signal.pause()
"#;

/// What this user gets of these paths, from a process of hers.
fn ask(user: &User, session: &Session<'_>, cookie: &str, device: &str, paths: &[&str]) -> Vec<String> {
    let port = session.gateway_port().to_string();
    let words = [&["/usr/bin/python3", "-c", ASK, &port, cookie, device], paths].concat();
    user.run(&words).ok().stdout.lines().map(str::to_owned).collect()
}

/// The path of a new token.
fn token(session: &Session<'_>) -> String {
    split(session.user.shlogin(&["url", session.name()]).ok().stdout.trim()).1
}

/// All who came from loopback once shared the connections of one client: one of them took them all, and the owner was out.
pub(crate) fn another_user_s_connections_leave_the_owner_in(site: &Site) {
    let _alone = heavy();
    let (alice, mallory) = (&site.alice, &site.mallory);
    let session = alice.start_bare("besieged", &ISOLATED, &["+mark=still here"]);
    let mut holding = mallory.command("/usr/bin/python3");
    holding.args(["-c", HOLD, &session.gateway_port().to_string()]);
    let holding = Running::spawn(holding);
    holding.wait_for(seconds(60), "held");

    let got = ask(alice, &session, "", "", &[&token(&session), "/", "/-/metrics"]);
    assert!(got[1] == "200 still here", "{got:#?}");
    let open = got.iter().find_map(|line| line.strip_prefix("nginx_free_connections "));
    let open: u64 = open.and_then(|open| open.parse().ok()).unwrap_or_else(|| panic!("{got:#?}"));
    assert!(open > 500, "only {open} connections were held against her");
    drop(holding);
}

/// A browser sends its cookies to every port of a host: also to another user's gateway behind another `ssh -L`.
pub(crate) fn a_cookie_is_good_for_its_user_alone(site: &Site) {
    let (alice, mallory) = (&site.alice, &site.mallory);
    let session = alice.start_bare("hers", &ISOLATED, &["+mark=still here"]);
    let got = ask(alice, &session, "", "", &[&token(&session), "/"]);
    let [.., entered, cookie] = &got[..] else { panic!("{got:#?}") };
    assert_eq!(entered, "200 still here");
    for device in ["", "lo"] {
        let stolen = ask(mallory, &session, cookie, device, &["/"]);
        assert!(stolen[0].starts_with("401 "), "{stolen:#?}");
    }
    assert_eq!(ask(alice, &session, cookie, "", &["/"])[0], "200 still here");
}
