//! The other forms a session can have: an image that is a folder, an app behind a socket instead of namespaces.

use std::{fs, path::PathBuf};

use crate::harness::{Running, Site, User, place::place, program::bare, scan::Targets, seconds};

/// Unpacks the tiny image into a folder of hers.
fn unpack(user: &User) -> PathBuf {
    let folder = user.home.join("unpacked");
    let mut command = user.command("apptainer");
    command.args(["--silent", "build", "--sandbox"]).arg(&folder).arg(place().image("tiny"));
    // what the build itself keeps is no session's
    command.env("APPTAINER_TMPDIR", &user.home).env_remove("XDG_RUNTIME_DIR");
    Running::spawn(command).finish(seconds(60)).ok();
    folder
}

pub(crate) fn an_image_can_be_a_folder_and_its_run_script_stands_in(site: &Site) {
    let folder = unpack(&site.alice);
    let image = folder.display().to_string();
    let start =
        |name: &str| site.alice.start(&["--name", name, "--network", "isolated", &image, "--", "a b", "c"]);
    assert_eq!(start("as-it-is").report()["env"]["STARTED_BY"], "start");

    // As an image has it whose definition names none.
    let script = folder.join(".singularity.d/startscript");
    fs::write(&script, "#!/bin/sh\n\n# nothing to do\n").unwrap();
    let report = start("stand-in").report();
    assert_eq!(report["env"]["STARTED_BY"], "run", "a start script that does nothing is none");
    assert_eq!(report["args"], serde_json::json!(["a b", "c"]));
}

pub(crate) fn an_image_is_pulled_by_its_uri(site: &Site) {
    let image = place().image("tiny");
    let mut server = std::process::Command::new("/usr/bin/python3");
    server
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
        .arg(image.parent().unwrap());
    let server = Running::spawn(server);
    server.wait_for(seconds(10), "port ");
    let said = server.stdout() + &server.stderr();
    let port: String = said.split("port ").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    let uri = format!("http://127.0.0.1:{port}/{}", image.file_name().unwrap().to_str().unwrap());
    let session = site.alice.start(&["--name", "pulled", "--network", "isolated", &uri, "--", "a b"]);
    assert_eq!(
        (session.json["image"].as_str(), session.report()["args"][0].as_str()),
        (Some(&*uri), Some("a b"))
    );

    let gone = format!("http://127.0.0.1:{port}/none.sif");
    site.alice.shlogin(&["start", "--network", "isolated", &gone]).ended_with(121).says("cannot pull");
}

pub(crate) fn a_socket_instead_of_namespaces_is_out_of_others_reach(site: &Site) {
    let mark = format!("{} socket", site.alice.name);
    let session = site.alice.start_bare(
        "fallback",
        &["--isolation", "socket"],
        &["+unix=$SHLOGIN_SOCKET", &format!("+mark={mark}")],
    );
    assert_eq!(session.json["isolation"], "socket");
    assert_eq!(session.signed_in().get("/").text(), mark);
    let report = session.report();
    let socket = PathBuf::from(report["env"]["SHLOGIN_SOCKET"].as_str().unwrap());
    let found = site.mallory.scan(&Targets {
        mark,
        pids: Vec::new(),
        paths: vec![socket.parent().unwrap().to_owned(), socket],
        ports: vec![session.gateway_port()],
    });
    assert!(found.files.is_empty() && found.reached.is_empty(), "{found:?}");
    session.stop();
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn an_app_that_opens_a_port_is_refused_without_namespaces(site: &Site) {
    let mut args = vec!["start".to_owned(), "--json".to_owned()];
    args.extend(bare("careless", &["--isolation", "socket"], &["+port=18351"]));
    let output = site.alice.shlogin(&args.iter().map(String::as_str).collect::<Vec<_>>()).ended_with(119);
    assert!(output.json()["error"]["message"].as_str().unwrap().contains("18351"), "{output:?}");
    site.alice.wait_until_nothing_is_left(seconds(2));
}

/// Runs the rest of its arguments as user $1 of group $2 where user namespaces are forbidden, and ends with their status.
/// The limit is one of a user namespace of its own, in which everybody is who she is outside.
const FORBIDDEN: &str = r"
import ctypes, os, sys
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(ready[1], b'x'); os.read(go[0], 1)
    with open('/proc/sys/user/max_user_namespaces', 'w') as limit: limit.write('0')
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
    os.execv(sys.argv[3], sys.argv[3:])
os.read(ready[0], 1)
for kind in ('uid', 'gid'):
    with open(f'/proc/{child}/{kind}_map', 'w') as ids: ids.write('0 0 4294967295')
os.write(go[1], b'x')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

pub(crate) fn where_namespaces_are_forbidden_nothing_is_started_with_less(site: &Site) {
    let alice = &site.alice;
    let forbidden = |args: &[String]| {
        let mut command = std::process::Command::new("/usr/bin/python3");
        command
            .args(["-c", FORBIDDEN, &alice.uid.to_string(), &alice.gid.to_string()])
            .arg(place().program());
        command.args(args).env_clear().envs(alice.environment()).current_dir(&alice.home);
        Running::spawn(command).finish(seconds(30))
    };
    let start = |name: &str, options: &[&str], words: &[&str]| {
        forbidden(&[vec!["start".to_owned(), "--json".to_owned()], bare(name, options, words)].concat())
    };
    let refused = start("fenced", &["--network", "isolated"], &["+port=18352"]).ended_with(119).json();
    assert_eq!(refused["error"]["kind"], "isolation-forbidden", "{refused:#}");
    alice.wait_until_nothing_is_left(seconds(2));
    forbidden(&["doctor".to_owned()]).ended_with(1).says("max_user_namespaces");
    let socket = start("second-best", &["--isolation", "socket"], &["+unix=$SHLOGIN_SOCKET"]).ok().json();
    assert_eq!((&socket["isolation"], &socket["network"]), (&"socket".into(), &"host".into()));
    forbidden(&["stop".to_owned(), "second-best".to_owned()]).ok();
    alice.wait_until_nothing_is_left(seconds(2));
}
