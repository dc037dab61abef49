// The page that the address asks for: everything behind `#`, so the address holds the whole state of the view.

import { readable, type Readable } from 'svelte/store';

export type Route =
  | { page: 'overview' }
  | { page: 'view'; name: string; symbol: string | null }
  | { page: 'sql'; sql: string | null }
  | { page: 'about' }
  | { page: 'unknown'; hash: string };

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#/, '').split('?', 2);
  const params = new URLSearchParams(query);
  const parts = path.split('/').filter((part) => part !== '');
  if (parts.length === 0) return { page: 'overview' };
  if (parts[0] === 'v' && parts.length === 2) return { page: 'view', name: decode(parts[1] as string), symbol: params.get('symbol') };
  if (parts[0] === 'sql' && parts.length === 1) return { page: 'sql', sql: params.get('q') };
  if (parts[0] === 'about' && parts.length === 1) return { page: 'about' };
  return { page: 'unknown', hash };
}

export function viewHash(name: string, symbol: string | null = null): string {
  const query = symbol === null ? '' : `?${new URLSearchParams({ symbol })}`;
  return `#/v/${encodeURIComponent(name)}${query}`;
}

export function sqlHash(sql: string): string {
  return `#/sql?${new URLSearchParams({ q: sql })}`;
}

/** The route of the browser's address. */
export const route: Readable<Route> = readable<Route>({ page: 'overview' }, (set) => {
  const read = () => set(parseRoute(location.hash));
  read();
  addEventListener('hashchange', read);
  return () => removeEventListener('hashchange', read);
});

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
