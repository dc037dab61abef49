// Numbers along time on a canvas: bars for one count, lines for everything else.

import uPlot from 'uplot';
import { compact } from '../text/number';
import { dateTime } from '../text/time';
import type { Aligned } from './bars';
import type { Theme } from './theme';

export interface SeriesShape {
  names: string[];
  /** One column of whole numbers: each stands for its window, so it is a bar. */
  bars: boolean;
}

export class SeriesChart {
  private plot: uPlot;
  private data: Aligned = { times: [], values: [] };
  private readonly watcher: ResizeObserver;

  constructor(
    private readonly element: HTMLElement,
    theme: Theme,
    private readonly shape: SeriesShape,
    private readonly onLook: (index: number | null) => void,
  ) {
    this.plot = this.make(theme);
    this.watcher = new ResizeObserver(() => this.resize());
    this.watcher.observe(element);
  }

  setData(data: Aligned): void {
    // While someone has zoomed in, new points must not throw the view back.
    const { min, max } = this.plot.scales.x ?? {};
    const first = this.data.times[0];
    const last = this.data.times[this.data.times.length - 1];
    const zoomed = first !== undefined && last !== undefined && min != null && max != null && (min > first || max < last);
    this.data = data;
    this.plot.setData([data.times, ...data.values] as uPlot.AlignedData, !zoomed);
    if (zoomed) this.plot.redraw();
  }

  setTheme(theme: Theme): void {
    this.plot.destroy();
    this.plot = this.make(theme);
    this.setData(this.data);
  }

  remove(): void {
    this.watcher.disconnect();
    this.plot.destroy();
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (width > 0 && height > 0) this.plot.setSize({ width, height });
  }

  private make(theme: Theme): uPlot {
    const font = `11px ${theme.font}`;
    const axis = { stroke: theme.muted, font, grid: { stroke: theme.grid, width: 1 }, ticks: { show: false } };
    return new uPlot(
      {
        width: Math.max(1, this.element.clientWidth),
        height: Math.max(1, this.element.clientHeight),
        padding: [14, 12, 0, 22],
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
        legend: { show: false },
        cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
        scales: this.shape.bars
          ? { x: { range: (_plot, min, max) => [min - this.step() / 2, max + this.step() / 2] }, y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.08 : 1] } }
          : {},
        axes: [
          { ...axis, size: 46, space: 64, values: (_plot, ticks) => ticks.map((tick, i) => tickText(tick, ticks[i - 1])) },
          { ...axis, side: 1, size: 64, values: (_plot, ticks) => ticks.map((tick) => compact(tick)) },
        ],
        series: [
          { value: (_plot, seconds) => (seconds == null ? '' : dateTime(seconds * 1000)) },
          ...this.shape.names.map((label, i) => this.line(label, theme.series[i % theme.series.length] as string)),
        ],
        hooks: { setCursor: [(plot) => this.onLook(plot.cursor.idx ?? null)] },
      },
      [[], ...this.shape.names.map(() => [])] as uPlot.AlignedData,
      this.element,
    );
  }

  /** The distance of two points in seconds, so that the first and the last bar are whole. */
  private step(): number {
    const { times } = this.data;
    const [a, b] = times.slice(-2);
    return a === undefined || b === undefined ? 60 : b - a;
  }

  private line(label: string, stroke: string): uPlot.Series {
    const single = this.shape.names.length === 1;
    const series: uPlot.Series = { label, stroke, width: this.shape.bars ? 0 : 1.5, points: { show: false } };
    if (single) series.fill = this.shape.bars ? stroke : `${stroke}22`;
    if (this.shape.bars && uPlot.paths.bars) series.paths = uPlot.paths.bars({ size: [0.72, 40], gap: 1 });
    return series;
  }
}

/** The time of a tick, with its date below where a day begins and at the first one. */
function tickText(tick: number, before: number | undefined): string {
  const text = dateTime(tick * 1000);
  const day = text.slice(0, 10);
  const time = tick % 60 === 0 ? text.slice(11, 16) : text.slice(11, 19);
  const isNewDay = before === undefined || dateTime(before * 1000).slice(0, 10) !== day;
  return isNewDay ? `${time}\n${day.slice(5)}` : time;
}
