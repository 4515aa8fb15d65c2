// What a person does in any web terminal, and how it shows that the shell has answered.

// What is typed does not contain what is looked for.
const product = 'answer-42';
const question = 'answer-$((6*7))';

/**
 * Types into the terminal `xterm` until its shell has answered; `shows(text)` locates the answer on the page.
 * Most terminals draw on a canvas, where nothing can be read: there, the shell sets the title to its answer.
 */
export async function askShell(page, xterm, shows) {
  const prompt = xterm.locator('.xterm-helper-textarea');
  await prompt.waitFor({ state: 'attached' });
  // A shell that is not there yet takes what is typed later on, but some terminals throw it away until then: so again.
  for (let tries = 1; ; tries += 1) {
    await prompt.focus();
    await page.keyboard.type(`echo ${question}; printf '\\033]0;%s\\007' ${question}; read -r\n`);
    try {
      await shows(product).first().waitFor({ timeout: 15_000 });
      return product;
    } catch (error) {
      if (tries === 3) throw error;
      await page.keyboard.press('Control+c');
    }
  }
}
