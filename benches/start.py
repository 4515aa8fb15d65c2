#!/usr/bin/python3
"""How long a start takes beside what it cannot do without, and what an idle session weighs.

Run as an ordinary user, with the program to measure and an image whose start script serves HTTP on $SHLOGIN_PORT:

    benches/start.py image  --shlogin target/release/shlogin --image tiny.sif
        `shlogin start` until the app answers ÷ `apptainer instance start` + `apptainer exec instance://…` until it answers
    benches/start.py bare   --shlogin target/release/shlogin
        `shlogin start -- app` until it answers - the app alone until it answers, in milliseconds
    benches/start.py memory --shlogin target/release/shlogin
        proportional set size of all our processes of an idle session, in MiB (run as root with --user: they are not
        to be looked into by their own user)
    benches/start.py many   --shlogin target/release/shlogin --sessions 100
        wall time until that many sessions, started at once, all answer, and until all are stopped

Each prints one JSON value. Figures are medians over interleaved rounds: the two sides of a ratio are measured in turn.
"""

import argparse
import json
import os
import pwd
import socket
import statistics
import subprocess
import sys
import tempfile
import time

APP = [
    "/usr/bin/python3", "-S", "-c",
    "import socket,sys\n"
    "s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(64)\n"
    "while True:\n"
    "    c, _ = s.accept(); c.recv(4096)\n"
    "    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n'); c.close()\n",
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until_answers(port, limit=60.0):
    """Connects and asks until something speaks HTTP on the port; looks every 2 ms, more often than shlogin does."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as s:
                s.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if s.recv(5).startswith(b"HTTP"):
                    return
        except OSError:
            pass
        time.sleep(0.002)
    raise SystemExit("the app did not answer")


def run(*command, **kwargs):
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, **kwargs)


def timed(action):
    begin = time.perf_counter()
    result = action()
    return time.perf_counter() - begin, result


def spread(values):
    return {"min": round(min(values), 4), "median": round(statistics.median(values), 4), "max": round(max(values), 4)}


def image(args):
    """The same runtime, image and script on both sides; the port differs, for plain Apptainer shares the host's."""
    ours, plain = [], []
    script = json.loads(run("apptainer", "inspect", "--json", "--startscript", args.image).stdout)
    script = script["data"]["attributes"]["startscript"]
    with tempfile.TemporaryDirectory() as folder:
        off, on = os.path.join(folder, "off"), os.path.join(folder, "on")
        open(off, "w").close()
        with open(on, "w") as file:
            file.write(script)
        os.chmod(on, 0o755)
        for _ in range(args.rounds):
            seconds, _ = timed(lambda: run(args.shlogin, "start", "--network", "isolated", "--name", "bench", args.image))
            ours.append(seconds)
            run(args.shlogin, "stop", "bench")

            port = str(free_port())
            env = dict(os.environ, SHLOGIN_PORT=port, APPTAINERENV_SHLOGIN_PORT=port)

            def start():
                run("apptainer", "-s", "instance", "start", "--userns", "--bind", off + ":/.singularity.d/startscript",
                    args.image, "bench", env=env)
                app = subprocess.Popen(["apptainer", "-s", "exec", "--userns", "instance://bench", "/bin/sh", on],
                                       env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                until_answers(int(port))
                return app

            seconds, app = timed(start)
            plain.append(seconds)
            run("apptainer", "-s", "instance", "stop", "bench")
            app.wait()
    pairs = [a / b for a, b in zip(ours, plain)]
    return {"shlogin_s": spread(ours), "apptainer_s": spread(plain), "ratio": spread(pairs), "goal": "<= 1.10"}


def bare(args):
    ours, plain = [], []
    for _ in range(args.rounds):
        command = [args.shlogin, "start", "--network", args.network, "--name", "bench", "--", *APP, "8000"]
        seconds, _ = timed(lambda: run(*command))
        ours.append(seconds)
        run(args.shlogin, "stop", "bench")

        port = free_port()

        def start():
            app = subprocess.Popen([*APP, str(port)], stdin=subprocess.DEVNULL)
            until_answers(port)
            return app

        seconds, app = timed(start)
        plain.append(seconds)
        app.kill()
        app.wait()
    more = [(a - b) * 1000 for a, b in zip(ours, plain)]
    return {"shlogin_s": spread(ours), "app_s": spread(plain), "more_ms": spread(more), "goal": "<= 30 ms"}


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def memory(args):
    prefix = as_user(args.user)
    run(*prefix, args.shlogin, "start", "--network", "isolated", "--name", "bench", "--", *APP, "8000")
    try:
        record = json.loads(run(*prefix, args.shlogin, "show", "bench", "--json").stdout)
        processes = {}
        pids = [record["pid"]]
        while pids:
            pid = pids.pop()
            words = open(f"/proc/{pid}/cmdline").read().split("\0")
            if len(words) > 1 and words[1].startswith("@"):
                processes[words[1]] = pss_kib(pid)
                pids += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
        total = sum(processes.values()) / 1024
        return {"pss_kib": processes, "total_mib": round(total, 2), "goal": "<= 10 MiB"}
    finally:
        run(*prefix, args.shlogin, "stop", "bench")


def many(args):
    def start(n):
        command = [args.shlogin, "start", "--network", "isolated", "--name", f"bench-{n}", "--", *APP, "8000"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def all_started():
        failed = []
        for starting in [start(n) for n in range(args.sessions)]:
            _, said = starting.communicate()
            if starting.returncode:
                failed.append(said.strip())
        return failed

    took, failed = timed(all_started)
    live = json.loads(run(args.shlogin, "list", "--json").stdout)
    ports = {record["gateway"]["port"] for record in live}
    stopping, _ = timed(lambda: run(args.shlogin, "stop", "--all"))
    return {
        "sessions": args.sessions, "up": len(live), "ports": len(ports), "failed": failed[:3],
        "all_up_s": round(took, 2), "all_stopped_s": round(stopping, 2),
    }


def as_user(name):
    """The words that run a command as somebody else, with the environment of a login."""
    if not name:
        return []
    user = pwd.getpwnam(name)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", "env", "-i",
            f"HOME={user.pw_dir}", f"USER={name}", "PATH=/usr/local/bin:/usr/bin:/bin"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["image", "bare", "memory", "many"])
    parser.add_argument("--shlogin", default="shlogin")
    parser.add_argument("--image")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--network", default="isolated")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--user")
    args = parser.parse_args()
    if args.what == "image" and not args.image:
        parser.error("image needs --image")
    measured = {"image": image, "bare": bare, "memory": memory, "many": many}[args.what](args)
    print(json.dumps({"benchmark": args.what, "rounds": args.rounds, **measured}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
