// The keys that are the page's and not the terminal's. All have Control and Shift, which no terminal program sees anyway.
import type { Terminal } from '@xterm/xterm';

export interface KeyActions {
  copy(): void;
  search(): void;
  /** Out of the terminal, for whoever has no mouse: Tab belongs to the shell. */
  leave(): void;
  endVisits(): void;
}

export function bindKeys(terminal: Terminal, actions: KeyActions): void {
  const mine = new Map<string, () => void>([
    ['KeyC', actions.copy],
    ['KeyF', actions.search],
    ['Space', actions.leave],
    ['KeyX', actions.endVisits],
  ]);
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
    // The browser's own paste, which asks nobody: xterm.js must not make a key of it.
    if (event.code === 'KeyV') return false;
    const action = mine.get(event.code);
    if (action === undefined) return true;
    event.preventDefault();
    event.stopPropagation();
    if (event.type === 'keydown' && !event.repeat) action();
    return false;
  });
}
