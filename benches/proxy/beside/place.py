"""What a run needs on this machine: packages, our own programs, a folder, a certificate."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TOP = HERE.parent.parent
CACHE = Path(
    os.environ.get("SHLOGIN_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shlogin"
)

# command, and the package of Debian that brings it; apache2-bin is apache2 without a service of its own
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "apache2": "apache2-bin",
    "h2load": "nghttp2-client",
    "wrk": "wrk",
    "npm": "npm",
    "node": "nodejs",
    "openssl": "openssl",
    "taskset": "util-linux",
    "setpriv": "util-linux",
}

POLICY = Path("/usr/sbin/policy-rc.d")


def install():
    """Installs what is missing, and lets none of it start as a service."""
    missing = sorted({package for command, package in PACKAGES.items() if not shutil.which(command)})
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")  # no service may start (invoke-rc.d(8))
        POLICY.chmod(0o755)
    try:
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "update"], check=True, env=environment)
        subprocess.run(
            [*apt, "install", "-y", "--no-install-recommends", *missing],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )
    finally:
        if ours:
            POLICY.unlink()


def build():
    """Builds our programs; returns the folder they are in."""
    cargo = ["cargo", "--quiet"]
    subprocess.run([*cargo, "build", "--release", "-p", "proxy-bench"], check=True, cwd=TOP)
    told = subprocess.check_output([*cargo, "metadata", "--format-version", "1", "--no-deps"], cwd=TOP)
    return Path(json.loads(told)["target_directory"]) / "release"


@functools.cache
def configurable_http_proxy():
    """The path of configurable-http-proxy, of the version in package-lock.json."""
    content = (HERE / "package-lock.json").read_bytes()
    kept = CACHE / f"proxy-bench-{hashlib.sha256(content).hexdigest()[:16]}"
    if not (kept / "node_modules").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".proxy-bench-", dir=CACHE) as fresh:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, fresh)
            subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                check=True, cwd=fresh, stdout=subprocess.DEVNULL,
            )
            kept.mkdir(exist_ok=True)
            os.rename(Path(fresh, "node_modules"), kept / "node_modules")
    return kept / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"


class Certificate:
    """A certificate for localhost, made for this run: ECDSA with P-256, as browsers' servers have."""

    def __init__(self, folder):
        self.path, self.key, self.both = folder / "cert.pem", folder / "key.pem", folder / "both.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", self.key, "-out", self.path, "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, stderr=subprocess.DEVNULL,
        )
        self.both.write_text(self.path.read_text() + self.key.read_text())


def say(text):
    print(f"proxy: {text}", file=sys.stderr, flush=True)
