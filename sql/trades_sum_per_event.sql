-- The number of trades per minute and in all, from a topic of plain integers: each message at once, shown every second.
--
--   zeta replay dataset/ --topic test_topic_1 --column number_of_trades --bare --create-topic 1
--   zeta run sql/trades_sum_per_event.sql

CREATE SOURCE trades (number_of_trades BIGINT NOT NULL, WATERMARK FOR kafka_time AS kafka_time - INTERVAL '5 seconds')
  INCLUDE timestamp AS kafka_time
  WITH (connector = 'kafka', topic = 'test_topic_1', 'bootstrap.servers' = '${KAFKA:-localhost:9092}',
        format = 'json', trigger = '0');

CREATE MATERIALIZED VIEW trades_per_minute AS
SELECT window_start, window_end, sum(number_of_trades) AS number_of_trades
FROM TUMBLE(trades, kafka_time, INTERVAL '1 minute')
GROUP BY window_start, window_end
EMIT EVERY INTERVAL '1 second';

CREATE MATERIALIZED VIEW trades_total WITH (panel = 'stat', 'panel.title' = 'trades in all') AS
SELECT sum(number_of_trades) AS number_of_trades, count(*) AS messages FROM trades
EMIT EVERY INTERVAL '1 second';
