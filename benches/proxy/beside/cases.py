"""What is measured."""

from dataclasses import dataclass

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
    slices: int = 10  # the proxies take turns that often in one round
    timed: bool = True  # whether its latencies say something
    bound: bool = True  # whether it is meant to keep the proxy busy
    alone: bool = False  # whether the proxies are started one after the other, and in the first round only
    bare: bool = False  # whether requests have no fields but Host and the session's cookie


CASES = [
    Case("1k@16", "GET /1k on 16 connections, HTTP/1.1", "get", 16),
    Case("1k@64", "the same on 64", "get", 64),
    Case("1k@256", "the same on 256", "get", 256),
    Case("bare@64", "the same with no fields but Host and the session's cookie", "get", 64, bare=True),
    Case("wrk@64", "the same on 64 as wrk sees it, to check our own client", "wrk", 64, slices=3, timed=False),
    Case("h2", f"GET /1k on 4 connections with {STREAMS} streams each, HTTP/2", "h2load", 4, slices=5, timed=False),
    Case("ws@16", "64 bytes there and back on 16 WebSockets", "ws", 16, "message"),
    Case("ws@64", "the same on 64", "ws", 64, "message"),
    Case("down", "GET /10m on 4 connections", "down", 4, "MB", slices=3, timed=False),
    Case("up", "POST of 10 MiB on 4 connections", "up", 4, "MB", slices=3, timed=False),
    Case("handshake", "a new connection with a full handshake for each GET /1k, 16 at a time", "handshake", 16),
    Case("resume", "the same with a ticket", "resume", 16),
    Case("latency", "GET /1k on one connection", "get", 1, bound=False),
    Case("idle", "10,000 connections that are held open after one GET /1k", "idle", 10_000, "connection", slices=1,
         timed=False, bound=False, alone=True),
]


def fields(case, site, port):
    """The fields of each request."""
    sent = {"Cookie": "bench_session={token}"} if case.bare else FIELDS
    mine = [f"{name}: {value.format(token=site.token)}" for name, value in sent.items()]
    return [f"Host: localhost:{port}", *mine]
