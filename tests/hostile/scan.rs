//! Scanners of TLS against a session's gateway, and of ssh against its server, with the certificate that sessions have where nobody gives them another.
//! What they find is accepted here by name, with the reason, or fails the test. Neither asks anybody but the gateway.

use std::{fs, path::Path, process::Command, sync::LazyLock};

use serde_json::Value;

use crate::{
    harness::{Site, place::place, seconds, sh},
    stage::Stage,
};

/// A finding that is accepted, and why.
type Accepted = (&'static str, &'static str);

const OF_TESTSSL: [Accepted; 6] = [
    ("engine_problem", "is of the OpenSSL that it asks with: no GOST"),
    ("sessionresumption_ticket", "it hangs up before TLS 1.3 hands out a ticket, now and then"),
    ("cipher_order", "all that is left is strong, and a client knows best which its processor is quick at"),
    ("cert_chain_of_trust", "self-signed: its fingerprint is printed at each start"),
    ("cert_revocation", "self-signed: there is nobody who could revoke it"),
    ("HSTS", "is for a whole host, and the other ports of this one are other people's"),
];

const OF_SSLYZE: [Accepted; 1] =
    [("certificate_path_validation", "self-signed: its fingerprint is printed at each start")];

const OF_SSH_AUDIT: [Accepted; 4] = [
    (
        "curve25519-sha256",
        "no elliptic curve is safe from a quantum computer; clients before OpenSSH 9.9 have nothing better",
    ),
    ("curve25519-sha256@libssh.org", "the same under its first name"),
    (
        "chacha20-poly1305@openssh.com",
        "strict key exchange is on, which answers it; it asks for that of clients, too",
    ),
    ("ssh-ed25519", "as curve25519"),
];

/// What testssl.sh has to have looked for: a scan that broke off has found nothing either.
const LOOKED_FOR: [&str; 14] = [
    "SSLv2",
    "SSLv3",
    "TLS1",
    "TLS1_1",
    "heartbleed",
    "CCS",
    "ROBOT",
    "secure_client_renego",
    "CRIME_TLS",
    "SWEET32",
    "LOGJAM",
    "DROWN",
    "RC4",
    "cert_keySize",
];

/// Where testssl.sh finds nothing.
pub(crate) fn testssl(site: &Site) {
    let stage = Stage::new(site);
    let report = site.mallory.home.join("testssl.json");
    let (url, address) = (format!("https://{}", stage.authority()), stage.address().ip().to_string());
    let words =
        ["testssl", "--warnings", "batch", "--color", "0", "--nodns", "none", "--ip", &address, "--jsonfile"];
    // all it has but simulations of clients, which take as long as the rest and find nothing
    let rest = [report.to_str().unwrap(), "-p", "-s", "-f", "-P", "-S", "-h", "-U", &url];
    let said = stage.attack(&[&words[..], &rest].concat()).finish(seconds(240)).stdout;
    assert!(said.contains(" Done "), "it did not come to its end:\n{said}");
    let report = read(&report);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings: Vec<_> = report
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (text(f, "id"), text(f, "severity"), text(f, "finding")))
        .collect();
    for looked_for in LOOKED_FOR {
        assert!(
            findings.iter().any(|(id, ..)| id.split(' ').next() == Some(looked_for)),
            "{looked_for}: {findings:#?}"
        );
    }
    let found = findings.into_iter().filter(|(_, severity, _)| !matches!(severity.as_str(), "OK" | "INFO"));
    judge(
        &OF_TESTSSL,
        &found.map(|(id, severity, finding)| (id, format!("{severity}, {finding}"))).collect::<Vec<_>>(),
    );
    stage.close();
}

/// Where sslyze finds nothing that would not be in Mozilla's intermediate profile.
pub(crate) fn sslyze(site: &Site) {
    let stage = Stage::new(site);
    let report = site.mallory.home.join("sslyze.json");
    let (json, address) = (format!("--json_out={}", report.display()), stage.address());
    let target = format!("{}{{{}}}", stage.authority(), address.ip());
    let words = [PYTHON.as_str(), "-m", "sslyze", "--mozilla_config", "intermediate", &json, &target];
    let said = stage.attack(&words).finish(seconds(120)).stdout;
    let report = read(&report);
    let scan = &report["server_scan_results"][0];
    assert_eq!(scan["scan_status"], "COMPLETED", "{said}");
    for (command, result) in scan["scan_result"].as_object().unwrap() {
        assert!(
            ["COMPLETED", "NOT_SCHEDULED"].contains(&result["status"].as_str().unwrap()),
            "{command}: {result}"
        );
    }
    let (_, verdict) = said.split_once("COMPLIANCE AGAINST TLS CONFIGURATION").expect("a verdict");
    let found = verdict.lines().filter_map(|line| line.trim().strip_prefix("* ")?.split_once(": "));
    let found: Vec<_> = found.map(|(id, what)| (id.to_owned(), what.to_owned())).collect();
    assert!(
        verdict.contains(if found.is_empty() { "OK - Compliant" } else { "FAILED - Not compliant" }),
        "{said}"
    );
    judge(&OF_SSLYZE, &found);
    stage.close();
}

/// Where ssh-audit finds no algorithm that is weak.
pub(crate) fn ssh_audit(site: &Site) {
    let stage = Stage::new(site);
    let address = stage.ssh();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let said = stage.attack(&[
        &PYTHON,
        "-m",
        "ssh_audit.ssh_audit",
        "--json",
        "--skip-rate-test",
        "-p",
        &port,
        &host,
    ]);
    let said = said.finish(seconds(60)).stdout;
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(report["banner"]["raw"].as_str().unwrap().starts_with("SSH-2.0-shlogin"), "{report:#}");
    let mut found = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        let algorithms = report[kind].as_array().unwrap();
        assert!(!algorithms.is_empty(), "{report:#}");
        for algorithm in algorithms {
            let name = algorithm["algorithm"].as_str().unwrap().to_owned();
            for severity in ["fail", "warn"] {
                let notes = algorithm["notes"][severity].as_array().into_iter().flatten();
                found.extend(notes.map(|note| (name.clone(), format!("{severity}: {note}"))));
            }
        }
    }
    assert!(!found.iter().any(|(_, what)| what.starts_with("fail")), "{found:#?}");
    judge(&OF_SSH_AUDIT, &found);
    stage.close();
}

fn read(report: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap()
}

/// All that was found is accepted.
fn judge(accepted: &[Accepted], found: &[(String, String)]) {
    let new: Vec<_> = found.iter().filter(|(id, _)| !accepted.iter().any(|(known, _)| known == id)).collect();
    assert!(new.is_empty(), "{new:#?}");
}

/// Why the scanners cannot be run; `None` where they can.
pub(crate) fn no_scanners() -> Option<String> {
    find().err()
}

/// Where they were installed.
///
/// # Errors
/// Why they are not there.
fn find() -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-scanners");
    let output = Command::new(script).arg("--find").output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The Python that has them, where every user can run it: a cache may lie in root's home.
static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let folder = place().root().join("scanners");
    fs::create_dir(&folder).unwrap();
    // read-only, so that nothing that clears this run's folder away can reach through it
    sh(&["mount", "--bind", "-o", "ro,nosuid,nodev", &find().unwrap(), folder.to_str().unwrap()]);
    folder.join("bin/python").display().to_string()
});
