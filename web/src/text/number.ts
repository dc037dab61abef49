// Numbers as people read them: as many decimals as the price needs, whether it is 0.00001 or 60,000.

const DECIMALS_MAX = 12;

/** A number of a cell: wide integers and decimals come as text. Null for all else. */
export function toNumber(value: unknown): number | null {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'string' || value.trim() === '') return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** How many decimals show the prices without noise: what they use, but at most about six digits in all. */
export function decimalsFor(values: Iterable<number>): number {
  let used = 0;
  let largest = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    largest = Math.max(largest, Math.abs(value));
    used = Math.max(used, decimalsUsed(value));
  }
  if (largest === 0) return 2;
  const useful = 5 - Math.floor(Math.log10(largest));
  const most = Math.min(DECIMALS_MAX, Math.max(2, useful));
  return Math.min(Math.max(used, largest >= 1 ? 2 : 0), most);
}

/** Decimals that a whole column can share, or null where its sizes lie too far apart for one number of them. */
export function sharedDecimals(values: number[]): number | null {
  const sizes = values.map(Math.abs).filter((size) => size > 0 && Number.isFinite(size));
  if (sizes.length === 0 || Math.max(...sizes) / Math.min(...sizes) > 1_000) return null;
  return decimalsFor(sizes);
}

export function fixed(value: number, decimals: number): string {
  return formatter(decimals, decimals).format(value);
}

/** Digits of a text in groups of three, none of them lost: for integers and decimals too wide for a number. */
export function grouped(digits: string): string {
  const [whole = '', part] = digits.split('.');
  const groups = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return part === undefined ? groups : `${groups}.${part}`;
}

/** A number of unknown kind, with up to six digits that matter: `1,204`, `0.3333`, `0.0000123`. */
export function plain(value: number): string {
  if (Number.isInteger(value)) return formatter(0, 0).format(value);
  return formatter(0, decimalsFor([value])).format(value);
}

/** `1.24M` */
export function compact(value: number): string {
  const size = Math.abs(value);
  if (size < 1_000) return plain(Number(value.toPrecision(4)));
  for (const [unit, letter] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'K'],
  ] as const) {
    if (size >= unit) return `${formatter(0, 2).format(value / unit)}${letter}`;
  }
  return plain(value);
}

export function percent(ratio: number): string {
  const sign = ratio > 0 ? '+' : ratio < 0 ? '−' : '';
  return `${sign}${formatter(2, 2).format(Math.abs(ratio) * 100)}%`;
}

function decimalsUsed(value: number): number {
  for (let decimals = 0; decimals < DECIMALS_MAX; decimals++) {
    const scaled = value * 10 ** decimals;
    if (Math.abs(scaled - Math.round(scaled)) <= 1e-9 * Math.max(1, Math.abs(scaled))) return decimals;
  }
  return DECIMALS_MAX;
}

const formatters = new Map<string, Intl.NumberFormat>();

function formatter(least: number, most: number): Intl.NumberFormat {
  const key = `${least}-${most}`;
  let found = formatters.get(key);
  if (!found) {
    found = new Intl.NumberFormat('en-US', { minimumFractionDigits: least, maximumFractionDigits: most });
    formatters.set(key, found);
  }
  return found;
}
