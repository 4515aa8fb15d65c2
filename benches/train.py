#!/usr/bin/python3
"""Puts sessions of an instrumented shlogin to work, so that it writes down which of its ways are taken how often: what
`scripts/build-profiled` builds the program from. Measures nothing.

    benches/train.py --shlogin PROGRAM --small FOLDER      FOLDER: where `origin`, `bare` and `load` of benches/proxy are
    benches/train.py … --brief      a twentieth of it and nothing large, which shows that it works with any build

As root, on Debian, with what `scripts/setup test` installs. What a profile has not seen is built as if it never ran, so all that a user
waits for is here: a session on the login node and one in a job (a cluster of its own), each asked by HTTP/1.1 and HTTP/2 with a
browser's fields, for small bodies and large ones, by WebSockets, with new connections and strangers among them; and ssh, its
files, forwards and terminals (`benches/ssh.py`). Each process writes its counts when it ends by itself, as all of them do here.
"""

import argparse
import os
import pty
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "benches/proxy"))

from beside.cases import FIELDS  # noqa: E402
from link import NODE, SUITE, Session, bulk, place  # noqa: E402

# How often small bodies are asked for, on how many connections: of HTTP/1.1, and of HTTP/2 with 32 streams each.
SMALL = {1: 4000, 16: 20000, 64: 20000}
STREAMS = (4, 32, 20000)
# How much less of it with --brief.
BRIEF = 20
LOADS = {"ws": 16, "handshake": 16, "resume": 16}


def say(text):
    print(f"train: {text}", file=sys.stderr, flush=True)


def fields(side):
    """A browser's, with the session's cookie among its own."""
    cookie = side.fields[0].removeprefix("Cookie: ")
    said = {name: value.format(token="x") for name, value in FIELDS.items()}
    said["Cookie"] += f"; {cookie}"
    return [f"{name}: {value}" for name, value in said.items()]


def h2load(side, user, number, *words):
    told = [word for field in fields(side) for word in ("-H", field)]
    said = user.run(["h2load", "-t", 1, "--tls13-ciphers", SUITE, "-n", number, *words, *told, "--connect-to",
                     f"127.0.0.1:{side.port}", f"{side.url}/1k"])
    if f" {number} 2xx" not in said:
        raise SystemExit(f"h2load: {said}")


def load(side, user, programs, case, connections):
    certificate = user.write("trusted/one", ssl.get_server_certificate(("127.0.0.1", side.port)))
    words = [programs / "load", case, "--address", f"127.0.0.1:{side.port}", "--cert", certificate, "--source", "127.0.0.1",
             "--seconds", 1, "--connections", connections, "--header", f"Host: localhost:{side.port}"]
    for field in fields(side):
        words += ["--header", field]
    process = user.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, errors = process.communicate("go\nend\n")
    if process.returncode or '"count"' not in said:
        raise SystemExit(f"load {case}: {said}{errors}")


def strangers(side, user):
    """Who has no cookie, and who guesses one."""
    for guess in ("", "__Host-shlogin-0=guessed"):
        said = user.run(["curl", "-sS", "-4", "--insecure", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Cookie: {guess}",
                         f"{side.url}/1k"])
        if said not in ("401", "403"):
            raise SystemExit(f"a stranger was told {said}")


def terminal(side, user):
    """A shell's output on a terminal, through a terminal of ours."""
    ours, theirs = pty.openpty()
    process = user.popen([side.shlogin, "ssh", side.session, "--", "seq", 200000], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how a terminal ends
            break
        if not piece:
            break
        seen = seen[-64:] + piece
    os.close(ours)
    if process.wait(60) or b"200000" not in seen:
        raise SystemExit(f"the terminal ended with {process.returncode}: {seen[-200:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shlogin", type=Path, required=True, help="the instrumented program")
    parser.add_argument("--small", type=Path, required=True, metavar="FOLDER", help="where `origin`, `bare` and `load` are")
    parser.add_argument("--brief", action="store_true", help="only to see that it works")
    options = parser.parse_args()
    part, large = (BRIEF, ["10 MiB"]) if options.brief else (1, ["10 MiB", "1 GiB"])
    if os.geteuid() != 0:
        sys.exit("run it as root: it makes a user, a network and a Slurm cluster")
    with place(options.shlogin, options.small) as (user, _, programs, kept):
        shutil.copy(options.small / "load", programs / "load")
        (programs / "load").chmod(0o755)
        for name, where in (("link", ("--slurm", "-w", NODE, "--time", "30")), ("local", ())):
            side = kept(Session(user, programs, name, *where))
            say(f"a session {'in a job' if where else 'here'}")
            for connections, number in SMALL.items():
                h2load(side, user, number // part, "--h1", "-c", connections)
            connections, streams, number = STREAMS
            h2load(side, user, number // part, "-c", connections, "-m", streams)
            for what in large:
                for up in (False, True):
                    bulk(side, user, what, up)
            for case, connections in LOADS.items():
                load(side, user, programs, case, connections)
            strangers(side, user)
            terminal(side, user)
    say("ssh")
    cases = "exec" if options.brief else "scp,cat,exec,forward,requests"
    subprocess.run([TOP / "benches/ssh.py", "--shlogin", options.shlogin, "--side", "shlogin", "--rounds", "1", "--exec-rounds", "10",
                    "--only", cases], check=True, stdout=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
