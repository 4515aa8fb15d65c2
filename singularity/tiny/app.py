#!/usr/bin/python3
"""A small app that the tests start in sessions: it answers HTTP and WebSocket and tells what it was started with.

Words beginning with + say what to do before it listens; all words are reported as they came.

  +mark=TEXT        what / answers (default: tiny)
  +bind=ADDRESS     where to listen (default: 127.0.0.1); +port=N (default: SHLOGIN_PORT, else 8080)
  +abstract=NAME    also listen on an abstract unix socket, which answers with the mark
  +unix=PATH        listen there instead of on TCP ($VARIABLES are filled in)
  +say=TEXT         print a line; +complain=TEXT: on standard error
  +fetch=URL        fetch it now, and report what came; +connect=HOST:PORT[@DEVICE]: whether it can be
                    reached, by that device
  +children=N       start N processes that outlive their parent, each in a session of its own
  +swarm=N          start processes as fast as possible, N in all
  +deaf             ignore SIGTERM
  +never            never listen, only wait
  +exit=STATUS      end now

/            the mark                         /report    the arguments, the environment, … as JSON
/head        the request's head, as it came   /echo      the request's body
/stream?N    N events, five a second           /drip?N    N pieces of 8 KiB, five a second
                                               /raw?HEX   these bytes, instead of a response
/exit?N      ends the app with status N       /ws        a WebSocket that echoes ('head' gets the request's head)
"""

import base64, hashlib, json, os, signal, socket, struct, sys, threading, time

mark, bind, unix = "tiny", "127.0.0.1", None
port = int(os.environ.get("SHLOGIN_PORT") or 8080)
found = {}


def proc_status(*names):
    with open("/proc/self/status") as lines:
        pairs = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
    return {name: pairs[name] for name in names}


def report():
    return {
        "args": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "uid": os.getuid(),
        "gid": os.getgid(), "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")), "found": found,
        "status": proc_status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
    }


def reach(host, number, device=""):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            if device: probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            probe.connect((host, number))
            return "connected"
        except OSError as error:
            return type(error).__name__ + ": " + str(error)


def fetch(url):
    import urllib.request
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode("latin-1")
    except Exception as error:
        return "failed: %r" % error


def outlive():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    os.wait()


def swarm(count):
    for _ in range(count):
        try:
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.setsid()
                signal.pause()
        except OSError:
            break


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.read(1)
        if not byte:
            return None
        head += byte
    return head


def fields(head):
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if ":" in line)}


def read_body(stream, header):
    if header.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        while stream.readline() not in (b"\r\n", b""):
            pass
        return body
    return stream.read(int(header.get("content-length", 0)))


def websocket(client, stream, head, header):
    digest = hashlib.sha1(header["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
    while True:
        start = stream.read(2)
        if len(start) < 2:
            return
        code, size = start[0] & 15, start[1] & 127
        if size == 126:
            size = struct.unpack(">H", stream.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", stream.read(8))[0]
        key = stream.read(4)
        text = bytes(byte ^ key[at & 3] for at, byte in enumerate(stream.read(size)))
        if text == b"head":
            text = head
        length = bytes([len(text)]) if len(text) < 126 else struct.pack(">BH", 126, len(text))
        client.sendall(bytes([0x80 | (10 if code == 9 else code)]) + length + text)
        if code == 8:
            return


def serve(client):
    stream = client.makefile("rb")
    while head := read_head(stream):
        method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
        header = fields(head)
        path, _, query = target.partition("?")
        base = os.environ.get("SHLOGIN_BASE_PATH", "/").rstrip("/")
        path = path[len(base):] if base and path.startswith(base + "/") else path
        if header.get("upgrade", "").lower() == "websocket":
            return websocket(client, stream, head, header)
        body = read_body(stream, header)
        kind, answer = "text/plain", mark.encode()
        if path == "/raw":
            client.sendall(bytes.fromhex(query))
            continue
        if path == "/exit":
            os._exit(int(query))
        if path in ("/stream", "/drip"):
            kind = b"text/event-stream" if path == "/stream" else b"application/octet-stream"
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
            for number in range(int(query)):
                event = b"data: %d\n\n" % number if path == "/stream" else bytes(8192)
                client.sendall(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(0.2)
            client.sendall(b"0\r\n\r\n")
            continue
        if path == "/report":
            kind, answer = "application/json", json.dumps(report()).encode()
        elif path == "/head":
            answer = head
        elif path == "/echo":
            kind, answer = "application/octet-stream", body
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), len(answer)))
        if method != "HEAD":
            client.sendall(answer)


def serve_quietly(client):
    try:
        with client:
            serve(client)
    except (OSError, ValueError, KeyError):
        pass


def abstract(name):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + name)
    listener.listen()
    while True:
        with listener.accept()[0] as client:
            client.sendall(mark.encode())


for word in sys.argv[1:]:
    if not word.startswith("+"):
        continue
    name, _, value = word[1:].partition("=")
    if name == "mark": mark = value
    elif name == "bind": bind = value
    elif name == "port": port = int(value)
    elif name == "unix": unix = os.path.expandvars(value)
    elif name == "abstract": threading.Thread(target=abstract, args=[value], daemon=True).start()
    elif name == "say": print(value, flush=True)
    elif name == "complain": print(value, file=sys.stderr, flush=True)
    elif name == "fetch": found[value] = fetch(value)
    elif name == "connect":
        target, _, device = value.partition("@")
        host, _, number = target.rpartition(":")
        found[value] = reach(host.strip("[]"), int(number), device)
    elif name == "children":
        for _ in range(int(value)): outlive()
    elif name == "swarm": swarm(int(value))
    elif name == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif name == "never":
        while True: signal.pause()
    elif name == "exit": sys.exit(int(value))

if unix:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(unix)
else:
    server = socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((bind, port))
server.listen(128)
print("tiny listens on", unix or "%s port %d" % (bind, server.getsockname()[1]), flush=True)
while True:
    threading.Thread(target=serve_quietly, args=[server.accept()[0]], daemon=True).start()
