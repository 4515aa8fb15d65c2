// Dark and light. The page's colours stand in the style sheet; the terminal's stand here.
import type { ITheme } from '@xterm/xterm';
import type { Theme } from './settings';

const DARK: ITheme = {
  background: '#12161c', foreground: '#e6eaf0', cursor: '#7ab0f5', cursorAccent: '#12161c',
  selectionBackground: '#42648f', selectionInactiveBackground: '#42648f',
  black: '#2b3441', red: '#f07178', green: '#8fce7e', yellow: '#e7c26b', blue: '#7ab0f5', magenta: '#d0a0f0',
  cyan: '#6fd0d8', white: '#d4dae3',
  brightBlack: '#8390a2', brightRed: '#ff9aa0', brightGreen: '#b0e69f', brightYellow: '#f6dc94',
  brightBlue: '#a3cbff', brightMagenta: '#e4c1ff', brightCyan: '#9ceaf0', brightWhite: '#ffffff',
};

const LIGHT: ITheme = {
  background: '#ffffff', foreground: '#1c2430', cursor: '#2563b0', cursorAccent: '#ffffff',
  selectionBackground: '#a9cbf5', selectionInactiveBackground: '#a9cbf5',
  black: '#1c2430', red: '#b3261e', green: '#1d7a34', yellow: '#8a6100', blue: '#2563b0', magenta: '#8a35a8',
  cyan: '#0b7580', white: '#5b6677',
  brightBlack: '#5b6677', brightRed: '#c8372d', brightGreen: '#237f3a', brightYellow: '#8f6a00',
  brightBlue: '#2f6fc4', brightMagenta: '#9a45b8', brightCyan: '#117d88', brightWhite: '#3a4556',
};

const prefersDark = matchMedia('(prefers-color-scheme: dark)');

/** Calls back whenever the system changes its mind. */
export function onSystemTheme(changed: () => void): void {
  prefersDark.addEventListener('change', changed);
}

/** Puts the page into a theme and returns the terminal's part of it. */
export function wear(theme: Theme): ITheme {
  const dark = theme === 'dark' || (theme === 'auto' && prefersDark.matches);
  document.documentElement.dataset['theme'] = dark ? 'dark' : 'light';
  return dark ? DARK : LIGHT;
}
