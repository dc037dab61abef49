// The names closest to what was typed: for a wrong symbol, and for the list under the symbol box.

/** At most `count` names, the closest first; none that has hardly a letter in common. */
export function nearest(wanted: string, names: string[], count = 5): string[] {
  const typed = wanted.toUpperCase();
  return names
    .map((name) => ({ name, distance: nameDistance(typed, name.toUpperCase()) }))
    .filter(({ name, distance }) => distance <= Math.max(2, Math.ceil(Math.max(name.length, typed.length) * 0.6)))
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, count)
    .map(({ name }) => name);
}

/** The names that contain what was typed, those that begin with it first. */
export function matching(typed: string, names: string[]): string[] {
  const wanted = typed.trim().toUpperCase();
  if (wanted === '') return names;
  const starts: string[] = [];
  const contains: string[] = [];
  for (const name of names) {
    const at = name.toUpperCase().indexOf(wanted);
    if (at === 0) starts.push(name);
    else if (at > 0) contains.push(name);
  }
  return [...starts, ...contains];
}

function nameDistance(a: string, b: string): number {
  // Separators are what people leave out: BTCUSDT means BTC-USDT.
  const bare = (text: string) => text.replace(/[^A-Z0-9]/g, '');
  return Math.min(distance(a, b), distance(bare(a), bare(b)) + (bare(a) === bare(b) ? 0 : 0.5));
}

/** Levenshtein's edit distance. */
export function distance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(change, (previous[j] as number) + 1, (current[j - 1] as number) + 1));
    }
    previous = current;
  }
  return previous[b.length] as number;
}
