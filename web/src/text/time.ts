// Times and durations as people read them; always UTC, as the engine computes.

/** Milliseconds since 1970 of an RFC 3339 text or of a number that is so already; null for all else. */
export function toMs(value: unknown): number | null {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'string' || value === '') return null;
  const ms = /^-?\d+$/.test(value) ? Number(value) : Date.parse(value);
  return Number.isFinite(ms) ? ms : null;
}

/** `10:03:10` */
export function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}

/** `2024-01-02 10:03:10`, with milliseconds only where they are not zero. */
export function dateTime(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const text = date.toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, ms % 1000 === 0 ? 19 : 23)}`;
}

/** `820 ms`, `12 s`, `4 min 10 s`, `2 h 05 min`, `3 d 4 h` */
export function duration(ms: number): string {
  const whole = Math.max(0, Math.round(ms));
  if (whole < 1_000) return `${whole} ms`;
  const s = Math.floor(whole / 1_000);
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return s % 60 === 0 ? `${min} min` : `${min} min ${s % 60} s`;
  const h = Math.floor(min / 60);
  if (h < 48) return min % 60 === 0 ? `${h} h` : `${h} h ${String(min % 60).padStart(2, '0')} min`;
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

/** The size of a window as an adjective: `5-minute`. */
export function windowName(ms: number): string {
  for (const [unit, name] of [
    [86_400_000, 'day'],
    [3_600_000, 'hour'],
    [60_000, 'minute'],
    [1_000, 'second'],
  ] as const) {
    if (ms >= unit && ms % unit === 0) return `${ms / unit}-${name}`;
  }
  return `${ms}-millisecond`;
}
