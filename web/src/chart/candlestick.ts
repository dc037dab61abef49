// Candles and volume on a canvas: takes bars, says which bar is looked at and when older ones are wanted.
//
//   bars ─▶ setBars (all) or updateBars (the newest few) ─▶ canvas
//   canvas ─▶ onLook (crosshair), onOlder (left edge near), onEdge (newest bar in or out of view)

import {
  CandlestickSeries,
  ColorType,
  createChart,
  CrosshairMode,
  HistogramSeries,
  LineStyle,
  type CandlestickData,
  type HistogramData,
  type IChartApi,
  type ISeriesApi,
  type LogicalRange,
  type UTCTimestamp,
} from 'lightweight-charts';
import { compact, decimalsFor, fixed } from '../text/number';
import { dateTime } from '../text/time';
import { barState, type Bar } from './bars';
import type { Theme } from './theme';

/** So few bars left of the view, and the next page is asked for. */
const BARS_AHEAD = 50;
const BARS_AT_FIRST = 140;
const BARS_RIGHT = 6;
/** The newest bars tell how many decimals the prices need. */
const BARS_SAMPLED = 200;

export interface CandlestickEvents {
  onLook(time: number | null): void;
  onOlder(): void;
  onEdge(atNewest: boolean): void;
}

export class CandlestickChart {
  private readonly chart: IChartApi;
  private readonly candles: ISeriesApi<'Candlestick'>;
  private volumes: ISeriesApi<'Histogram'> | null = null;
  private bars: Bar[] = [];
  private watermark: number | null = null;
  private decimals: number | null = null;
  private looked: number | null = null;

  constructor(
    element: HTMLElement,
    private theme: Theme,
    shape: { hasVolume: boolean; hasSeconds: boolean },
    private readonly events: CandlestickEvents,
  ) {
    this.chart = createChart(element, {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false },
      timeScale: { borderVisible: false, timeVisible: true, secondsVisible: shape.hasSeconds, rightOffset: BARS_RIGHT, barSpacing: 8, minBarSpacing: 0.5 },
      localization: { timeFormatter: (time: unknown) => `${dateTime(Number(time) * 1000)} UTC` },
      handleScale: { axisPressedMouseMove: { time: true, price: true } },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, { priceLineStyle: LineStyle.Dotted });
    if (shape.hasVolume) {
      this.volumes = this.chart.addSeries(
        HistogramSeries,
        { priceFormat: { type: 'custom', formatter: compact, minMove: 0.01 }, priceLineVisible: false, lastValueVisible: false },
        1,
      );
      this.chart.panes()[0]?.setStretchFactor(5);
      this.chart.panes()[1]?.setStretchFactor(1);
    }
    this.setTheme(theme);
    this.chart.subscribeCrosshairMove((event) => {
      this.looked = event.time === undefined ? null : Number(event.time) * 1000;
      this.events.onLook(this.looked);
    });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => this.moved(range));
  }

  /** The number of decimals that the prices are shown with. */
  get priceDecimals(): number {
    return this.decimals ?? 2;
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.chart.applyOptions({
      layout: {
        attributionLogo: true,
        background: { type: ColorType.Solid, color: theme.panel },
        textColor: theme.muted,
        fontFamily: theme.font,
        fontSize: 11,
        panes: { separatorColor: theme.line, separatorHoverColor: theme.grid },
      },
      grid: { vertLines: { color: theme.grid }, horzLines: { color: theme.grid } },
      crosshair: {
        vertLine: { color: theme.muted, labelBackgroundColor: theme.line },
        horzLine: { color: theme.muted, labelBackgroundColor: theme.line },
      },
    });
    this.candles.applyOptions({
      upColor: theme.up,
      downColor: theme.down,
      borderVisible: true,
      borderUpColor: theme.up,
      borderDownColor: theme.down,
      wickUpColor: theme.up,
      wickDownColor: theme.down,
    });
    if (this.bars.length > 0) this.draw();
  }

  /** All bars anew. The view stays on the bars it shows, also where older ones came in front. */
  setBars(bars: Bar[], watermark: number | null): void {
    const first = this.bars.length === 0 && bars.length > 0;
    this.bars = bars;
    this.watermark = watermark;
    this.setDecimals();
    this.draw();
    if (first) this.showNewest();
  }

  /** The newest few bars, oldest first. False, and nothing done, where one would have to go between two others. */
  updateBars(bars: Bar[], watermark: number | null): boolean {
    const newest = this.bars[this.bars.length - 1];
    if (!newest || bars.some((bar) => bar.time < newest.time && this.indexOf(bar) < 0)) return false;
    this.watermark = watermark;
    for (const bar of bars) {
      const last = this.bars[this.bars.length - 1];
      if (last && bar.time < last.time) this.bars[this.indexOf(bar)] = bar;
      else if (last?.time === bar.time) this.bars[this.bars.length - 1] = bar;
      else this.bars.push(bar);
      const historical = last !== undefined && bar.time < last.time;
      this.setDecimals(this.decimals ?? 0);
      this.candles.update(this.candleOf(bar), historical);
      this.volumes?.update(this.volumeOf(bar), historical);
    }
    this.setPriceLine();
    return true;
  }

  showNewest(): void {
    const to = this.bars.length - 1 + BARS_RIGHT;
    const width = this.chart.timeScale().width();
    const count = width > 0 ? Math.max(30, Math.round(width / 8)) : BARS_AT_FIRST;
    this.chart.timeScale().setVisibleLogicalRange({ from: to - count, to });
  }

  showOldest(): void {
    const range = this.range();
    this.chart.timeScale().setVisibleLogicalRange({ from: -2, to: range.to - range.from - 2 });
  }

  /** Moves the view by a part of its width: -1 is one page back. */
  scrollBy(pages: number): void {
    const range = this.range();
    const step = (range.to - range.from) * pages;
    this.chart.timeScale().setVisibleLogicalRange({ from: range.from + step, to: range.to + step });
  }

  /** Shows fewer bars (factor below 1) or more, and keeps the right edge. */
  zoomBy(factor: number): void {
    const range = this.range();
    const count = Math.max(10, Math.min(4_000, (range.to - range.from) * factor));
    this.chart.timeScale().setVisibleLogicalRange({ from: range.to - count, to: range.to });
  }

  /** Moves the crosshair by whole bars and brings it into view; returns the bar it stands on. */
  lookBy(steps: number): Bar | null {
    const from = this.looked === null ? this.bars.length : this.bars.findIndex((bar) => bar.time === this.looked);
    const at = Math.max(0, Math.min(this.bars.length - 1, from + steps));
    const bar = this.bars[at];
    if (!bar) return null;
    const range = this.range();
    const shift = at < range.from ? at - range.from - 2 : at > range.to ? at - range.to + 2 : 0;
    if (shift !== 0) this.chart.timeScale().setVisibleLogicalRange({ from: range.from + shift, to: range.to + shift });
    this.chart.setCrosshairPosition(bar.close, seconds(bar.time), this.candles);
    this.looked = bar.time;
    this.events.onLook(bar.time);
    return bar;
  }

  lookAway(): void {
    this.chart.clearCrosshairPosition();
    this.looked = null;
    this.events.onLook(null);
  }

  remove(): void {
    this.chart.remove();
  }

  private moved(range: LogicalRange | null): void {
    if (!range || this.bars.length === 0) return;
    this.events.onEdge(range.to >= this.bars.length - 1);
    if (range.from < BARS_AHEAD) this.events.onOlder();
  }

  /** Only ever asked for one of the newest bars, so it looks from the end. */
  private indexOf(bar: Bar): number {
    return this.bars.findLastIndex((held) => held.time === bar.time);
  }

  private range(): { from: number; to: number } {
    return this.chart.timeScale().getVisibleLogicalRange() ?? { from: 0, to: this.bars.length };
  }

  private draw(): void {
    this.candles.setData(this.bars.map((bar) => this.candleOf(bar)));
    this.volumes?.setData(this.bars.map((bar) => this.volumeOf(bar)));
    this.setPriceLine();
  }

  private setDecimals(least = 0): void {
    const recent = this.bars.slice(-BARS_SAMPLED);
    const decimals = Math.max(least, decimalsFor(recent.flatMap((bar) => [bar.open, bar.close])));
    if (recent.length === 0 || decimals === this.decimals) return;
    this.decimals = decimals;
    this.candles.applyOptions({
      priceFormat: { type: 'custom', formatter: (price: number) => fixed(price, decimals), minMove: 10 ** -decimals },
    });
  }

  /** The label of the last price takes the bar's colour, and a hollow bar has none. */
  private setPriceLine(): void {
    const last = this.bars[this.bars.length - 1];
    const color = last && last.close < last.open ? this.theme.down : this.theme.up;
    if (color !== this.candles.options().priceLineColor) this.candles.applyOptions({ priceLineColor: color });
  }

  private candleOf(bar: Bar): CandlestickData<UTCTimestamp> {
    const { open, high, low, close } = bar;
    const candle: CandlestickData<UTCTimestamp> = { time: seconds(bar.time), open, high, low, close };
    // A hollow body may still change.
    if (barState(bar, this.watermark) === 'forming') candle.color = 'rgba(0, 0, 0, 0)';
    return candle;
  }

  private volumeOf(bar: Bar): HistogramData<UTCTimestamp> {
    return { time: seconds(bar.time), value: bar.volume ?? 0, color: bar.close >= bar.open ? this.theme.upFaint : this.theme.downFaint };
  }
}

function seconds(ms: number): UTCTimestamp {
  return (ms / 1000) as UTCTimestamp;
}
