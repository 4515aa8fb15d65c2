"""The proxies: how each is set up and started. All of them do the same work: TLS 1.3 with one cipher suite, a check of the
session's cookie, the X-Forwarded fields, an access log, kept connections to the app."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .place import HERE, Certificate, configurable_http_proxy
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

    origin: Server  # the app
    certificate: Certificate
    token: str
    programs: Path
    core: int
    files: int  # descriptors a process may have


class Proxy:
    """One way to the app. `start` makes a fresh one, in a folder of its own, good for so many connections."""

    def __init__(self, name, judges=True, cannot=(), only=None):
        self.name, self.judges = name, judges  # whether it looks at the session's cookie
        self.cannot, self.only = cannot, only

    def can(self, case):
        return case.name not in self.cannot and (self.only is None or case.name in self.only)

    def start(self, site, folder, connections):
        raise NotImplementedError

    def version(self):
        return ""


class Configured(Proxy):
    """A program with a configuration file and a port that has to be told."""

    def __init__(self, name, config, command, version, **more):
        super().__init__(name)
        self.config, self.command, self.ask, self.more = config, command, version, more

    def start(self, site, folder, connections):
        port = free_port()
        config = folder / self.config
        config.write_text(self.fill((HERE / "conf" / self.config).read_text(), {
            "APP": site.origin.port, "PORT": port, "TOKEN": site.token, "FOLDER": folder, "FILES": site.files,
            "CONNECTIONS": connections, "CERTIFICATE": site.certificate.path, "KEY": site.certificate.key,
            "BOTH": site.certificate.both, **self.more,
        }))
        command = [word.format(config=config, folder=folder) for word in self.command]
        child = Child(command, site.core, folder / "errors")
        return ready(child, port)

    @staticmethod
    def fill(text, values):
        return re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text)

    def version(self):
        told = subprocess.run(self.ask, capture_output=True, text=True)
        return re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)[0]


class Ours(Proxy):
    """nginx-free, as the program `front` runs it."""

    def __init__(self, name, program=None):
        super().__init__(name)
        self.program = program

    def start(self, site, folder, connections):
        return Server(
            [self.program or site.programs / "front", "--app", f"127.0.0.1:{site.origin.port}",
             "--cert", site.certificate.path, "--key", site.certificate.key,
             "--token", site.token, "--log", folder / "access.log"],
            site.core, folder / "errors",
        )


class Floor(Proxy):
    """A program that does a part of what a proxy does, and nothing else."""

    def __init__(self, name, program, cannot):
        super().__init__(name, judges=False, cannot=cannot)
        self.program = program

    def start(self, site, folder, connections):
        return Server(
            [site.programs / self.program, "--to", f"127.0.0.1:{site.origin.port}",
             "--cert", site.certificate.path, "--key", site.certificate.key],
            site.core, folder / "errors",
        )


class Straight(Proxy):
    """No proxy: the app itself where the proxy would be. What is left is the client's and the network's."""

    def __init__(self, name, tls, **limits):
        super().__init__(name, judges=False, **limits)
        self.tls = tls

    def start(self, site, folder, connections):
        secured = ["--cert", site.certificate.path, "--key", site.certificate.key] if self.tls else []
        server = Server([site.programs / "origin", *secured], site.core, folder / "errors")
        server.tls = self.tls
        return server


class ConfigurableHttpProxy(Proxy):
    """JupyterHub's proxy. It has no access log, no HTTP/2, and leaves the cookie to the app."""

    def start(self, site, folder, connections):
        port = free_port()
        child = Child(
            ["node", configurable_http_proxy(), "--ip", "127.0.0.1", "--port", port,
             "--api-ip", "127.0.0.1", "--api-port", free_port(), "--keep-alive-timeout", 600_000,
             "--ssl-key", site.certificate.key, "--ssl-cert", site.certificate.path,
             "--default-target", f"http://127.0.0.1:{site.origin.port}", "--log-level", "warn"],
            site.core, folder / "errors", env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": site.token},
        )
        return ready(child, port)

    def version(self):
        told = subprocess.check_output(["node", configurable_http_proxy(), "--version"], text=True)
        return f"{told.strip()}, node {subprocess.check_output(['node', '--version'], text=True).strip()}"


def ready(child, port):
    """Waits for a child's port; ends the child where that is in vain."""
    child.port = port
    try:
        child.wait_for_port(port)
    except BaseException:
        child.end()
        raise
    return child


def nginx(name, tuning):
    return Configured(
        name, "nginx.conf", ["nginx", "-c", "{config}", "-p", "{folder}"], ["nginx", "-v"], TUNING=tuning
    )


def all_proxies():
    return [
        nginx("nginx", ""),
        Ours("nginx-free"),
        nginx("nginx-fair", FAIR),
        Configured("haproxy", "haproxy.cfg", ["haproxy", "-db", "-f", "{config}"], ["haproxy", "-v"]),
        Configured("apache", "apache.conf", ["apache2", "-DFOREGROUND", "-f", "{config}"], ["apache2", "-v"]),
        # node gives no new ticket to who comes with one
        ConfigurableHttpProxy("chp", judges=False, cannot=("h2", "resume")),
        Floor("hyper", "least", cannot=("ws@16", "ws@64", "idle")),
        # the app speaks HTTP/1.1 alone, and gets as many connections as there are of clients
        Floor("relay", "bare", cannot=("h2", "idle")),
        # its buffers are for speed, not for many connections
        Straight("straight", tls=True, cannot=("h2", "idle")),
        Straight("plain", tls=False, only=("latency",)),
    ]
