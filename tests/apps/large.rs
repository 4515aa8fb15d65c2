//! A gibibyte through JupyterLab, both ways, unchanged, while the proxy stays small.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    app::App,
    front::{Routes, peak},
    harness::{
        Site, User,
        browser::keep,
        http::{Gate, read_answer},
        sh,
    },
};

const SIZE: u64 = 1 << 30;
/// JupyterLab's own measure of an upload's pieces.
const PIECE: usize = 1 << 20;
/// A hundredth of what goes through would be 10 MiB; the program itself takes as much.
const ROOM: u64 = 48 << 20;

/// As a person does it: by the file browser, with HTTP/2.
pub(crate) fn by_the_browser(site: &Site) {
    let user = &site.alice;
    let (file, digest) = random_file(user);
    let base = "/pod/3/jupyterlab/";
    let started = App::JupyterLab.start(user, 1, base);
    let routes = Routes::to(user, &[(base, &started)]);
    let (file, stored) = (format!("--file={file}"), format!("--stored={}/work/random", user.home.display()));
    let (saw, picture) = user.browse(
        "transfer",
        &[&routes.url(base), &file, &stored, &Routes::trust(), &format!("--below={base}")],
    );
    keep(&picture, "transfer");
    assert_eq!(saw["uploaded"], digest, "{saw:#}");
    assert_eq!(saw["downloaded"], digest, "{saw:#}");
    assert_eq!(saw["outside"], json!([]), "{saw:#}");
    assert_eq!(saw["refused"], json!([]), "{saw:#}");
    let most = routes.peak();
    assert!(most < ROOM, "the proxy took {most} bytes");
    routes.stop();
}

/// In a session, through its gateway, with HTTP/1.1: what JupyterLab's page sends, without the page.
pub(crate) fn in_a_session(site: &Site) {
    let user = &site.alice;
    let (file, digest) = random_file(user);
    let command = App::JupyterLab.words(user, ([127, 0, 0, 1], 8000).into(), "/");
    let mut start = vec!["--name", "large", "--port", "8000", "--"];
    start.extend(command.iter().map(String::as_str));
    let session = user.start(&start);
    let mut gate = session.signed_in();
    upload(&mut gate, Path::new(&file));
    assert_eq!(digest_of(&user.home.join("work/random").display().to_string()), digest);
    assert_eq!(download(&gate), digest);
    let most = peak(session.pid().as_raw());
    assert!(most < ROOM, "the gateway took {most} bytes");
    session.stop();
    site.close();
}

/// A file of hers, and its SHA-256.
fn random_file(user: &User) -> (String, String) {
    let path = user.home.join("random").display().to_string();
    user.run(&["sh", "-c", &format!("head -c {SIZE} /dev/urandom >{path}")]).ok();
    let digest = digest_of(&path);
    (path, digest)
}

fn digest_of(path: &str) -> String {
    sh(&["sha256sum", path]).chars().take(64).collect()
}

/// Piece after piece, in base64, in JSON.
fn upload(gate: &mut Gate, file: &Path) {
    let page = gate.get("/lab");
    let cookies = page.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    gate.cookies.extend(cookies.filter_map(|(_, value)| value.split(';').next()).map(str::to_owned));
    let xsrf = xsrf(gate);
    let mut file = File::open(file).unwrap();
    let mut wire = gate.connect().unwrap();
    let mut piece = vec![0; PIECE];
    for number in 1..=SIZE / PIECE as u64 {
        file.read_exact(&mut piece).unwrap();
        let chunk = if number == SIZE / PIECE as u64 { json!(-1) } else { json!(number) };
        let body = json!({
            "type": "file", "format": "base64", "name": "random", "path": "random", "chunk": chunk,
            "content": BASE64_STANDARD.encode(&piece),
        })
        .to_string();
        let head = format!(
            "PUT /api/contents/random HTTP/1.1\r\nHost: {}\r\nOrigin: {}\r\n{}X-XSRFToken: {xsrf}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            gate.authority,
            gate.origin(),
            gate.cookie_header(),
            body.len()
        );
        wire.write_all(head.as_bytes()).unwrap();
        wire.write_all(body.as_bytes()).unwrap();
        wire.flush().unwrap();
        let answer = read_answer(&mut wire, false).unwrap().expect("an answer");
        assert!((200..300).contains(&answer.status), "piece {number}: {answer:?}");
    }
}

/// What JupyterLab wants to be told with whatever is of consequence, to know its own pages by.
fn xsrf(gate: &Gate) -> &str {
    gate.cookies.iter().find_map(|pair| pair.strip_prefix("_xsrf=")).unwrap()
}

/// The SHA-256 of what comes.
fn download(gate: &Gate) -> String {
    let mut wire = gate.connect().unwrap();
    let head = format!(
        "GET /files/random HTTP/1.1\r\nHost: {}\r\n{}X-XSRFToken: {}\r\nConnection: close\r\n\r\n",
        gate.authority,
        gate.cookie_header(),
        xsrf(gate)
    );
    wire.write_all(head.as_bytes()).unwrap();
    wire.flush().unwrap();
    let answer = read_answer(&mut wire, true).unwrap().expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-length"), Some(SIZE.to_string().as_str()), "{answer:?}");
    let (mut left, mut hash, mut buffer) = (SIZE, Sha256::new(), vec![0; PIECE]);
    while left > 0 {
        let count = wire.read(&mut buffer).unwrap();
        assert!(count > 0, "{left} bytes are missing");
        hash.update(&buffer[..count]);
        left -= count as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
