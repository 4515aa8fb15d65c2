// What a person has chosen, kept by the browser for this gateway's pages. Where it keeps nothing, it is forgotten.

export type Theme = 'auto' | 'dark' | 'light';

export interface Settings {
  /** In CSS pixels. */
  fontSize: number;
  theme: Theme;
  /** Whether programs may put text on the clipboard (OSC 52). */
  programsCopy: boolean;
  screenReader: boolean;
}

export const SMALLEST_FONT = 8;
export const LARGEST_FONT = 32;

const KEY = 'shlogin.terminal';
const USUAL: Settings = { fontSize: 14, theme: 'auto', programsCopy: false, screenReader: false };

/** Anything may stand there: each value is looked at. */
function read(text: string | null): Settings {
  let kept: Partial<Record<keyof Settings, unknown>> = {};
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    if (typeof value === 'object' && value !== null) kept = value;
  } catch {
    // as if nothing had been kept
  }
  const { fontSize, theme, programsCopy, screenReader } = kept;
  return {
    fontSize: typeof fontSize === 'number' && fontSize >= SMALLEST_FONT && fontSize <= LARGEST_FONT ? fontSize : USUAL.fontSize,
    theme: theme === 'dark' || theme === 'light' ? theme : 'auto',
    programsCopy: programsCopy === true,
    screenReader: screenReader === true,
  };
}

export function load(): Settings {
  try {
    return read(localStorage.getItem(KEY));
  } catch {
    return { ...USUAL };
  }
}

export function save(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // a private window, or a full disk: it holds until the page is closed
  }
}
