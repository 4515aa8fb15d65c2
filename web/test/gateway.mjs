// A stand-in for the gateway, to try the page with: it speaks the protocol of src/gateway/terminal/message.rs and has real
// shells behind it, but lets everybody in, on loopback. The page's policy is the real one.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const here = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(here, '..', 'dist');
const policy = (await readFile(path.join(here, '..', 'terminal.csp'), 'utf8')).trim();
const kinds = { '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8' };

/** The most output that is under way to a page, and the most that is kept for those who come later. */
const WINDOW = 512 << 10;
const KEPT = 4 << 20;

/** A shell, its output, and the pages that show it. */
class Terminal {
  pages = new Set();
  taken = new Map();
  leader = null;
  size = { cols: 80, rows: 24 };
  title = 'bash';
  shared = false;
  ended = false;
  kept = Buffer.alloc(0);
  /** Where the kept output begins. */
  from = 0;

  constructor(id, command, size, changed) {
    this.id = id;
    this.size = size;
    this.shell = spawn('python3', [path.join(here, 'shell.py'), String(size.cols), String(size.rows), ...command], { stdio: ['pipe', 'pipe', 'inherit', 'pipe'], cwd: '/' });
    this.shell.stdin.on('error', () => {});
    this.shell.stdio[3].on('error', () => {});
    this.shell.stdout.on('data', (bytes) => this.write(bytes));
    this.shell.on('exit', (status, signal) => {
      this.ended = true;
      for (const page of this.pages) page.finish({ type: 'ended', summary: `The program ended with ${signal ?? `status ${status}`}.` });
      changed();
    });
  }

  get end() {
    return this.from + this.kept.length;
  }

  write(bytes) {
    const title = /\x1b\]0;([^\x07]*)\x07/.exec(bytes.toString('latin1'));
    if (title) this.title = title[1];
    this.kept = Buffer.concat([this.kept, bytes]);
    if (this.kept.length > KEPT) {
      this.from += this.kept.length - KEPT / 2;
      this.kept = this.kept.subarray(this.kept.length - KEPT / 2);
    }
    for (const page of this.pages) page.pump();
    this.hold();
  }

  /** The program waits for the page that leads. */
  hold() {
    const behind = this.leader ? this.end - this.leader.shown : 0;
    if (behind > WINDOW) this.shell.stdout.pause();
    else this.shell.stdout.resume();
  }

  lead(page, size) {
    this.leader = page;
    this.size = size;
    this.shell.stdio[3].write(`${size.cols} ${size.rows}\n`);
    for (const each of this.pages) each.say({ type: 'size', size, leads: each === page });
  }
}

/** One WebSocket. */
class Page {
  terminal = null;
  shown = 0;
  sent = 0;
  begun = 0;
  deaf = false;

  constructor(socket, access, gateway) {
    Object.assign(this, { socket, access, gateway });
    socket.on('message', (data, binary) => !this.deaf && (binary ? this.input(data) : this.hear(JSON.parse(data.toString()))));
    socket.on('close', () => this.leave());
    socket.on('error', () => {});
  }

  say(message) {
    if (!this.deaf) this.socket.send(JSON.stringify(message));
  }

  finish(message) {
    this.say(message);
    this.socket.close();
  }

  leave() {
    this.terminal?.pages.delete(this);
    if (this.terminal?.leader === this) {
      this.terminal.leader = null;
      this.terminal.hold();
    }
  }

  hear(message) {
    const { gateway, terminal } = this;
    const owner = this.access === 'owner';
    switch (message.type) {
      case 'attach': return this.attach(message);
      case 'ack':
        this.shown = message.at;
        this.pump();
        return terminal.hold();
      case 'resize':
        this.size = message.size;
        if (terminal.leader === this) terminal.lead(this, this.size);
        return;
      case 'focus': return owner && terminal.lead(this, this.size);
      case 'end': return owner && gateway.terminals.get(message.terminal)?.shell.kill();
      case 'revoke': return owner && gateway.revoke(message.guest);
    }
  }

  attach({ client, terminal: wanted, new: another, have, size }) {
    const { gateway } = this;
    if (gateway.refuses) return this.finish({ type: 'refused', why: gateway.refuses });
    const terminal = another ? gateway.open(size) : gateway.find(wanted, size);
    this.terminal = terminal;
    this.client = client;
    this.size = size;
    terminal.pages.add(this);
    if (!terminal.taken.has(client)) terminal.taken.set(client, 0);
    const joins = have !== null && have >= terminal.from && have <= terminal.end;
    this.sent = this.shown = this.begun = joins ? have : terminal.from;
    const leads = this.access === 'owner' && terminal.leader === null;
    if (leads) terminal.lead(this, size);
    this.say({
      type: 'attached', terminal: terminal.id, access: this.access, size: terminal.size, leads, reset: !joins,
      from: this.sent, replay: terminal.end, taken: terminal.taken.get(client),
    });
    this.pump();
    gateway.tell(this);
  }

  pump() {
    const { terminal } = this;
    if (this.deaf) return;
    if (this.sent < terminal.from) {
      this.sent = this.shown = terminal.from;
      this.say({ type: 'skip', from: terminal.from, replay: terminal.end });
    }
    while (this.sent < terminal.end && this.sent - this.shown < WINDOW) {
      const bytes = terminal.kept.subarray(this.sent - terminal.from, this.sent - terminal.from + (64 << 10));
      const frame = Buffer.alloc(8 + bytes.length);
      frame.writeBigUInt64BE(BigInt(this.sent));
      bytes.copy(frame, 8);
      this.socket.send(frame);
      this.gateway.bytesSent += bytes.length;
      this.sent += bytes.length;
    }
  }

  input(frame) {
    const { terminal, client } = this;
    const at = Number(frame.readBigUInt64BE());
    const taken = terminal.taken.get(client);
    const fresh = frame.subarray(8 + Math.max(0, taken - at));
    if (at <= taken && fresh.length > 0 && this.access !== 'view') {
      terminal.shell.stdin.write(fresh);
      terminal.taken.set(client, taken + fresh.length);
    }
    this.gateway.inputs.push(fresh.toString('latin1'));
    this.say({ type: 'taken', at: this.access === 'view' ? at : terminal.taken.get(client) });
  }
}

export class Gateway {
  terminals = new Map();
  pages = new Set();
  people = [];
  /** What pages that come now may do. */
  access = 'owner';
  /** Why pages that come now are refused. */
  refuses = null;
  /** Sockets are not opened: as if the cookie were not good any more. */
  signedOut = false;
  inputs = [];
  origins = [];
  bytesSent = 0;
  #last = 0;

  constructor(command = ['bash', '--norc', '--noprofile']) {
    this.command = command;
    this.server = createServer((request, response) => void this.answer(request, response));
    this.sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 20 });
    this.server.on('upgrade', (request, socket, head) => {
      this.origins.push(request.headers.origin);
      if (this.signedOut || new URL(request.url, 'http://x').pathname !== '/-/terminal/socket') {
        socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n');
        return;
      }
      this.sockets.handleUpgrade(request, socket, head, (opened) => {
        const page = new Page(opened, this.access, this);
        this.pages.add(page);
        opened.on('close', () => this.pages.delete(page));
      });
    });
  }

  async listen(port = 0) {
    await new Promise((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    return `http://127.0.0.1:${this.server.address().port}/-/terminal`;
  }

  close() {
    this.drop();
    for (const { shell } of this.terminals.values()) shell.kill();
    this.server.close();
    this.server.closeAllConnections();
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, 'http://x');
    const common = { 'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'X-Frame-Options': 'DENY', 'Cross-Origin-Resource-Policy': 'same-origin' };
    if (this.signedOut) {
      response.writeHead(401, common).end();
    } else if (pathname === '/-/terminal') {
      const html = (await readFile(path.join(dist, 'terminal.html'), 'utf8')).replaceAll('@SESSION@', 'notebook');
      response.writeHead(200, { ...common, 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store', 'Content-Security-Policy': policy }).end(html);
    } else {
      const name = /^\/-\/terminal\/assets\/([\w-]+(\.[a-z]+))$/.exec(pathname);
      const bytes = name && await readFile(path.join(dist, 'assets', name[1])).catch(() => null);
      if (!bytes) response.writeHead(404, common).end();
      else response.writeHead(200, { ...common, 'Content-Type': kinds[name[2]], 'Cache-Control': 'private, max-age=31536000, immutable' }).end(bytes);
    }
  }

  open(size) {
    this.#last += 1;
    const terminal = new Terminal(this.#last, this.command, size, () => {
      this.terminals.delete(terminal.id);
      this.tellAll();
    });
    this.terminals.set(this.#last, terminal);
    this.tellAll();
    return terminal;
  }

  find(wanted, size) {
    const asked = wanted === null ? undefined : this.terminals.get(wanted);
    return asked ?? [...this.terminals.values()].at(-1) ?? this.open(size);
  }

  tell(page) {
    if (page.terminal === null) return;
    const owner = page.access === 'owner';
    const summary = ({ id, title, shared }) => ({ id, title, shared });
    if (owner) page.say({ type: 'terminals', terminals: [...this.terminals.values()].map(summary) });
    page.say({ type: 'people', people: owner ? this.people : this.people.slice(0, 1) });
  }

  tellAll() {
    for (const page of this.pages) this.tell(page);
  }

  let(people) {
    this.people = people;
    this.tellAll();
  }

  revoke(guest) {
    this.let(guest === null ? [] : this.people.filter((person) => person.guest !== guest));
  }

  notice(text) {
    for (const page of this.pages) page.say({ type: 'notice', text });
  }

  /** Breaks all connections off. */
  drop() {
    for (const page of this.pages) page.socket.terminate();
  }

  /** Nothing is heard or said any more, and the connections stay open. */
  deafen() {
    for (const page of this.pages) page.deaf = true;
  }
}
