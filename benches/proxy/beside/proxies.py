"""The proxies: how each is set up and started. All of them do the same work: TLS 1.3 with one cipher suite, a check of the
session's cookie, the X-Forwarded fields, an access log, kept connections to the app."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .place import HERE, Certificate
from .processes import Child, Server, free_port

FAIR = """
            proxy_buffer_size 128k;
            proxy_buffers 8 128k;
            proxy_busy_buffers_size 256k;
            proxy_max_temp_file_size 0;
            proxy_request_buffering off;
"""


@dataclass
class Site:
    """What all proxies have in common in one run."""

    app: int  # the port of the app
    certificate: Certificate
    token: str
    programs: Path
    core: int
    files: int  # descriptors a process may have


class Proxy:
    """One way to the app. `start` makes a fresh one, in a folder of its own, good for so many connections."""

    def __init__(self, name, cannot=()):
        self.name, self.cannot = name, cannot

    def start(self, site, folder, connections):
        raise NotImplementedError

    def version(self):
        return ""


class Configured(Proxy):
    """A program with a configuration file and a port that has to be told."""

    def __init__(self, name, config, command, version, **more):
        super().__init__(name, more.pop("cannot", ()))
        self.config, self.command, self.ask, self.more = config, command, version, more

    def start(self, site, folder, connections):
        port = free_port()
        config = folder / self.config
        config.write_text(self.fill((HERE / "conf" / self.config).read_text(), {
            "APP": site.app, "PORT": port, "TOKEN": site.token, "FOLDER": folder, "FILES": site.files,
            "CONNECTIONS": connections, "CERTIFICATE": site.certificate.path, "KEY": site.certificate.key,
            "BOTH": site.certificate.both, **self.more,
        }))
        command = [word.format(config=config, folder=folder) for word in self.command]
        child = Child(command, site.core, folder / "errors")
        child.port = port
        try:
            child.wait_for_port(port)
        except BaseException:
            child.end()
            raise
        return child

    @staticmethod
    def fill(text, values):
        return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)

    def version(self):
        told = subprocess.run(self.ask, capture_output=True, text=True)
        return re.search(r"\d+\.\d+\.\d+\S*", told.stdout + told.stderr)[0]


class Ours(Proxy):
    """nginx-free, as the program `front` runs it."""

    def __init__(self, name, program=None):
        super().__init__(name)
        self.program = program

    def start(self, site, folder, connections):
        return Server(
            [self.program or site.programs / "front", "--app", f"127.0.0.1:{site.app}",
             "--cert", site.certificate.path, "--key", site.certificate.key,
             "--token", site.token, "--log", folder / "access.log"],
            site.core, folder / "errors",
        )


class Straight(Proxy):
    """No proxy: the app itself, with TLS, where the proxy would be. What is left is the client's and the network's."""

    def start(self, site, folder, connections):
        return Server(
            [site.programs / "origin", "--cert", site.certificate.path, "--key", site.certificate.key],
            site.core, folder / "errors",
        )


def nginx(name, tuning):
    return Configured(name, "nginx.conf", ["nginx", "-c", "{config}", "-p", "{folder}"], ["nginx", "-v"], TUNING=tuning)


def all_proxies():
    return [
        nginx("nginx", ""),
        Ours("nginx-free"),
        nginx("nginx-fair", FAIR),
        Straight("straight", cannot=("h2",)),
    ]
