-- q11, user sessions: how many bids each bidder made without a pause of ten seconds.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE MATERIALIZED VIEW q11 AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM SESSION(bid, date_time, INTERVAL '10 seconds', bidder)
GROUP BY bidder, window_start, window_end
EMIT ON WINDOW CLOSE;
