-- q7, highest bid: of each ten seconds, the highest price and the bid that had it.
--
-- The original joins the highest price back to the bids, and so shows all that are equal to it. Here `last_value` takes the bid along,
-- the latest of equal ones, and no join is needed.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE MATERIALIZED VIEW q7 AS
SELECT window_start, window_end, max(price) AS price,
       last_value(auction ORDER BY price, date_time) AS auction,
       last_value(bidder ORDER BY price, date_time) AS bidder,
       last_value(date_time ORDER BY price, date_time) AS date_time,
       last_value(extra ORDER BY price, date_time) AS extra
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end
EMIT ON WINDOW CLOSE;
