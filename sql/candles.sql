-- Candles of every trading pair, kept up to date while they form, beside their history.
--
--   zeta run sql/candles.sql
--
-- KAFKA: brokers (localhost:9092). HISTORY: a folder with one Parquet file per pair, on disk or hdfs:// (dataset/).

CREATE SOURCE candles (
  symbol VARCHAR NOT NULL, open_time TIMESTAMP NOT NULL, open REAL, high REAL, low REAL, close REAL,
  volume REAL, number_of_trades INT,
  WATERMARK FOR open_time AS open_time - INTERVAL '5 seconds'
) INCLUDE timestamp AS kafka_time
  WITH (connector = 'kafka', topic = 'candles', 'bootstrap.servers' = '${KAFKA:-localhost:9092}',
        format = 'json', on_bad_record = 'keep', idle_timeout = '30 seconds');

-- ADA-USDT.parquet holds the rows of ADA-USDT.
CREATE EXTERNAL TABLE history INCLUDE file_name AS symbol STORED AS PARQUET LOCATION '${HISTORY:-dataset/}';

CREATE MATERIALIZED VIEW candles_5m AS
SELECT symbol, window_start, window_end,
       first_value(open ORDER BY open_time) AS open, max(high) AS high, min(low) AS low,
       last_value(close ORDER BY open_time) AS close, sum(volume) AS volume
FROM TUMBLE(candles, open_time, INTERVAL '5 minutes')
GROUP BY symbol, window_start, window_end;
