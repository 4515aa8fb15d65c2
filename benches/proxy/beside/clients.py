"""The clients. Each gives the figures of one slice of time, or fails where a single answer was not what it should be."""

import json
import re
import subprocess

from .cases import SMALL, STREAMS, fields
from .processes import Child, Failed


class Load:
    """Our own client; see its `main.rs` for the steps it goes in. It stays, with its connections, from slice to slice."""

    def __init__(self, case, server, site, folder, options):
        self.case = case
        command = [site.programs / "load", case.tool, "--address", f"127.0.0.1:{server.port}", "--connections",
                   case.connections, "--seconds", options.seconds / case.slices, "--warm-up", options.warm_up]
        if server.tls:
            command += ["--cert", site.certificate.path]
        for field in fields(case, site, server.port):
            command += ["--header", field]
        self.child = Child(command, options.load_core, folder / "load-errors",
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            if (said := self.line()) != "ready":
                raise Failed(f"load said {said}")
        except BaseException:
            self.child.end()
            raise

    def slice(self):
        return json.loads(self.ask("go"))

    def finish(self):
        if self.case.tool == "idle":
            alive = json.loads(self.ask("go"))["alive"]
            if alive != self.case.connections:
                raise Failed(f"{alive} connections were alive at the end")
        self.tell("end")
        if self.child.process.wait(60) != 0:
            raise Failed(f"load: {self.child.last_words()}")

    def processes(self):
        return [self.child]

    def end(self):
        self.child.end()

    def ask(self, word):
        self.tell(word)
        return self.line()

    def tell(self, word):
        try:
            self.child.process.stdin.write(f"{word}\n".encode())
            self.child.process.stdin.flush()
        except BrokenPipeError as why:
            raise Failed(f"load: {self.child.last_words()}") from why

    def line(self):
        text = self.child.process.stdout.readline().decode().strip()
        if not text:
            self.child.process.wait()
            raise Failed(f"load: {self.child.last_words()}")
        return text


class OneShot:
    """A client that makes its connections anew in each slice, which is in the figures."""

    def __init__(self, case, server, site, folder, options):
        self.server, self.site, self.folder, self.options = server, site, folder, options
        self.command = self.command_for(case)
        self.seconds = options.seconds / case.slices
        self.slice()  # to warm up

    def run(self, *more):
        with open(self.folder / "client", "w+b") as sink:
            command = [*self.command, *more]
            with Child(command, self.options.load_core, self.folder / "client-errors", stdout=sink) as child:
                status = child.process.wait(self.seconds + 30)
            sink.seek(0)
            said = sink.read().decode(errors="replace")
        if status != 0:
            raise Failed(f"{command[0]}: {said}{child.last_words()}")
        return said

    def finish(self):
        pass

    def processes(self):
        return []

    def end(self):
        pass


class H2load(OneShot):
    """HTTP/2."""

    def command_for(self, case):
        command = ["h2load", "-t", "1", "-c", case.connections, "-m", STREAMS]
        for field in fields(case, self.site, self.server.port)[1:]:
            command += ["-H", field]
        return command

    def slice(self):
        said = self.run("-D", f"{self.seconds * 1000:.0f}ms", f"https://localhost:{self.server.port}/1k")
        counts = r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored"
        done, succeeded, failed, errored = map(int, found(counts, said))
        good, *bad = map(int, found(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said))
        if failed or errored or any(bad) or not 0 < done == succeeded <= good or "protocol: h2\n" not in said:
            raise Failed(f"h2load: {said}")
        data = int(found(r"\((\d+)\) data", said)[0])
        if data < done * SMALL:
            raise Failed(f"h2load: {done} answers with {data} bytes")
        return {"count": done, "seconds": duration(r"finished in ([\d.]+)(\w+),", said), "bytes": data}


class Wrk(OneShot):
    """HTTP/1.1, as a client by others sees it. It measures for whole seconds only."""

    def command_for(self, case):
        command = ["wrk", "-t", "1", "-c", case.connections]
        for field in fields(case, self.site, self.server.port):
            command += ["-H", field]
        return command

    def slice(self):
        said = self.run("-d", max(1, round(self.seconds)), f"https://127.0.0.1:{self.server.port}/1k")
        count = int(found(r"(\d+) requests in", said)[0])
        if "Non-2xx" in said or "Socket errors" in said or not count:
            raise Failed(f"wrk: {said}")
        return {"count": count, "seconds": duration(r"requests in ([\d.]+)(\w+),", said), "bytes": count * SMALL}


def client(case):
    return {"h2load": H2load, "wrk": Wrk}.get(case.tool, Load)


def duration(pattern, text):
    number, unit = found(pattern, text)
    return float(number) * {"s": 1, "ms": 1e-3, "us": 1e-6, "m": 60}[unit]


def found(pattern, text):
    match = re.search(pattern, text)
    if not match:
        raise Failed(f"{pattern} is not in: {text}")
    return match.groups()
