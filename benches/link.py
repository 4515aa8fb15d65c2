#!/usr/bin/python3
"""A session in a Slurm job, reached through its gateway and the link to its node, beside an app reached by `ssh -L`.

As root, on Debian, with what `scripts/setup test` installs, and nothing else running:

    benches/link.py                                             builds it, and measures all of it
    benches/link.py --shlogin target/release/shlogin --only requests,latency --rounds 3
    benches/link.py --list                                      the cases

It brings up a cluster of its own (tests/cluster/cluster), makes one user with a home folder in memory, starts an sshd on
the node c1, a session in a job on c1 and one on the login node, and the same small app beside each; has them measured by
the same clients, in turn; and removes it all. Beside them stand two floors: `ssh -L` to an app that speaks TLS itself, so that
its client decrypts as a session's does, and two bare relays, which encrypt what a session does and do nothing else
(benches/proxy/src/bin/bare.rs). Prints Markdown.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ssh import CIPHERS, GIB, MIB, Results, User, asked, connects, ended, free_port, until

TOP = Path(__file__).resolve().parent.parent
NODE = "c1"
# Of the small app (benches/proxy/src/bin/origin.rs): what it answers with, how large that is, and how often it is asked
# for in one turn, after once for nothing.
BODIES = {"10 MiB": ("/10m", 10 * MIB, 20), "1 GiB": ("/1g", GIB, 1)}
CONNECTIONS = {1: 5000, 16: 25000, 64: 25000}
# What browsers ask for first; curl and h2load would ask for AES-256.
SUITE = "TLS_AES_128_GCM_SHA256"


def say(text):
    print(f"link: {text}", file=sys.stderr, flush=True)


class Cluster:
    """Two compute nodes and this machine as their login node."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {**os.environ, "SHLOGIN_CLUSTER": str(folder)}
        self.conf = folder / "etc/slurm.conf"

    def words(self, *words):
        return [str(word) for word in (TOP / "tests/cluster/cluster", *words)]

    def run(self, *words):
        done = subprocess.run(self.words(*words), env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cluster {words[0]}: {done.stderr}")
        return done.stdout.strip()

    def popen(self, *words, **more):
        return subprocess.Popen(self.words(*words), env=self.env, stdin=subprocess.DEVNULL, **more)

    def address(self):
        return f"{self.run('network')}.1{NODE[1:]}"


class App:
    """The small app outside of any session."""

    def __init__(self, process):
        self.process = process
        self.port = int(process.stdout.readline().split()[1])

    def close(self):
        ended(self.process)


def processes(fits):
    """The processes of this machine, nodes included, whose arguments fit."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if fits([word.decode(errors="replace") for word in words], folder.stat().st_uid):
                    found.append(folder)
    return found


def spent(folders):
    """Seconds of processor time of these processes: their own and the kernel's as it samples them, and all as it counts it."""
    user = kernel = exact = 0
    for folder in folders:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        user, kernel = user + int(fields[11]), kernel + int(fields[12])
        for thread in (folder / "task").iterdir():
            with contextlib.suppress(OSError):
                exact += int((thread / "schedstat").read_text().split()[0])
    return user / os.sysconf("SC_CLK_TCK"), kernel / os.sysconf("SC_CLK_TCK"), exact / 1e9


class Plain:
    """The app by HTTP."""

    goal = "≥ 1.0"

    def __init__(self, name, port, scheme="http"):
        self.name, self.port, self.url, self.fields = name, port, f"{scheme}://localhost:{port}", []

    def connect(self):
        wire = socket.create_connection(("127.0.0.1", self.port), 30)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return wire


class Forward(Plain):
    """The app on the node by `ssh -L`."""

    def __init__(self, user, server, app, cipher, scheme="http"):
        super().__init__("ssh", free_port(), scheme)
        self.label, self.user = cipher, user
        if scheme == "https":
            self.label, self.goal = f"{cipher} and an app with TLS", ""
        before = set(self._servers())
        self.client = user.popen([
            "ssh", "-F", "none", "-N", "-i", user.home / ".ssh/id_ed25519", *(word for option in (
                f"Port={server.port}", f"Ciphers={CIPHERS[cipher]}", f"UserKnownHostsFile={server.known}", "BatchMode=yes",
                "HostKeyAlias=server", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "IdentitiesOnly=yes",
                "LogLevel=ERROR", "ExitOnForwardFailure=yes") for word in ("-o", option)),
            "-L", f"127.0.0.1:{self.port}:127.0.0.1:{app.port}", server.address])
        until("the forward", lambda: connects(self.port))
        # Each has two processes at the other end, the second of which takes a moment to say whose it is.
        mine = lambda: [folder for folder in self._servers() if folder not in before]
        until("both halves of its sshd", lambda: len(mine()) == 2)
        self.processes = [Path(f"/proc/{self.client.pid}"), *mine()]

    def _servers(self):
        return processes(lambda words, _: words[0].startswith(f"sshd: {self.user.name}"))

    def close(self):
        ended(self.client)


class Bare(Plain):
    """The app on the node by two relays with TLS in front of and between them."""

    goal = ""

    def __init__(self, user, cluster, programs, keys, app):
        super().__init__("ssh", None, "https")
        self.label, said = "bare relays", {"stdout": subprocess.PIPE, "text": True}
        words = [programs / "bare", *keys]
        before = self._relays(user)
        far = cluster.popen("in", NODE, "as", user.name, "--", *words, "--to", f"127.0.0.1:{app.port}",
                            "--listen", f"{cluster.address()}:0", **said)
        self.far = App(far)
        self.near = App(user.popen([*words, "--to", f"{cluster.address()}:{self.far.port}", "--through", "tls"], **said))
        self.port = self.near.port
        self.url = f"https://localhost:{self.port}"
        self.processes = [folder for folder in self._relays(user) if folder not in before]

    @staticmethod
    def _relays(user):
        return processes(lambda words, uid: uid == user.uid and Path(words[0]).name == "bare")

    def close(self):
        self.near.close()
        self.far.close()


class Sshd:
    """An sshd on the node: Debian's defaults but for `UsePAM no`."""

    def __init__(self, user, cluster):
        self.port, self.address, folder = 2222, cluster.address(), cluster.folder
        key, config = folder / "host_key", folder / "sshd_config"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        public = " ".join((folder / "host_key.pub").read_text().split()[:2])
        self.known = user.write("known/server", f"server {public}\n")
        config.write_text(
            f"Port {self.port}\nListenAddress {self.address}\nHostKey {key}\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nAuthorizedKeysFile .ssh/authorized_keys\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.log = open(folder / "sshd.log", "w")
        self.server = cluster.popen("in", NODE, "--", "/usr/sbin/sshd", "-D", "-e", "-f", config,
                                    stdout=self.log, stderr=self.log)
        until("sshd", self._answers)

    def _answers(self):
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
            return True
        return False

    def close(self):
        # The node's own end takes what it has started with it.
        ended(self.server)


class Session:
    """The app in a session, by its gateway."""

    def __init__(self, user, programs, name, *options):
        self.user, self.shlogin, self.name, self.session = user, programs / "shlogin", "shlogin", name
        before = set(self._ours())
        told = user.run([self.shlogin, "start", "--name", name, *options, "--", programs / "origin"])
        # Its name for itself does not matter: it answers to localhost as well, as through `ssh -L`.
        url = re.search(r"https://\S+", told)[0]
        self.port = int(re.search(r":(\d+)/", url)[1])
        self.url = f"https://localhost:{self.port}"
        path = url.partition(f":{self.port}")[2]
        with self.connect() as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{self.port}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while got := wire.recv(65536):
                answer += got
        cookies = re.findall(r"(?im)^set-cookie: ([^;\r]+)", answer.decode(errors="replace"))
        self.fields = [f"Cookie: {'; '.join(cookies)}"]
        self.processes = [folder for folder in self._ours() if folder not in before]
        # Of a session in a job: its two ends.
        roles = {folder: (folder / "cmdline").read_bytes().split(b"\0")[1].decode() for folder in self.processes}
        self.parts = {f"of it {role}": [folder] for folder, role in roles.items() if role in ("@gate", "@host")}

    def _ours(self):
        return processes(lambda words, uid: uid == self.user.uid and Path(words[0]).name == "shlogin")

    def connect(self):
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        # A sign-in is good for the user who made it, and a socket is whose it was made by.
        os.seteuid(self.user.uid)
        try:
            wire = socket.create_connection(("127.0.0.1", self.port), 30)
        finally:
            os.seteuid(0)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return tls.wrap_socket(wire)

    def close(self):
        self.user.run([self.shlogin, "stop", self.session])


# Each of these measures one side once, and returns the figure.

def bulk(side, user, what, up):
    """MiB a second of bodies on one connection, from when that is there."""
    path, size, count = BODIES[what]
    once = count + (count > 1)
    words = ["curl", "-sS", "-4", "--http1.1", "--insecure", "--tls13-ciphers", SUITE, "-H", "Expect:",
             "-w", "%{http_code} %{size_download} %{size_upload} %{time_total} %{time_pretransfer}\n"]
    for field in side.fields:
        words += ["-H", field]
    for _ in range(once):
        if up:
            words += ["-X", "POST", "-T", user.home / what.replace(" ", ""), "-o", "/dev/null", f"{side.url}/up"]
        else:
            words += ["-o", "/dev/null", f"{side.url}{path}"]
    lines = [line.split() for line in user.run(words).splitlines()]
    if len(lines) != once or any(line[0] != "200" or int(line[2 if up else 1]) != size for line in lines):
        raise SystemExit(f"{side.name}: not all bodies came: {lines[:3]}")
    took = sum(float(line[3]) - float(line[4]) for line in lines[-count:])
    return size * count / MIB / took


def requests(side, user, connections, number):
    """Requests of 1 KiB a second on kept connections."""
    fields = [word for field in side.fields for word in ("-H", field)]
    words = ["h2load", "--h1", "-t", 1, "-c", connections, "--tls13-ciphers", SUITE, *fields, "--connect-to", f"127.0.0.1:{side.port}",
             f"{side.url}/1k"]
    user.run([*words, "-n", connections * 20])
    told = user.run([*words, "-n", number])
    if f" {number} 2xx" not in told:
        raise SystemExit(f"h2load: {told}")
    return float(re.search(r"([\d.]+) req/s", told)[1])


class Kept:
    """A kept connection, over which one request of 1 KiB after the other is made."""

    def __init__(self, side):
        self.side, self.wire = side, side.connect()
        fields = "".join(f"{field}\r\n" for field in side.fields)
        self.request = f"GET /1k HTTP/1.1\r\nHost: localhost:{side.port}\r\n{fields}\r\n".encode()
        self.took(100)

    def took(self, number):
        """Microseconds, each."""
        figures = []
        for _ in range(number):
            begin = time.perf_counter()
            self.wire.sendall(self.request)
            answer = self.wire.recv(65536)
            while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + 1024:
                if not (more := self.wire.recv(65536)):
                    raise SystemExit(f"{self.side.name}: the connection has ended")
                answer += more
            figures.append((time.perf_counter() - begin) * 1e6)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{self.side.name}: {answer[:200]!r}")
        return figures


def no_jobs(user, but=1):
    """Until a user has no more than these jobs."""
    until("the end of a job", lambda: user.run(["squeue", "-h", "--me"]).count("\n") <= but, 30)


def job_alone(user, programs):
    """Milliseconds from sbatch until the app's first line is on the shared disk."""
    out = user.home / "out"
    out.unlink(missing_ok=True)
    begin = time.perf_counter()
    sbatch = user.popen(["sbatch", "--parsable", "-w", NODE, "-t", "10", "-o", out, programs / "job"],
                        stdout=subprocess.PIPE, text=True)
    while not (out.exists() and out.stat().st_size):
        time.sleep(0.0005)
    took = (time.perf_counter() - begin) * 1000
    number = sbatch.communicate()[0].strip()
    if not out.read_text().startswith("port "):
        raise SystemExit(f"the job says: {out.read_text()}")
    user.run(["scancel", number])
    no_jobs(user)
    return took


def job_of_ours(user, programs):
    """Milliseconds from `start --slurm` until the URL is printed."""
    begin = time.perf_counter()
    start = user.popen([programs / "shlogin", "start", "--slurm", "-w", NODE, "--time", "10", "--name", "timed", "--",
                        programs / "origin"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = start.stdout.readline()
    took = (time.perf_counter() - begin) * 1000
    if not line.startswith("https://"):
        raise SystemExit(f"start says: {line}{start.communicate()[0]}")
    start.communicate()
    user.run([programs / "shlogin", "stop", "timed"])
    no_jobs(user)
    return took


def turned(sides, number):
    at = number % len(sides)
    return sides[at:] + sides[:at]


class Bench:
    def __init__(self, user, programs, forwards, floors, link, local, plain, options):
        self.user, self.programs, self.options = user, programs, options
        self.forwards, self.floors, self.link, self.local, self.plain = forwards, floors, link, local, plain
        self.results, self.lines, self.cost = Results(), [], {}

    def one(self, case, unit, number, work, action, forwards):
        """All sides in turn; the session's figure stands beside each of the others'. `work` is what a turn has done."""
        figures = {}
        for side in turned([self.link, *forwards], number):
            name = getattr(side, "label", "session")
            parts = {name: side.processes, **getattr(side, "parts", {})}
            before = {part: spent(folders) for part, folders in parts.items()}
            figure = action(side)
            for part, folders in parts.items():
                took = [after - before for after, before in zip(spent(folders), before[part])]
                self.cost.setdefault((case, part), []).append([seconds / work for seconds in took])
            took = [seconds * work for seconds in self.cost[case, name][-1]]
            figures[side] = (figure, took[2])
            say(f"round {number + 1}, {case}, {name}: {figure:,.0f} {unit}, processor {took[0]:.2f} + {took[1]:.2f} s, "
                f"{took[2]:.2f} in all")
        for side in forwards:
            row = f"{case}, {side.label}"
            self.results.add(row, unit, side.goal, "ssh", *figures[side])
            self.results.add(row, unit, side.goal, "shlogin", *figures[self.link])

    def bulk(self):
        for number in range(self.options.rounds):
            for what, (_, size, count) in BODIES.items():
                for up in (False, True):
                    case = f"{what} {'up' if up else 'down'}"
                    action = lambda side, what=what, up=up: bulk(side, self.user, what, up)
                    self.one(case, "MiB/s", number, size * count / GIB, action, [*self.forwards, *self.floors])

    def requests(self):
        for number in range(self.options.rounds):
            for connections, total in CONNECTIONS.items():
                case = f"GET of 1 KiB, {connections} at a time"
                action = lambda side, connections=connections, total=total: requests(side, self.user, connections, total)
                self.one(case, "/s", number, total / 1000, action, [*self.forwards, *self.floors])

    def latency(self):
        sides = {"session in a job": self.link, "session here": self.local, "ssh -L": self.forwards[0],
                 "straight": self.plain}
        kept = {name: Kept(side) for name, side in sides.items()}
        figures = {name: [] for name in kept}
        for number in range(self.options.rounds):
            for _ in range(10):
                for name in turned(list(kept), number):
                    figures[name].append(statistics.median(kept[name].took(100)))
        added = [[a - b for a, b in zip(figures[one], figures[other])]
                 for one, other in (("session in a job", "session here"), ("ssh -L", "straight"))]
        for name, values in figures.items():
            self.line(f"GET of 1 KiB, one at a time: {name}", "µs", values)
        for name, values in zip(("the link adds to a gateway here", "`ssh -L` adds to the app alone"), added):
            self.line(name, "µs", values)

    def start(self):
        figures = {job_alone: [], job_of_ours: []}
        for number in range(self.options.starts + 1):
            for action in turned(list(figures), number):
                took = action(self.user, self.programs)
                say(f"start {number}, {action.__name__}: {took:.0f} ms")
                if number:  # the first fills caches
                    figures[action].append(took)
        alone, ours = figures.values()
        more = [b - a for a, b in zip(alone, ours)]
        for name, values in (("`sbatch` until the app's first line", alone), ("`start --slurm` until its URL", ours),
                             ("the difference (goal ≤ 300)", more)):
            self.line(name, "ms", values)

    def line(self, name, unit, values):
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        self.lines.append(f"| {name}, {unit} | {statistics.median(values):,.0f} | {spread} |")

    def markdown(self):
        parts = []
        if self.results.rows:
            parts.append(self.results.markdown())
            names = list(dict.fromkeys(name for _, name in self.cost))
            lines = [f"| processor time: own + the kernel's; all of it | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
            for case in dict.fromkeys(case for case, _ in self.cost):
                unit = "µs a request" if case.startswith("GET") else "s a GiB"
                scale = 1000 if case.startswith("GET") else 1
                row = []
                for name in names:
                    spent = [[part * scale for part in one] for one in self.cost.get((case, name), [])]
                    row.append("{:.2f} + {:.2f}; {:.2f}".format(*map(statistics.median, zip(*spent))) if spent else "")
                lines.append(f"| {case}, {unit} | {' | '.join(row)} |")
            parts.append("\n".join(lines))
        if self.lines:
            parts.append("\n".join(["| | median | least to most |", "|---|---|---|", *self.lines]))
        return "\n\n".join(parts)


CASES = ["bulk", "requests", "latency", "start"]


def certificate(user):
    """Arguments that name a certificate for localhost, and its key."""
    cert, key = user.home / "cert.pem", user.home / "key.pem"
    user.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
              "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", cert, "-keyout", key])
    return ["--cert", cert, "--key", key]


def build():
    say("building")
    words = ["cargo", "build", "--release", "-p", "shlogin", "-p", "proxy-bench", "--bin", "shlogin", "--bin", "origin",
             "--bin", "bare"]
    subprocess.run(words, cwd=TOP, check=True)
    told = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=TOP, check=True,
                          capture_output=True)
    return Path(json.loads(told.stdout)["target_directory"]) / "release/shlogin"


@contextlib.contextmanager
def place(shlogin, small=None):
    """A user, a cluster, copies of the programs for both (`small`: where `origin` and `bare` are, else beside `shlogin`), and
    `kept`, by which what is started is closed at the end. All of it is gone after that, also after a signal."""

    def end(number, _):
        # Once: what follows removes all that was made.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with contextlib.ExitStack() as stack:
        # Not in /tmp, of which each node has its own.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="link-bench-", dir="/var/lib")))
        folder.chmod(0o755)
        # What is mounted before the cluster is there, the nodes see, too.
        user = User(f"bench{os.getpid()}")
        stack.callback(user.remove)
        user.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", user.write(".ssh/empty", "").parent / "id_ed25519"])
        user.write(".ssh/authorized_keys", (user.home / ".ssh/id_ed25519.pub").read_text())
        for what, (_, size, _) in BODIES.items():
            with open(user.home / what.replace(" ", ""), "wb") as file:
                file.truncate(size)
        programs = folder / "bin"
        programs.mkdir()
        shutil.copy(shlogin, programs / "shlogin")
        for program in ("origin", "bare"):
            shutil.copy((small or shlogin.parent) / program, programs / program)
        (programs / "job").write_text(f"#!/bin/sh\nexec {programs}/origin\n")
        for program in programs.iterdir():
            program.chmod(0o755)
        cluster = Cluster(folder / "cluster")
        stack.callback(lambda: cluster.run("down"))
        cluster.run("up")
        user.env["SLURM_CONF"] = str(cluster.conf)

        def kept(thing):
            stack.callback(thing.close)
            return thing

        yield user, cluster, programs, kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shlogin", type=Path, help="the program to measure; built where it is not named")
    parser.add_argument("--small", type=Path, metavar="FOLDER", help="where `origin` and `bare` are; beside the program where it is not named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single figure")
    parser.add_argument("--hold", action="store_true", help="measure nothing, and wait for Ctrl-C: to look at it closely")
    options = asked(parser, CASES, "it makes a user, a network and a Slurm cluster")
    shlogin = options.shlogin or build()

    with place(shlogin, options.small) as (user, cluster, programs, kept):
        said = {"stdout": subprocess.PIPE, "text": True}
        plain = Plain("straight", kept(App(user.popen([programs / "origin"], **said))).port)
        far = kept(App(cluster.popen("in", NODE, "as", user.name, "--", programs / "origin", **said)))
        server = kept(Sshd(user, cluster))
        forwards = [kept(Forward(user, server, far, cipher)) for cipher in CIPHERS]
        keys = certificate(user)
        encrypted = kept(App(cluster.popen("in", NODE, "as", user.name, "--", programs / "origin", *keys, **said)))
        floors = [kept(Forward(user, server, encrypted, next(iter(CIPHERS)), "https")),
                  kept(Bare(user, cluster, programs, keys, far))]
        link = kept(Session(user, programs, "link", "--slurm", "-w", NODE, "--time", "60"))
        local = kept(Session(user, programs, "local"))
        if options.hold:
            for side in (link, local, *forwards, *floors, plain):
                print(side.url, *side.fields, *getattr(side, "processes", []), flush=True)
            signal.pause()
        before = os.getloadavg()[0]
        bench = Bench(user, programs, forwards, floors, link, local, plain, options)
        for what in CASES:
            if what in options.only:
                getattr(bench, what)()
        version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()
        machine = (f"{os.cpu_count()} cores, Linux {platform.release()}, {version}; load {before:.1f} before and "
                   f"{os.getloadavg()[0]:.1f} after")
        if options.json:
            cost = {f"{case}, {name}": values for (case, name), values in bench.cost.items()}
            known = {"machine": machine, "results": bench.results.rows, "cost": cost, "lines": bench.lines}
            options.json.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{machine}\n\n{bench.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
