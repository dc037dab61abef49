-- q21, channel id: a number for the known channels, and for the others that which their address holds, if it does.
--
-- `regexp_match(…)[2]` is what the original calls `regexp_extract(…, 2)`.

CREATE SOURCE bid (
  auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR, url VARCHAR,
  date_time TIMESTAMP NOT NULL, extra VARCHAR,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) WITH (connector = 'nexmark', table = 'bid', events = '${EVENTS:-1000000}',
        events_per_second = '${EVENTS_PER_SECOND:-10000}', base_time = '${BASE_TIME:-2015-07-15T00:00:00Z}');

CREATE FUNCTION channel_id(channel VARCHAR, url VARCHAR) RETURNS VARCHAR AS
CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
     ELSE regexp_match(url, '(&|^)channel_id=([^&]*)')[2] END;

CREATE MATERIALIZED VIEW q21 AS
SELECT auction, bidder, price, channel, channel_id(channel, url) AS channel_id
FROM bid WHERE channel_id(channel, url) IS NOT NULL;
