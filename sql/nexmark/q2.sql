-- q2, selection: bids on some of the auctions.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE MATERIALIZED VIEW q2 AS
SELECT auction, price FROM bid WHERE auction % 123 = 0;
