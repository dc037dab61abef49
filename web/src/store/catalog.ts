// What can be read and where it comes from: views and sources, asked for again every two seconds.

import { writable, type Readable } from 'svelte/store';
import { fetchSources, fetchViews, problemOf } from '../wire/http';
import type { Problem, Source, View } from '../wire/messages';

const POLL_MS = 2_000;

export interface Catalog {
  views: View[] | null;
  sources: Source[] | null;
  problem: Problem | null;
}

const store = writable<Catalog>({ views: null, sources: null, problem: null });
export const catalog: Readable<Catalog> = store;

/** Starts asking; a page in the background does not ask. */
export function watchCatalog(): void {
  const poll = async () => {
    if (document.visibilityState === 'visible') await readCatalog();
    setTimeout(poll, POLL_MS);
  };
  void poll();
}

async function readCatalog(): Promise<void> {
  try {
    const [views, sources] = await Promise.all([fetchViews(), fetchSources()]);
    store.set({ views, sources, problem: null });
  } catch (error) {
    // What was known stays on the screen; only the problem is new.
    store.update((known) => ({ ...known, problem: problemOf(error) }));
  }
}
