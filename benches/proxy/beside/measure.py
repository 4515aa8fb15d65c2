"""How one round goes. All proxies of a case are started afresh and warmed up, each with a client of its own. Then they
take turns: each is loaded for a slice of time while the others have nothing to do. A machine's speed drifts, most of all
a virtual one's; what is compared was measured within a second or two."""

import http.client
import ssl
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from .cases import SMALL
from .clients import client
from .processes import Failed, Machine


class Run:
    """One proxy in one round of one case."""

    def __init__(self, case, proxy, site, options):
        self.case, self.proxy, self.site, self.options = case, proxy, site, options
        self.slices, self.memory, self.failed = [], {}, None
        self.held = ExitStack()

    def start(self, folder):
        folder = Path(self.held.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        connections = self.case.connections if self.case.tool == "idle" else 0
        self.server = self.held.enter_context(self.proxy.start(self.site, folder, connections + 1024))
        probe(self.proxy, self.server, self.site)
        self.memory["rss_start"] = self.server.memory()
        self.client = client(self.case)(self.case, self.server, self.site, folder, self.options)
        self.held.callback(self.client.end)
        self.memory["rss_before"] = self.server.memory()

    def slice(self):
        ours = [self.server, self.site.origin, *self.client.processes()]
        begun, machine, before = time.monotonic(), Machine(ours), self.server.cpu()
        figures = self.client.slice()
        others = machine.others() / (time.monotonic() - begun)
        cpu = at_rest(self.server) - before
        self.server.must_live()
        units = figures["bytes"] / 1e6 if self.case.unit == "MB" else figures["count"]
        self.slices.append({
            **figures, "cpu": cpu, "others": others, "rate": units / figures["seconds"],
            "cpu_us": cpu / units * 1e6, "busy": cpu / figures["seconds"],
        })

    def finish(self):
        self.memory["rss_end"] = self.server.memory()
        self.memory["rss_peak"] = self.server.memory("VmHWM")
        self.client.finish()

    def attempt(self, step, *more):
        """Takes one step, unless an earlier one failed."""
        if self.failed is None:
            try:
                step(*more)
            except Failed as why:
                self.failed = str(why)
                self.held.close()

    def result(self):
        about = {"case": self.case.name, "proxy": self.proxy.name}
        if self.failed is not None:
            return {**about, "failed": self.failed}
        return {**about, **self.memory, "slices": self.slices}


def round_of(case, proxies, site, folder, options):
    """One round of a case; returns a result for each proxy."""
    if case.alone:
        return [result for proxy in proxies for result in take_turns(case, [proxy], site, folder, options)]
    return take_turns(case, proxies, site, folder, options)


def take_turns(case, proxies, site, folder, options):
    with ExitStack() as held:
        runs = [Run(case, proxy, site, options) for proxy in proxies]
        for run in runs:
            held.callback(run.held.close)
            run.attempt(run.start, folder)
        for turn in range(case.slices):
            # There and back, so that what drifts in one direction favours nobody.
            for run in runs if turn % 2 == 0 else reversed(runs):
                run.attempt(run.slice)
        for run in runs:
            run.attempt(run.finish)
        return [run.result() for run in runs]


def at_rest(server):
    """Waits until the proxy has done what was left to do, such as closing connections, at most 50 ms; returns the
    processor time it has taken."""
    now = server.cpu()
    for _ in range(5):
        seen = now
        time.sleep(0.01)
        now = server.cpu()
        if now - seen < 0.0005:
            break
    return now


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
