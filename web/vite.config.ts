// Builds the static page into dist/: relative paths only, code split per page, nothing inline.
import { readFileSync } from 'node:fs';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

interface Manifest {
  version: string;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
}

const manifest = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')) as Manifest;
// What the about page tells; the numbers stand only in package.json.
const versions = { zeta: manifest.version, ...manifest.dependencies, svelte: manifest.devDependencies.svelte };
const target = process.env.ZETA_URL ?? 'http://127.0.0.1:8088';

export default defineConfig({
  base: './',
  plugins: [svelte()],
  define: { __VERSIONS__: JSON.stringify(versions) },
  build: {
    target: 'es2022',
    // A data: URL would need a wider content security policy for scripts and fonts.
    assetsInlineLimit: 0,
    // The polyfill is an inline-like shim that no browser of our target needs.
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/api': { target, ws: true } } },
  test: { include: ['tests/unit/**/*.test.ts'], environment: 'node' },
});
