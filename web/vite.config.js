// How the page is built: one script and one style sheet, named after what is in them, and each once more compressed.
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { defineConfig } from 'vite';

const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));

/** What others wrote comes with their licence, which a minifier would take away. */
function licences() {
  const text = Object.keys(dependencies).map((name) => {
    const licence = readFileSync(new URL(`node_modules/${name}/LICENSE`, import.meta.url), 'utf8').trim();
    return `${name}\n\n${licence.replaceAll('*/', '* /')}`;
  });
  return {
    name: 'licences',
    generateBundle(_options, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type === 'chunk') file.code = `/*!\n${text.join('\n\n')}\n*/\n${file.code}`;
      }
    },
  };
}

/** `NAME.gz` beside each file that shrinks: the gateway has no time to compress. */
function compressed() {
  return {
    name: 'compressed',
    enforce: 'post',
    generateBundle(_options, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        if (!/\.(js|css)$/.test(name)) continue;
        const source = gzipSync(file.type === 'chunk' ? file.code : file.source, { level: 9 });
        this.emitFile({ type: 'asset', fileName: `${name}.gz`, source });
      }
    },
  };
}

export default defineConfig({
  base: '/-/terminal/',
  plugins: [licences(), compressed()],
  build: {
    target: 'es2022',
    sourcemap: false,
    // nothing inline: the page's policy forbids it
    assetsInlineLimit: 0,
    modulePreload: false,
    cssCodeSplit: false,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1024,
    rollupOptions: { input: 'terminal.html' },
  },
  test: { include: ['test/*.test.ts'] },
});
