// The settings' panel: what is chosen there holds at once, and is kept.
import type { Clipboard } from './clipboard';
import { button, byId } from './dom';
import type { Fitting } from './fitting';
import type { Screen } from './screen';
import { LARGEST_FONT, SMALLEST_FONT, save, type Settings } from './settings';
import { onSystemTheme, wear } from './theme';

export class SettingsPanel {
  readonly #size = byId('font-size', HTMLElement);
  readonly #theme = byId('theme', HTMLSelectElement);
  readonly #screenReader = byId('screen-reader', HTMLInputElement);
  readonly #programsCopy = byId('programs-copy', HTMLInputElement);

  constructor(
    private readonly settings: Settings,
    private readonly screen: Screen,
    private readonly fitting: Fitting,
    private readonly clipboard: Clipboard,
  ) {
    button('font-smaller').addEventListener('click', () => this.#change({ fontSize: settings.fontSize - 1 }));
    button('font-larger').addEventListener('click', () => this.#change({ fontSize: settings.fontSize + 1 }));
    this.#theme.addEventListener('change', () => {
      const { value } = this.#theme;
      this.#change({ theme: value === 'dark' || value === 'light' ? value : 'auto' });
    });
    this.#screenReader.addEventListener('change', () => this.#change({ screenReader: this.#screenReader.checked }));
    this.#programsCopy.addEventListener('change', () => this.#change({ programsCopy: this.#programsCopy.checked }));
    onSystemTheme(() => this.#apply());
    this.#apply();
  }

  #change(changed: Partial<Settings>): void {
    Object.assign(this.settings, changed);
    save(this.settings);
    this.#apply();
  }

  #apply(): void {
    const { fontSize, theme, screenReader, programsCopy } = this.settings;
    this.#size.textContent = String(fontSize);
    button('font-smaller').disabled = fontSize <= SMALLEST_FONT;
    button('font-larger').disabled = fontSize >= LARGEST_FONT;
    this.#theme.value = theme;
    this.#screenReader.checked = screenReader;
    this.#programsCopy.checked = programsCopy;
    const { options } = this.screen.terminal;
    options.theme = wear(theme);
    options.screenReaderMode = screenReader;
    this.clipboard.programsCopy = programsCopy;
    this.fitting.setFontSize(fontSize);
  }
}
