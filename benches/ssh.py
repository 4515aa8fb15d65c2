#!/usr/bin/python3
"""shlogin's ssh server beside OpenSSH's, and its terminal page beside wetty, in one run on one machine.

As root, on Debian, with what `scripts/setup test` installs, and nothing else running:

    benches/ssh.py --shlogin target/release/shlogin                    all of it
    benches/ssh.py --shlogin target/release/shlogin --only exec,forward --rounds 3
    benches/ssh.py --list                                              the cases

It makes one user with a home folder in memory, starts an sshd of its own and a session of that user's, has both measured
by the same OpenSSH client over 127.0.0.1, in turn, and removes it all. wetty comes from npm into $SHLOGIN_CACHE, of the
version in benches/wetty/package-lock.json. Prints Markdown.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import pwd
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(
    os.environ.get("SHLOGIN_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shlogin"
)
GIB, MIB = 1 << 30, 1 << 20
CIPHERS = {"aes128-gcm": "aes128-gcm@openssh.com", "chacha20": "chacha20-poly1305@openssh.com"}
PORT = 8000

# The app of the session, and the same on the node for sshd. GET /: 1 KiB, on kept connections, head and body in one piece.
# GET /zeros: as many bytes as it says, and the end. POST /sink: reads as many, and answers with one.
ORIGIN = r"""
import select, socket, sys, threading
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024
def bulk(s, head):
    s.setblocking(True)
    method, path, length = head.split()[:3]
    left = int(length)
    if path == b"/zeros":
        zeros = memoryview(bytes(1 << 20))
        while left:
            left -= s.send(zeros[:left])
    else:
        s.sendall(b"!")
        room = bytearray(1 << 20)
        while left:
            n = s.recv_into(room)
            if not n: break
            left -= n
        s.sendall(b".")
    s.close()
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("127.0.0.1", int(sys.argv[1]))); l.listen(256)
e = select.epoll(); e.register(l.fileno(), select.EPOLLIN); all = {}
while True:
    for fd, _ in e.poll():
        if fd == l.fileno():
            s, _ = l.accept(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            all[s.fileno()] = s; e.register(s.fileno(), select.EPOLLIN); continue
        s = all[fd]
        try: head = s.recv(65536)
        except OSError: head = b""
        if head[:7] in (b"BULK /z", b"BULK /s"):
            e.unregister(fd); del all[fd]
            threading.Thread(target=bulk, args=(s, head), daemon=True).start()
        elif head:
            for _ in range(head.count(b"\r\n\r\n")): s.sendall(SMALL)
        else:
            e.unregister(fd); del all[fd]; s.close()
"""


def say(text):
    print(f"ssh: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, look, limit=20.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.01)
    raise SystemExit(f"not in time: {what}")


def connects(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class User:
    """An ordinary user, whose home is in memory. Gone at the end."""

    def __init__(self, name):
        self.name = name
        # Without a password, and not locked either: sshd would refuse that.
        subprocess.run(["useradd", "--no-create-home", "--user-group", "--shell", "/bin/bash", "--password", "*",
                        "--home-dir", f"/home/{name}", name], check=True)
        known = pwd.getpwnam(name)
        self.uid, self.gid, self.home = known.pw_uid, known.pw_gid, Path(known.pw_dir)
        self.runtime = Path(f"/run/user/{self.uid}")
        self.home.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=4g,mode=700,uid={self.uid},gid={self.gid}", "bench",
                        self.home], check=True)
        self.runtime.mkdir(parents=True, mode=0o700)
        os.chown(self.runtime, self.uid, self.gid)
        self.env = {"HOME": str(self.home), "USER": name, "LOGNAME": name, "SHELL": "/bin/bash", "LANG": "C.UTF-8",
                    "PATH": "/usr/local/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(self.runtime)}

    def popen(self, words, **more):
        more = {"stdin": subprocess.DEVNULL, **more}
        return subprocess.Popen([str(word) for word in words], user=self.uid, group=self.gid, extra_groups=[],
                                env=self.env, cwd=self.home, **more)

    def run(self, words, **more):
        process = self.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        out, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, words))}: {process.returncode}: {out}{errors}")
        return out

    def write(self, name, text, mode=0o600):
        path = self.home / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)
        os.chmod(path, mode)
        for one in (path.parent, path):
            os.chown(one, self.uid, self.gid)
        return path

    def remove(self):
        subprocess.run(["umount", "--lazy", self.home], check=False)
        subprocess.run(["userdel", self.name], check=False, stderr=subprocess.DEVNULL)
        for folder in (self.home, self.runtime):
            shutil.rmtree(folder, ignore_errors=True)


def ended(process):
    """Ends a process of ours and waits for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Account:
    """The processor time of all that is started within it, and of what that starts, whoever it belongs to: a control group."""

    def __init__(self, name):
        old, new = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")
        self.old = (old / "cgroup.procs").exists()
        self.root = old if self.old else new
        self.folder = self.root / f"ssh-bench-{os.getpid()}-{name}"
        self.folder.mkdir()

    def __enter__(self):
        self.before = next((path for number, _, path in self._mine() if self.old or number == "0"), "/")
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def __exit__(self, *_):
        (self.root / self.before.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))

    def _mine(self):
        lines = [line.rstrip("\n").split(":", 2) for line in open("/proc/self/cgroup")]
        return [line for line in lines if not self.old or "cpuacct" in line[1].split(",")]

    def seconds(self):
        if self.old:
            return int((self.folder / "cpuacct.usage").read_text()) / 1e9
        return int(re.search(r"usage_usec (\d+)", (self.folder / "cpu.stat").read_text())[1]) / 1e6

    def remove(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return self.folder.rmdir()
            time.sleep(0.02)


class Side:
    """A server, and how to get to it."""

    name: str
    port: int
    account: Account

    def __init__(self, user, host_key):
        self.user = user
        known = user.write(f"known/{self.name}", f"server {host_key}\n")
        self.options = ["-F", "none", "-i", user.home / ".ssh/id_ed25519"]
        for option in (f"Port={self.port}", f"UserKnownHostsFile={known}", "HostKeyAlias=server", "BatchMode=yes",
                       "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "KexAlgorithms=curve25519-sha256",
                       "HostKeyAlgorithms=ssh-ed25519", "IdentitiesOnly=yes", "LogLevel=ERROR"):
            self.options += ["-o", option]

    def ssh(self, *words, cipher="aes128-gcm", program="ssh", **more):
        return self.user.popen([program, *self.options, "-c", CIPHERS[cipher], *words], **more)

    @contextlib.contextmanager
    def forward(self, cipher="aes128-gcm"):
        port = free_port()
        client = self.ssh("-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{self.origin_port()}", "127.0.0.1", cipher=cipher)
        try:
            until("the forward", lambda: connects(port))
            yield port
        finally:
            ended(client)


class OpenSSH(Side):
    name = "sshd"

    def __init__(self, user, folder):
        self.port = free_port()
        key = folder / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\n"
            "AuthorizedKeysFile .ssh/authorized_keys\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.log = open(folder / "sshd.log", "w")
        self.server = subprocess.Popen([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", config],
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        origin = user.write("origin/app.py", ORIGIN)
        self.app_port = free_port()
        self.app = user.popen(["/usr/bin/python3", "-S", origin, self.app_port])
        until("sshd and the app", lambda: connects(self.port) and connects(self.app_port))
        super().__init__(user, " ".join((folder / "host_key.pub").read_text().split()[:2]))

    def origin_port(self):
        return self.app_port

    def close(self):
        ended(self.server)
        ended(self.app)


class Session(Side):
    name = "shlogin"

    def __init__(self, user, shlogin):
        self.shlogin = shlogin
        origin = user.write("origin/app.py", ORIGIN)
        user.run([shlogin, "start", "--network", "isolated", "--name", "bench", "--",
                  "/usr/bin/python3", "-S", origin, PORT])
        self.record = json.loads(user.run([shlogin, "show", "bench", "--json"]))
        self.port = self.record["ssh"]["port"]
        super().__init__(user, self.record["ssh"]["host_key"])

    def origin_port(self):
        return PORT

    def close(self):
        self.user.run([self.shlogin, "stop", "bench"])


def finish(process, what):
    # At once: to wait with a limit is to look again and again, each 50 ms in the end.
    descriptor = os.pidfd_open(process.pid)
    ended, _, _ = select.select([descriptor], [], [], 300)
    os.close(descriptor)
    if not ended:
        raise SystemExit(f"{what} takes too long")
    if process.wait():
        raise SystemExit(f"{what} ended with {process.returncode}")


# Each of these measures one side once, and returns the figure.

def scp(side, cipher, up):
    source, target = side.user.home / "big", side.user.home / "copy"
    target.unlink(missing_ok=True)
    words = [source, f"127.0.0.1:{target}"] if up else [f"127.0.0.1:{source}", target]
    begin = time.perf_counter()
    finish(side.ssh("-q", *words, cipher=cipher, program="scp"), "scp")
    took = time.perf_counter() - begin
    if target.stat().st_size != GIB:
        raise SystemExit("scp has not copied all")
    target.unlink()
    return GIB / MIB / took


def cat(side, cipher, up):
    big = side.user.home / "big"
    begin = time.perf_counter()
    if up:
        source = side.user.popen(["cat", big], stdout=subprocess.PIPE)
        client = side.ssh("127.0.0.1", "cat >/dev/null", cipher=cipher, stdin=source.stdout)
        source.stdout.close()
        finish(client, "ssh")
        finish(source, "cat")
    else:
        finish(side.ssh("127.0.0.1", f"cat {big}", cipher=cipher, stdout=subprocess.DEVNULL), "ssh")
    return GIB / MIB / (time.perf_counter() - begin)


def exec_new(side):
    begin = time.perf_counter()
    finish(side.ssh("127.0.0.1", "true"), "ssh")
    return (time.perf_counter() - begin) * 1000


def bulk(side, cipher, up):
    with side.forward(cipher) as port, socket.create_connection(("127.0.0.1", port)) as s:
        piece = bytearray(MIB)
        begin = time.perf_counter()
        s.sendall(b"BULK %s %d" % (b"/sink" if up else b"/zeros", GIB))
        left = GIB
        if up:
            s.recv(1)
            while left:
                left -= s.send(memoryview(piece)[:left])
            s.recv(1)
        else:
            while left:
                count = s.recv_into(piece)
                if not count:
                    raise SystemExit("the forward has ended early")
                left -= count
        return GIB / MIB / (time.perf_counter() - begin)


def requests(side, connections, number):
    with side.forward() as port:
        words = ["h2load", "--h1", "-c", connections, "-n", number, f"http://127.0.0.1:{port}/"]
        side.user.run([*words[:5], connections * 20, words[6]])
        told = side.user.run(words)
    if f"{number} succeeded" not in told:
        raise SystemExit(f"h2load: {told}")
    return float(re.search(r"([\d.]+) req/s", told)[1])


@contextlib.contextmanager
def master(side):
    path = side.user.home / f"control-{side.name}"
    client = side.ssh("-M", "-N", "-S", path, "127.0.0.1")
    until("the master", path.exists)
    try:
        yield path
    finally:
        ended(client)


def exec_again(side, path):
    begin = time.perf_counter()
    finish(side.ssh("-S", path, "127.0.0.1", "true"), "ssh")
    return (time.perf_counter() - begin) * 1000


class WebSocket:
    """A client's end of a WebSocket. It waits for the server, and not the other way round, wherever `busy` is well below 1."""

    def __init__(self, port, path, fields, tls):
        self.wire = socket.create_connection(("127.0.0.1", port), 30)
        self.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.wire = tls.wrap_socket(self.wire)
        head = [f"GET {path} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *fields, "", ""]
        self.wire.sendall("\r\n".join(head).encode())
        self.buffer = bytearray()
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise SystemExit(f"no WebSocket: {head.decode()}")

    def more(self):
        got = self.wire.recv(256 * 1024)
        if not got:
            raise SystemExit("the terminal has gone")
        self.buffer += got

    def message(self):
        """The next message: opcode and bytes. (Neither server sends fragments.)"""
        while True:
            have = len(self.buffer)
            if have >= 2:
                length, at = self.buffer[1] & 127, 2
                if length == 126 and have >= 4:
                    length, at = struct.unpack_from("!H", self.buffer, 2)[0], 4
                elif length == 127 and have >= 10:
                    length, at = struct.unpack_from("!Q", self.buffer, 2)[0], 10
                elif length >= 126:
                    self.more()
                    continue
                if have >= at + length:
                    opcode, body = self.buffer[0] & 15, bytes(self.buffer[at:at + length])
                    del self.buffer[:at + length]
                    if opcode == 9:
                        self.send(10, body)
                        continue
                    if opcode == 8:
                        raise SystemExit("the terminal has closed")
                    return opcode, body
            self.more()

    def send(self, opcode, body):
        # Masked with zeros.
        head = bytes([0x80 | opcode])
        head += bytes([0x80 | len(body)]) if len(body) < 126 else struct.pack("!BH", 0xFE, len(body))
        self.wire.sendall(head + bytes(4) + body)

    def close(self):
        self.wire.close()


class ShloginPage:
    """As web/src/connection.ts: acknowledges each 16 KiB, and whenever nothing more waits."""

    name = "shlogin"

    def __init__(self, session):
        url = session.user.run([session.shlogin, "url", "bench"]).strip()
        authority, _, path = url.removeprefix("https://").partition("/")
        port = int(authority.rpartition(":")[2])
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        with tls.wrap_socket(socket.create_connection(("127.0.0.1", port))) as s:
            s.sendall(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while got := s.recv(65536):
                answer += got
        cookies = re.findall(r"(?im)^set-cookie: ([^;\r]+)", answer.decode(errors="replace"))
        self.socket = WebSocket(port, "/-/terminal/socket", [
            f"Host: {authority}", f"Origin: https://{authority}", f"Cookie: {'; '.join(cookies)}",
        ], tls)
        attach = {"type": "attach", "client": "bench-" + os.urandom(8).hex(), "terminal": None, "new": True,
                  "have": None, "size": {"cols": 100, "rows": 30}}
        self.socket.send(1, json.dumps(attach).encode())
        self.have = self.acked = None
        self.typed = 0
        while self.have is None:
            said = json.loads(self.socket.message()[1])
            if said["type"] == "attached":
                self.have = self.acked = said["from"]

    def type(self, text):
        self.socket.send(2, struct.pack("!Q", self.typed) + text)
        self.typed += len(text)

    def output(self):
        while True:
            opcode, body = self.socket.message()
            if opcode == 2:
                if int.from_bytes(body[:8], "big") != self.have:
                    raise SystemExit("output does not join on")
                self.have += len(body) - 8
                if self.have - self.acked >= 16384 or not self.socket.buffer:
                    self.acked = self.have
                    self.socket.send(1, b'{"type":"ack","at":%d}' % self.have)
                return body[8:]
            if json.loads(body)["type"] == "skip":
                raise SystemExit("output was skipped")

    def close(self):
        self.socket.close()


class Wetty:
    """wetty's server, without TLS and without the ssh that it would run for others than root."""

    def __init__(self, user, folder):
        self.port = free_port()
        self.log = open(folder / "wetty.log", "w")
        bash = folder / "bash"
        bash.write_text(f"#!/bin/sh\ncd {user.home}\nexec setpriv --reuid={user.uid} --regid={user.gid} --clear-groups "
                        f"env HOME={user.home} USER={user.name} TERM=xterm-256color bash -l\n")
        bash.chmod(0o755)
        self.server = subprocess.Popen(
            ["node", wetty_program(), "--host", "127.0.0.1", "--ssh-host", "127.0.0.1", "--port", str(self.port),
             "--base", "/", "--command", bash, "--log-level", "error"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until("wetty", lambda: connects(self.port))

    def close(self):
        ended(self.server)


class WettyPage:
    """As wetty's page: commits each 256 KiB. socket.io over a WebSocket from the beginning."""

    name = "wetty"

    def __init__(self, wetty):
        self.socket = WebSocket(wetty.port, "/socket.io/?EIO=4&transport=websocket",
                                [f"Host: 127.0.0.1:{wetty.port}"], None)
        self.socket.message()
        self.socket.send(1, b"40")
        while not self.socket.message()[1].startswith(b'42["login"'):
            pass  # before that, nobody listens
        self.counter = 0
        self.emit("resize", {"cols": 100, "rows": 30})

    def emit(self, *what):
        self.socket.send(1, b"42" + json.dumps(what).encode())

    def type(self, text):
        self.emit("input", text.decode())

    def output(self):
        while True:
            body = self.socket.message()[1]
            if body == b"2":
                self.socket.send(1, b"3")
            elif body.startswith(b"42"):
                what = json.loads(body[2:])
                if what[0] == "data":
                    self.counter += len(what[1])
                    if self.counter >= 262144:
                        self.counter -= 262144
                        self.emit("commit", 262144)
                    return what[1].encode()

    def close(self):
        self.socket.close()


def wetty_program():
    """The path of wetty, of the version in package-lock.json; its one native module is built here."""
    content = (HERE / "wetty/package-lock.json").read_bytes()
    kept = CACHE / f"terminal-bench-{hashlib.sha256(content).hexdigest()[:16]}"
    if not (kept / "node_modules").is_dir():
        say("installing wetty")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".terminal-bench-", dir=CACHE) as fresh:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / "wetty" / name, fresh)
            npm = {"check": True, "cwd": fresh, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], **npm)
            headers = {"npm_config_nodedir": "/usr"} if Path("/usr/include/node/node.h").exists() else {}
            subprocess.run(["npm", "rebuild", "node-pty"], **npm, stdin=subprocess.DEVNULL, env={**os.environ, **headers})
            kept.mkdir(exist_ok=True)
            os.rename(Path(fresh, "node_modules"), kept / "node_modules")
    return kept / "node_modules/wetty/build/main.js"


def settle(page):
    """A shell with a short prompt that has nothing more to say."""
    page.type(b"bind 'set enable-bracketed-paste off'; PS1='$ '; stty -echo; echo rea''dy\r")
    text = b""
    while b"ready\r\n$ " not in text:
        text += page.output()


def shown(make, command):
    """Million bytes a second of a command's output, and how busy our own client was meanwhile."""
    page = make()
    settle(page)
    begin, own, count, tail = time.perf_counter(), time.process_time(), 0, b""
    page.type(command + b"; echo do''ne\r")
    while b"done\r\n$ " not in tail:
        got = page.output()
        count += len(got)
        tail = (tail + got)[-64:] if len(got) < 64 else got[-64:]
    took, own = time.perf_counter() - begin, time.process_time() - own
    page.close()
    return count / 1e6 / took, own / took


def bare(user, command):
    """The same from a pty that nobody shows, read in a loop: what no terminal server can exceed."""
    ours, theirs = os.openpty()
    begin, count = time.perf_counter(), 0
    program = user.popen(["sh", "-c", command.decode()], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    with contextlib.suppress(OSError):  # that is how a pty ends
        while got := os.read(ours, 65536):
            count += len(got)
    took = time.perf_counter() - begin
    finish(program, "what was to be shown")
    os.close(ours)
    return count / 1e6 / took


def interrupt(make):
    """Milliseconds from Ctrl-C until it is shown, while `yes` runs."""
    page = make()
    settle(page)
    page.type(b"stty echo; yes\r")
    begin = time.monotonic()
    while time.monotonic() < begin + 1:
        page.output()
    begin = time.perf_counter()
    page.type(b"\x03")
    tail = b""
    while b"^C" not in tail:
        tail = tail[-1:] + page.output()
    took = (time.perf_counter() - begin) * 1000
    page.close()
    return took, 0.0


CASES = ["scp", "cat", "exec", "forward", "requests", "terminal"]


class Results:
    """Figures, case by case, one of each side in each round."""

    def __init__(self):
        self.rows = {}

    def add(self, case, unit, goal, side, figure, cost=None, client=None):
        row = self.rows.setdefault(case, {"unit": unit, "goal": goal, "figures": {}, "cost": {}, "client": {}})
        for column, value in (("figures", figure), ("cost", cost), ("client", client)):
            if value is not None:
                row[column].setdefault(side, []).append(value)

    def ratios(self, row, of):
        other = next((name for name in row[of] if name not in ("shlogin", "pty")), None)
        if other is None or "shlogin" not in row[of]:
            return []
        return [ours / theirs for ours, theirs in zip(row[of]["shlogin"], row[of][other]) if theirs]

    def markdown(self):
        lines = ["| | goal | other | shlogin | ratio | least to most | processor time × other |", "|---|---|---|---|---|---|---|"]
        for case, row in self.rows.items():
            figures = {name: statistics.median(values) for name, values in row["figures"].items()}
            other = next((f"{value:,.4g}" for name, value in figures.items() if name not in ("shlogin", "pty")), "")
            ours = f"{figures['shlogin']:,.4g}" if "shlogin" in figures else ""
            ratios, cost = self.ratios(row, "figures"), self.ratios(row, "cost")
            median = f"{statistics.median(ratios):.2f}" if ratios else ""
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
            cost = f"{statistics.median(cost):.2f}" if cost else ""
            if row["client"]:
                servers = " and ".join(f"{statistics.median(values):.2f}" for values in row["cost"].values())
                # As in the first round: sshd, then shlogin.
                clients = " and ".join(f"{statistics.median(values):.2f}" for values in row["client"].values())
                cost += f" ({servers} s, the client {clients} s)"
            if "pty" in figures:
                case += f" (a bare pty: {figures['pty']:,.3g})"
            lines.append(f"| {case}, {row['unit']} | {row['goal']} | {other} | {ours} | {median} | {spread} | {cost} |")
        return "\n".join(lines)


def own_seconds():
    """The processor time of the client's side: this program, and what it started and has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_turn(sides, number):
    return sides if number % 2 == 0 else sides[::-1]


def measure(what, sides, wetty, options, results):
    def one(case, unit, goal, number, action, costs=True):
        for side in in_turn(sides, number):
            before, ours = side.account.seconds(), own_seconds()
            figure = action(side)
            cost, client = (side.account.seconds() - before, own_seconds() - ours) if costs else (None, None)
            results.add(case, unit, goal, side.name, figure, cost, client)
            say(f"round {number + 1}, {case}, {side.name}: {figure:.1f} {unit}, {cost or 0:.2f} s of processor time, "
                f"client {client or 0:.2f} s")

    if what in ("scp", "cat", "forward"):
        action = {"scp": scp, "cat": cat, "forward": bulk}[what]
        name = {"scp": "`scp`", "cat": "`ssh`, a pipe", "forward": "`-L`"}[what]
        for number in range(options.rounds):
            for cipher in CIPHERS if what != "forward" else ["aes128-gcm"]:
                for up in (False, True):
                    case = f"{name} {'up' if up else 'down'}, {cipher}"
                    one(case, "MiB/s", "≥ 1.25", number, lambda side: action(side, cipher, up))
    elif what == "exec":
        for number in range(options.exec_rounds):
            one("`ssh host true`, new connection", "ms", "≤ 0.5", number, exec_new, costs=False)
        with contextlib.ExitStack() as stack:
            paths = {side.name: stack.enter_context(master(side)) for side in sides}
            for number in range(options.exec_rounds):
                one("the same, ControlMaster", "ms", "", number, lambda side: exec_again(side, paths[side.name]), costs=False)
    elif what == "requests":
        for number in range(options.rounds):
            for connections, total in ((1, 8000), (16, 40000)):
                case = f"`-L`, GET of 1 KiB, {connections} at a time"
                one(case, "/s", "≥ 1.0", number, lambda side: requests(side, connections, total))
    elif what == "terminal":
        session = next(side for side in sides if side.name == "shlogin")
        pages = [("wetty", lambda: WettyPage(wetty)), ("shlogin", lambda: ShloginPage(session))]
        for number in range(options.rounds):
            for case, unit, goal, command, action in (
                ("`cat` of 100 MB on a terminal", "MB/s", "≥ 3", b"cat text", shown),
                ("`seq 5000000` on a terminal", "MB/s", "≥ 3", b"seq 5000000", shown),
                ("`yes` until Ctrl-C is shown", "ms", "", None, lambda make, _: interrupt(make)),
            ):
                for name, make in in_turn(pages, number):
                    figure, busy = action(make, command)
                    results.add(case, unit, goal, name, figure)
                    say(f"round {number + 1}, {case}, {name}: {figure:.1f} {unit}, our client {busy:.0%} busy")
                if command:
                    results.add(case, unit, goal, "pty", bare(session.user, command))


def asked(parser, cases, why_root):
    """The options of a benchmark that can run some of its cases only; ends where they make no sense, or are for the list alone."""
    parser.add_argument("--only", type=lambda text: text.split(","), default=cases, metavar="CASE,…")
    parser.add_argument("--list", action="store_true", help="name the cases")
    options = parser.parse_args()
    if options.list:
        print(*cases)
        sys.exit(0)
    if unknown := set(options.only) - set(cases):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        sys.exit(f"run it as root: {why_root}")
    return options


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shlogin", default="shlogin", help="the program to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exec-rounds", type=int, default=30)
    parser.add_argument("--side", choices=["sshd", "shlogin"], help="only this one, to look at it closely")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single figure")
    options = asked(parser, CASES, "it makes a user and starts an sshd")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssh-bench-")))
        folder.chmod(0o755)
        program = folder / "shlogin"
        shutil.copy(shutil.which(options.shlogin) or options.shlogin, program)
        user = User(f"bench{os.getpid()}")
        stack.callback(user.remove)
        user.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", user.write(".ssh/empty", "").parent / "id_ed25519"])
        user.write(".ssh/authorized_keys", (user.home / ".ssh/id_ed25519.pub").read_text())
        if {"scp", "cat"} & set(options.only):
            with open(user.home / "big", "wb") as file:
                noise = os.urandom(MIB)
                for _ in range(1024):
                    file.write(noise)
            os.chown(user.home / "big", user.uid, user.gid)
        line = "the quick brown fox jumps over the lazy dog, and does it again, 0123456\n"
        user.write("text", line * (100_000_000 // len(line)))
        sides = []
        for name, make in (("sshd", lambda: OpenSSH(user, folder)), ("shlogin", lambda: Session(user, program))):
            if options.side in (None, name):
                account = Account(name)
                stack.callback(account.remove)
                with account:
                    sides.append(make())
                sides[-1].account = account
                stack.callback(sides[-1].close)
        wetty = None
        if "terminal" in options.only:
            wetty = Wetty(user, folder)
            stack.callback(wetty.close)
        load, results = os.getloadavg()[0], Results()
        for what in CASES:
            if what in options.only:
                measure(what, sides, wetty, options, results)
        version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()
        machine = f"{os.cpu_count()} cores, Linux {platform.release()}, {version}; load {load:.1f} before"
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "results": results.rows}, indent=1) + "\n")
        print(f"{machine}\n\n{results.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
