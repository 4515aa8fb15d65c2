// The screen: xterm.js with what it needs, fed by a queue. It knows nothing of the network.
import { Terminal } from '@xterm/xterm';
import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon } from '@xterm/addon-search';
import { UnicodeGraphemesAddon } from '@xterm/addon-unicode-graphemes';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { WebglAddon } from '@xterm/addon-webgl';
import '@xterm/xterm/css/xterm.css';
import { isAnswer, muzzle } from './answers';
import { OutputQueue } from './queue';
import { wear } from './theme';
import type { Settings } from './settings';

const FONT = 'ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace';
const SCROLLBACK = 10_000;

/** Widths as today's C libraries and shells count them, character by character. What joins several characters into one
 * picture would put the cursor elsewhere than the shell believes it to be. */
const WIDTHS = '15';

export interface ScreenEvents {
  /** Something was typed, pasted, or done with the mouse. */
  typed(bytes: Uint8Array): void;
  /** As in `OutputQueue`. */
  shown(at: number, all: boolean): void;
  /** A link of a program's own, whose text may be another than where it leads. */
  link(uri: string): void;
}

export class Screen {
  readonly terminal: Terminal;
  readonly fit = new FitAddon();
  readonly search = new SearchAddon();
  readonly output: OutputQueue;
  /** Whether this page answers what programs ask. */
  leads = false;

  constructor(place: HTMLElement, settings: Settings, events: ScreenEvents) {
    this.terminal = new Terminal({
      allowProposedApi: true, // widths of characters are one
      cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      fontFamily: FONT,
      fontSize: settings.fontSize,
      linkHandler: { activate: (_event, uri) => events.link(uri), allowNonHttpProtocols: false },
      macOptionClickForcesSelection: true,
      minimumContrastRatio: 4.5,
      rightClickSelectsWord: true,
      screenReaderMode: settings.screenReader,
      scrollback: SCROLLBACK,
      theme: wear(settings.theme),
    });
    const { terminal } = this;
    this.output = new OutputQueue(terminal, events.shown);
    terminal.loadAddon(this.fit);
    terminal.loadAddon(this.search);
    terminal.loadAddon(new UnicodeGraphemesAddon());
    terminal.unicode.activeVersion = WIDTHS;
    terminal.loadAddon(new WebLinksAddon((_event, uri) => open(uri, '_blank', 'noopener,noreferrer')));
    const silent = () => this.#silent;
    muzzle(terminal, silent);

    const encoder = new TextEncoder();
    terminal.onData((data) => {
      if (!silent() || !isAnswer(data)) events.typed(encoder.encode(data));
    });
    // reports of the mouse in the old way, one byte a character
    terminal.onBinary((data) => events.typed(Uint8Array.from(data, (character) => character.charCodeAt(0))));

    terminal.open(place);
    this.#useGraphics();
    terminal.textarea?.setAttribute('aria-label', 'Terminal. Control, Shift and Space leave it for the toolbar.');
  }

  /** A viewer's keys go nowhere. */
  set typable(typable: boolean) {
    this.terminal.options.disableStdin = !typable;
  }

  /** As a person would have typed it. */
  type(data: string): void {
    this.terminal.input(data, true);
  }

  focus(): void {
    this.terminal.focus();
  }

  get #silent(): boolean {
    return !this.leads || this.output.replaying;
  }

  /** Draws with the graphics processor, where there is one; with the page's own means otherwise. */
  #useGraphics(): void {
    if (!hasGraphics()) return;
    try {
      const graphics = new WebglAddon();
      graphics.onContextLoss(() => graphics.dispose());
      this.terminal.loadAddon(graphics);
    } catch {
      // a driver that promises more than it has
    }
  }
}

/** Whether there is a graphics processor. One that is a program is many times slower than the page's own means, and not
 * every browser says of it that it is. */
function hasGraphics(): boolean {
  const probe = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true });
  if (probe === null) return false;
  const unmasked = probe.getExtension('WEBGL_debug_renderer_info')?.UNMASKED_RENDERER_WEBGL;
  const name = String(probe.getParameter(unmasked ?? probe.RENDERER));
  probe.getExtension('WEBGL_lose_context')?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}
