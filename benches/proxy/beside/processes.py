"""Processes of the benchmark: started on one core, looked into, and ended by their process IDs."""

import os
import resource
import socket
import subprocess
import time
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
READY = 20.0


class Failed(Exception):
    """A measurement that did not work out: there is no figure for it."""


def free_port():
    """A port below those that the kernel gives to outgoing connections, so that none of the load takes it."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = 10000 + int.from_bytes(os.urandom(4), "big") % max(low - 10000, 1000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("there is no free port")


class Child:
    """A program on one core. It ends with this process, whatever ends this process."""

    tls = True

    def __init__(self, command, core, errors, **streams):
        self.name = Path(command[0]).name
        self.errors = Path(errors)
        with open(errors, "wb") as sink:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *map(str, command)],
                **{"stdin": subprocess.DEVNULL, "stdout": sink, "stderr": sink, **streams},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def tree(self):
        """The process IDs of it and of all its descendants."""
        found, left = [], [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    left += map(int, task.read_text().split())
                except OSError:
                    pass  # it has ended
        return found

    def cpu(self):
        """Seconds of processor time of all of them that live."""
        return sum(map(cpu_of, self.tree()))

    def workers(self):
        """The processes that do the work: the children where there are any, else the one process."""
        tree = self.tree()
        return tree[1:] or tree

    def memory(self, which="VmRSS"):
        """Resident memory of the workers in KiB, or its peak (VmHWM)."""
        return sum(resident(pid, which) for pid in self.workers())

    def wait_for_port(self, port):
        end = time.monotonic() + READY
        while time.monotonic() < end:
            self.must_live()
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    return
            except OSError:
                time.sleep(0.005)  # between two looks
        raise Failed(f"{self.name} does not listen\n{self.last_words()}")

    def must_live(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}\n{self.last_words()}")

    def last_words(self):
        return "\n".join(self.errors.read_text(errors="replace").splitlines()[-5:])

    def end(self):
        tree = self.tree() if self.process.poll() is None else []
        if tree:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
        # Workers go with their master; one that does not is not left behind.
        started = [pid for pid in tree[1:] if Path(f"/proc/{pid}").exists()]
        end = time.monotonic() + 5
        while started and time.monotonic() < end:
            started = [pid for pid in started if Path(f"/proc/{pid}").exists()]
            time.sleep(0.005)
        for pid in started:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass


class Server(Child):
    """A program of ours, which prints its port."""

    def __init__(self, command, core, errors):
        super().__init__(command, core, errors, stdout=subprocess.PIPE)
        word, _, port = self.process.stdout.readline().decode().partition(" ")
        if word != "port":
            self.end()
            raise Failed(f"{self.name} did not start\n{self.last_words()}")
        self.port = int(port)


class Machine:
    """How busy others keep the machine beside us."""

    def __init__(self, ours):
        self.ours = ours
        self.begun = self.taken()

    def taken(self):
        with open("/proc/stat") as told:
            user, nice, system, _, _, irq, softirq, steal = map(int, told.readline().split()[1:9])
        everybody = (user + nice + system + irq + softirq + steal) * TICK
        # our own, of children that have ended, and of those that live
        ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return everybody - sum(one.ru_utime + one.ru_stime for one in ended) - sum(one.cpu() for one in self.ours)

    def others(self):
        """Seconds of processor time that others took."""
        return max(0.0, self.taken() - self.begun)


def cpu_of(pid):
    """Seconds of processor time that a process has taken, in nanoseconds' steps where the kernel counts them."""
    try:
        threads = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if threads:
            return sum(int(text.split()[0]) for text in threads) / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime and stime (proc_pid_stat(5)), counted from the third field on
    return sum(map(int, fields[11:13])) * TICK


def resident(pid, which):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{which}:")), 0)
