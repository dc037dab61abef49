-- q12, processing time windows: how many bids of each bidder arrived within ten seconds.
--
-- The original cuts by the clock of the machine, and gives other rows each time. Here the windows are over the time at which the
-- record came to the source, which is data: reading it again gives the same rows. Records arrive in the order of that time.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR arrived_at
) INCLUDE timestamp AS arrived_at
  WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE MATERIALIZED VIEW q12 AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, arrived_at, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
EMIT ON WINDOW CLOSE;
