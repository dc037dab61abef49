-- q22, directories of an address: its first three folders.
--
-- `split_part` counts from 1, the original's `split_index` from 0.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE MATERIALIZED VIEW q22 AS
SELECT auction, bidder, price, channel,
       split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid;
