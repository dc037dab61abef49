// The page's one connection, and the clock that its words count by.

import { readable } from 'svelte/store';
import { fetchPage, socketUrl } from '../wire/http';
import { Socket } from '../wire/socket';
import type { Sources } from './feed';

export const socket = new Socket(socketUrl(document.baseURI));

export function openSocket(): void {
  socket.open();
  addEventListener('online', () => socket.retryNow());
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') socket.retryNow();
  });
}

export const feedSources: Sources = {
  subscribe: (subscription) => socket.subscribe(subscription),
  fetchPage,
  now: () => Date.now(),
};

/** The page's clock in milliseconds, once a second; only for what is counted by the eye. */
export const now = readable(Date.now(), (set) => {
  const id = setInterval(() => set(Date.now()), 1_000);
  return () => clearInterval(id);
});
