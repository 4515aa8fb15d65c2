// What a person does in JupyterLab.

/** Makes a Python notebook, runs `expression` in its first cell, and returns what the page shows once that has `result` in it. */
export async function runCell(page, expression, result) {
  await page.locator('.jp-LauncherCard[data-category="Notebook"]').first().click();
  const cell = page.locator('.jp-Notebook .jp-CodeCell .cm-content').first();
  await cell.waitFor();
  // what is typed before the kernel has said that it is there, is not run
  await page.locator('.jp-StatusBar-Widget, #jp-main-statusbar').getByText(/\| Idle$/).first().waitFor();
  await cell.click();
  await page.keyboard.insertText(expression);
  await page.keyboard.press('Shift+Enter');
  const output = page.locator('.jp-OutputArea-output').filter({ hasText: result }).first();
  await output.waitFor();
  return (await output.innerText()).trim().replaceAll("'", '');
}
