"""What is measured, and how one measurement goes: a fresh proxy, a warm-up, and the measurement between two readings of
the proxy's processor time, with the proxy at rest at both."""

import http.client
import json
import re
import ssl
import subprocess
import time
from dataclasses import dataclass

from .processes import Child, Failed, Machine

# What a browser sends along, with the cookies of an app and of its neighbours on the same host.
FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Referer": "https://localhost/lab/tree/notebooks/analysis.ipynb",
    "Sec-CH-UA": '"Chromium";v="142", "Not_A Brand";v="99"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "Cookie": "_xsrf=2|1f0c4a3b|6d0f2c9be4d1a7c35f8e02b64a1d9c70|1767225600; theme=dark; bench_session={token}; "
    'username-localhost-8888="2|1:0|10:1767225600|23:username-localhost-8888|44:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAx|c2lnbmF0dXJl"',
}

SMALL = 1024
STREAMS = 32


@dataclass
class Case:
    """One thing to measure."""

    name: str
    what: str
    tool: str  # a case of `load`, or another program
    connections: int
    unit: str = "request"  # what is counted
    timed: bool = True  # whether its latencies say something
    bound: bool = True  # whether it is meant to keep the proxy busy
    once: bool = False  # whether one round is enough


CASES = [
    Case("1k@16", "GET /1k on 16 connections, HTTP/1.1", "get", 16),
    Case("1k@64", "the same on 64", "get", 64),
    Case("1k@256", "the same on 256", "get", 256),
    Case("wrk@64", "the same on 64 as wrk sees it, to check our own client", "wrk", 64, timed=False),
    Case("h2", f"GET /1k on 4 connections with {STREAMS} streams each, HTTP/2", "h2load", 4, timed=False),
    Case("ws@16", "64 bytes there and back on 16 WebSockets", "ws", 16, "message"),
    Case("ws@64", "the same on 64", "ws", 64, "message"),
    Case("down", "GET /10m on 4 connections", "down", 4, "MB", timed=False),
    Case("up", "POST of 10 MiB on 4 connections", "up", 4, "MB", timed=False),
    Case("handshake", "a new connection with a full handshake for each GET /1k, 16 at a time", "handshake", 16),
    Case("resume", "the same with a ticket", "resume", 16),
    Case("latency", "GET /1k on one connection", "get", 1, bound=False),
    Case("idle", "connections that are held open after one GET /1k", "idle", 10_000, "connection", timed=False,
         bound=False, once=True),
]


def fields(site, port):
    mine = [f"{name}: {value.format(token=site.token)}" for name, value in FIELDS.items()]
    return [f"Host: localhost:{port}", *mine]


def measure(case, proxy, site, folder, options):
    """One measurement, of a proxy started for it. Fails where a single answer was not what it should be."""
    tool = {"h2load": with_h2load, "wrk": with_wrk}.get(case.tool, with_load)
    connections = case.connections if case.tool == "idle" else 0
    with proxy.start(site, folder, connections + 1024) as server:
        probe(proxy, server, site)
        memory = server.memory()
        figures = tool(case, server, site, folder, options)
        server.must_live()
    units = figures["bytes"] / 1e6 if case.unit == "MB" else figures["count"]
    return {**figures, "rss_start": memory, "rate": units / figures["seconds"], "cpu_us": figures["cpu"] / units * 1e6,
            "busy": figures["cpu"] / figures["seconds"]}


def probe(proxy, server, site):
    """Asks once with the session's cookie and once without it."""
    for cookie, expected in ((site.token, 200), ("wrong", 403 if proxy.judges else 200)):
        try:
            status, length = ask(server, site, cookie)
        except (OSError, http.client.HTTPException) as why:
            raise Failed(f"{server.name} does not answer: {why}\n{server.last_words()}") from why
        if status != expected or (status == 200 and length != SMALL):
            raise Failed(f"{server.name} answers {status} with {length} bytes, not {expected}\n{server.last_words()}")


def ask(server, site, cookie):
    context = ssl.create_default_context(cafile=site.certificate.path)
    secure = http.client.HTTPSConnection("localhost", server.port, timeout=10, context=context)
    connection = secure if server.tls else http.client.HTTPConnection("localhost", server.port, timeout=10)
    connection.request("GET", "/1k", headers={"Cookie": f"bench_session={cookie}"})
    answer = connection.getresponse()
    status, length = answer.status, len(answer.read())
    connection.close()
    return status, length


class Meter:
    """What the proxy takes between two moments, at both of which it is at rest, and what others take."""

    def __init__(self, server, *ours):
        self.server, self.ours = server, [server, *ours]
        self.begun = time.monotonic()
        self.cpu = server.cpu()
        self.machine = Machine(self.ours)

    def read(self):
        """Waits until the proxy has done what was left to do, such as closing connections: at most 50 ms."""
        seconds, others = time.monotonic() - self.begun, self.machine.others()
        now = self.server.cpu()
        for _ in range(5):
            seen = now
            time.sleep(0.01)
            now = self.server.cpu()
            if now == seen:
                break
        return {"cpu": now - self.cpu, "rss_end": self.server.memory(), "rss_peak": self.server.memory("VmHWM"),
                "others": others / seconds}


def with_load(case, server, site, folder, options):
    """Our own client; see its `main.rs` for the steps it goes in."""
    command = [site.programs / "load", case.tool, "--address", f"127.0.0.1:{server.port}",
               "--connections", case.connections, "--seconds", options.seconds, "--warm-up", options.warm_up]
    if server.tls:
        command += ["--cert", site.certificate.path]
    for field in fields(site, server.port):
        command += ["--header", field]
    errors = folder / "load-errors"
    with Child(command, options.load_core, errors, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        if (said := line(load)) != "ready":
            raise Failed(f"load said {said}")
        before = server.memory()
        meter = Meter(server, load, site.origin)
        go_on(load)
        figures = json.loads(line(load))
        figures.update(meter.read(), rss_before=before)
        go_on(load)
        if case.tool == "idle":
            alive = json.loads(line(load))["alive"]
            go_on(load)
            if alive != case.connections:
                raise Failed(f"{alive} connections were alive at the end")
        if load.process.wait(60) != 0:
            raise Failed(f"load: {load.last_words()}")
    return figures


def line(load):
    text = load.process.stdout.readline().decode().strip()
    if not text:
        load.process.wait()
        raise Failed(f"load: {load.last_words()}")
    return text


def go_on(load):
    load.process.stdin.write(b"\n")
    load.process.stdin.flush()


def with_h2load(case, server, site, folder, options):
    command = ["h2load", "-t", "1", "-c", case.connections, "-m", STREAMS]
    for field in fields(site, server.port)[1:]:
        command += ["-H", field]
    url = f"https://localhost:{server.port}/1k"
    said, more = timed(lambda seconds: [*command, "-D", seconds, url], server, site, folder, options)
    counts = r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored"
    done, succeeded, failed, errored = map(int, found(counts, said))
    good, *bad = map(int, found(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said))
    if failed or errored or any(bad) or not 0 < done == succeeded <= good or "protocol: h2\n" not in said:
        raise Failed(f"h2load: {said}")
    data = int(found(r"\((\d+)\) data", said)[0])
    if data < done * SMALL:
        raise Failed(f"h2load: {done} answers with {data} bytes")
    return {"count": done, "seconds": duration(r"finished in ([\d.]+)(\w+),", said), "bytes": data, **more}


def with_wrk(case, server, site, folder, options):
    command = ["wrk", "-t", "1", "-c", case.connections]
    for field in fields(site, server.port):
        command += ["-H", field]
    url = f"https://127.0.0.1:{server.port}/1k"
    said, more = timed(lambda seconds: [*command, "-d", seconds, url], server, site, folder, options)
    count = int(found(r"(\d+) requests in", said)[0])
    if "Non-2xx" in said or "Socket errors" in said or not count:
        raise Failed(f"wrk: {said}")
    return {"count": count, "seconds": duration(r"requests in ([\d.]+)(\w+),", said), "bytes": count * SMALL, **more}


def timed(command, server, site, folder, options):
    """Runs a client for a second to warm up, then for the time of a measurement: these two take whole seconds only."""
    for seconds in (1, max(1, round(options.seconds))):
        before = server.memory()
        meter = Meter(server, site.origin)
        with open(folder / "client", "w+b") as sink:
            with Child(command(seconds), options.load_core, folder / "client-errors", stdout=sink) as client:
                status = client.process.wait(seconds + 30)
            more = {**meter.read(), "rss_before": before}
            sink.seek(0)
            said = sink.read().decode(errors="replace")
        if status != 0:
            raise Failed(f"{client.name}: {said}{client.last_words()}")
    return said, more


def duration(pattern, text):
    number, unit = found(pattern, text)
    return float(number) * {"s": 1, "ms": 1e-3, "m": 60}[unit]


def found(pattern, text):
    match = re.search(pattern, text)
    if not match:
        raise Failed(f"{pattern} is not in: {text}")
    return match.groups()
