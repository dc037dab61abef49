// The colours of the style sheet for canvases, which cannot read it themselves.

export interface Theme {
  panel: string;
  text: string;
  muted: string;
  line: string;
  grid: string;
  up: string;
  down: string;
  upFaint: string;
  downFaint: string;
  series: string[];
  font: string;
}

export function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const color = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    panel: color('panel'),
    text: color('text'),
    muted: color('muted'),
    line: color('line'),
    grid: color('grid'),
    up: color('up'),
    down: color('down'),
    upFaint: color('up-faint'),
    downFaint: color('down-faint'),
    series: [1, 2, 3, 4, 5, 6].map((n) => color(`series-${n}`)),
    font: color('font'),
  };
}

/** Calls back when the system turns dark or light; returns the function that stops it. */
export function onThemeChange(run: (theme: Theme) => void): () => void {
  const query = matchMedia('(prefers-color-scheme: dark)');
  const changed = () => run(readTheme());
  query.addEventListener('change', changed);
  return () => query.removeEventListener('change', changed);
}
