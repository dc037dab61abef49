-- Five-minute candles of one-minute candles: a row per symbol and window, windows start at whole five minutes.
-- Reads every Parquet file of getvariable('dataset'); the symbol is the name of the file.
SELECT
  parse_filename(filename, true) AS symbol,
  time_bucket(INTERVAL 5 MINUTE, open_time) AS window_start,
  window_start + INTERVAL 5 MINUTE AS window_end,
  arg_min(open, open_time) AS open,
  max(high) AS high,
  min(low) AS low,
  arg_max(close, open_time) AS close,
  sum(volume::DOUBLE) AS volume
FROM read_parquet(getvariable('dataset') || '/*.parquet', filename = true)
GROUP BY ALL
ORDER BY symbol, window_start
