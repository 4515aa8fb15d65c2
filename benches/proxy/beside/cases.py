"""What is measured, and how one measurement goes: a fresh proxy, a warm-up, the measurement between two readings of the
proxy's processor time with the proxy at rest."""

import json
import re
import subprocess
import time
from dataclasses import dataclass

from .processes import Child, Failed

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

SMALL, LARGE = 1024, 10 * 1024 * 1024


@dataclass
class Case:
    """One thing to measure."""

    name: str
    tool: str  # a case of `load`, or another program
    connections: int
    unit: str = "request"  # what is counted
    timed: bool = True  # whether its latencies say something
    once: bool = False


CASES = [
    Case("1k@16", "get", 16),
    Case("1k@64", "get", 64),
    Case("1k@256", "get", 256),
]


def fields(token):
    return [f"{name}: {value.format(token=token)}" for name, value in FIELDS.items()]


def measure(case, proxy, site, folder, options):
    """One measurement, of a proxy started for it. Fails where a single answer was not what it should be."""
    with proxy.start(site, folder, 1024) as server:
        figures = with_load(case, server, site, folder, options)
        server.must_live()
    units = figures["bytes"] / 1e6 if case.unit == "MB" else figures["count"]
    derived = {"rate": units / figures["seconds"], "cpu_us": figures["cpu"] / units * 1e6,
               "busy": figures["cpu"] / figures["seconds"]}
    return {**figures, **derived}


def with_load(case, server, site, folder, options):
    command = [site.programs / "load", case.tool, "--address", f"127.0.0.1:{server.port}",
               "--cert", site.certificate.path, "--connections", case.connections,
               "--seconds", options.seconds, "--warm-up", options.warm_up]
    for field in [f"Host: localhost:{server.port}", *fields(site.token)]:
        command += ["--header", field]
    memory = {"rss_start": server.memory()}
    with Child(command, options.load_core, folder / "load-errors",
               stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        say(load, "ready")
        before = server.cpu()
        go_on(load)
        figures = json.loads(line(load))
        at_rest(server)
        figures["cpu"] = server.cpu() - before
        memory["rss_end"] = server.memory()
        go_on(load)
        end(load)
    return {**figures, **memory}


def line(load):
    text = load.process.stdout.readline().decode().strip()
    if not text:
        load.process.wait()
        raise Failed(f"load: {load.last_words()}")
    return text


def say(load, expected):
    text = line(load)
    if text != expected:
        raise Failed(f"load said {text}")


def go_on(load):
    load.process.stdin.write(b"\n")
    load.process.stdin.flush()


def end(load):
    if load.process.wait(60) != 0:
        raise Failed(f"load: {load.last_words()}")


def at_rest(server):
    """Waits until the proxy has done what was left to do, such as closing connections: at most 50 ms."""
    seen = server.cpu()
    for _ in range(5):
        time.sleep(0.01)
        now = server.cpu()
        if now == seen:
            return
        seen = now
