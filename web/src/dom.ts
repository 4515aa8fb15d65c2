// The page's elements, found by their names and made without any HTML from elsewhere: all text goes in as text.

/** An element of terminal.html. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`terminal.html has no ${type.name} #${id}`);
  return found;
}

export const button = (id: string): HTMLButtonElement => byId(id, HTMLButtonElement);

/** A new element with some text in it. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, text = ''): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className !== '') element.className = className;
  element.textContent = text;
  return element;
}

/** A new button. `label` is what it is called where `text` alone does not say it. */
export function makeButton(text: string, label: string, pressed: () => void): HTMLButtonElement {
  const made = make('button', '', text);
  made.type = 'button';
  if (label !== text) made.setAttribute('aria-label', label);
  made.addEventListener('click', pressed);
  return made;
}

/** The last question of each dialog. */
const questions = new WeakMap<HTMLDialogElement, Promise<boolean>>();

/**
 * Opens a dialog of terminal.html and waits: true if it was closed by its button with the value `yes`. `tell` writes
 * into it what the question is about, and is not called where nothing is asked: one question at a time, and one that is
 * asked meanwhile is answered with no.
 */
export async function ask(dialog: HTMLDialogElement, tell: () => void): Promise<boolean> {
  // A dialog says that it was closed some time after it was: until then its last question has no answer, and the next
  // one would take that for its own.
  if (!dialog.open) await questions.get(dialog);
  if (dialog.open) return false;
  dialog.returnValue = '';
  tell();
  const question = new Promise<boolean>((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
  questions.set(dialog, question);
  dialog.showModal();
  return question;
}

/** Gives every dialog's buttons their meaning: to close it, with their value. */
export function wireDialogs(closed: () => void): void {
  for (const dialog of document.querySelectorAll('dialog')) {
    for (const each of dialog.querySelectorAll<HTMLButtonElement>('button[value]')) {
      each.addEventListener('click', () => dialog.close(each.value));
    }
    dialog.addEventListener('close', closed);
  }
}
