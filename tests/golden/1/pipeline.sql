-- One view of every kind of state. The state beside it was made by ZETA_GOLDEN=make: see tests/it/golden.rs.
CREATE SOURCE s (k VARCHAR, v BIGINT, w BIGINT, price DECIMAL(12, 2), ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
  WITH (connector = 'memory', format = 'json', trigger = '0');
CREATE TABLE names (k VARCHAR PRIMARY KEY, name VARCHAR);
CREATE MATERIALIZED VIEW plain AS SELECT k, v, price, ts FROM s WHERE 0 < v;
CREATE MATERIALIZED VIEW per_minute AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS total, avg(price) AS price, first_value(v ORDER BY ts, v) AS first
  FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW closed AS
  SELECT window_start, window_end, max(v) AS high FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end
  EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW shared AS
  SELECT k, window_start, window_end, count(*) AS n, min(v) AS low FROM HOP(s, ts, INTERVAL '30 seconds', INTERVAL '2 minutes')
  GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW groups WITH (unbounded_state = 'allow') AS
  SELECT k, sum(100 / w) AS parts, count(DISTINCT v) AS different FROM s GROUP BY k;
CREATE MATERIALIZED VIEW calm AS SELECT k, max(price) AS highest FROM s GROUP BY k EMIT EVERY INTERVAL '1 minute';
CREATE MATERIALIZED VIEW visits AS
  SELECT k, window_start, window_end, count(*) AS n FROM SESSION(s, ts, INTERVAL '15 seconds', k) GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW recent AS SELECT k, v, ts FROM s WHERE now() - INTERVAL '2 minutes' < ts;
CREATE MATERIALIZED VIEW best AS SELECT k, max(total) AS best, count(*) AS windows FROM per_minute GROUP BY k;
CREATE MATERIALIZED VIEW gate AS SELECT k, window_end, total FROM per_minute EMIT ON WINDOW CLOSE;
