// What the build puts in: see vite.config.ts.

/// <reference types="svelte" />
/// <reference types="vite/client" />

declare const __VERSIONS__: { zeta: string; svelte: string; 'lightweight-charts': string; uplot: string };
