//! Every bound has a name here.

use std::time::Duration;

/// Rows that one epoch takes at most; more wait for the next.
pub const EPOCH_ROWS_MAX: usize = 262_144;
/// Bytes of decoded rows, as they lie in memory, after which an epoch takes no more; the chunk that reaches them is its last.
pub const EPOCH_BYTES_MAX: usize = 128 << 20;
/// Rows handed to operators at once, cut by position so that a replay cuts alike.
pub const CHUNK_ROWS: usize = 32_768;
/// Windows that one row may be in: it stands once for each where windows are not aggregated.
pub const WINDOWS_PER_ROW_MAX: i64 = 10_000;
/// Grouping sets of one GROUP BY: a row stands once for each.
pub const GROUPING_SETS_MAX: usize = 4_096;
/// Parts that a window is made of, as it shares them with others.
pub const PANES_PER_WINDOW_MAX: i64 = 100_000;
/// Rows read ahead of the running epoch, over all splits of a source.
pub const READ_AHEAD_ROWS: usize = 524_288;
/// Bytes of decoded rows read ahead of the running epoch, over all splits of a source.
pub const READ_AHEAD_BYTES: usize = 256 << 20;
/// How long the default trigger gathers rows at most.
pub const EPOCH_INTERVAL_DEFAULT: Duration = Duration::from_millis(100);
/// How often time alone starts an epoch, at most.
pub const TIMER_INTERVAL: Duration = Duration::from_millis(100);
/// A split that is caught up and silent for this long does not hold the watermark back, unless the source says otherwise.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How often a source looks for splits that were added.
pub const NEW_SPLITS_INTERVAL: Duration = Duration::from_secs(8);
/// How long brokers that were asked for rows may be silent before their source is shown as unreachable.
pub const BROKER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often rows that came damaged are read before their source fails: they are damaged where they lie.
pub const DAMAGED_READS_MAX: u32 = 50;
/// A live row whose event time is further ahead of the epoch's time is a bad record.
pub const FUTURE_EVENT_TIME_MAX: Duration = Duration::from_secs(3600);

/// The largest record that is decoded; a larger one is a bad record.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// How much of a bad record is kept.
pub const BAD_RECORD_BYTES_KEPT: usize = 256;
/// How deep JSON may nest.
pub const JSON_DEPTH_MAX: usize = 128;
/// Rows that `<source>$bad`, `<view>$late` and `<view>$errors` keep each; older ones make room and are counted.
pub const SIDE_ROWS_MAX: usize = 100_000;

/// Rows that a view holds in memory; one that would hold more stops its source, since no row goes unseen.
pub const VIEW_ROWS_MAX: usize = 20_000_000;
/// Memory that one operator of a view may hold; one that holds more stops its source, and other sources go on.
pub const OPERATOR_STATE_BYTES_MAX: usize = 4 << 30;
/// After so many rows, or epochs, the state of operators is measured again at the latest.
pub const MEASURE_ROWS: u64 = 262_144;
pub const MEASURE_EPOCHS: u64 = 64;
/// Changes that a view keeps for subscribers that resume.
pub const CHANGES_KEPT_MAX: usize = 1_024;
/// Rows over all changes that a view keeps for subscribers that resume.
pub const CHANGE_ROWS_KEPT_MAX: usize = 1_000_000;

/// Journal bytes after which a checkpoint is taken.
pub const CHECKPOINT_JOURNAL_BYTES: u64 = 16 << 20;
/// How often a checkpoint is taken while epochs run.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// Rows after which a checkpoint is taken: the most that a restart has to read again.
pub const CHECKPOINT_ROWS: u64 = 20_000_000;
/// Checkpoints kept.
pub const CHECKPOINTS_KEPT: usize = 3;

/// Epochs, and bytes of their rows, that wait to be published by a sink; beyond them no epoch starts.
pub const SINK_EPOCHS_STAGED_MAX: usize = 256;
pub const SINK_BYTES_STAGED_MAX: usize = 256 << 20;
/// Rows that a sink publishes as one, unless a single epoch has more.
pub const SINK_TRANSACTION_ROWS: usize = 262_144;
/// How long a stop waits until sinks have published what they have.
pub const SINK_DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a sink that was fenced waits until it looks who did: a writer that starts says so after it fenced.
pub const SINK_CLAIM_WAIT: Duration = Duration::from_secs(2);
/// How long a stop waits then for a sink that is in the middle of something.
pub const SINK_END_MAX: Duration = Duration::from_secs(1);
/// How long one call of a store of files may take before it is given up, and the bytes per second that a write may count on beyond that.
pub const STORE_CALL_MAX: Duration = Duration::from_secs(20);
pub const STORE_BYTES_PER_SECOND_MIN: u64 = 4 << 20;
/// How long a whole file may be read of which each piece came in time.
pub const STORE_READ_MAX: Duration = Duration::from_secs(3600);
/// Calls of a remote store that run beside each other, and what they may hold of files that are written so.
pub const STORE_CALLS_AT_ONCE: usize = 16;
pub const STORE_FILES_AT_ONCE: usize = 64;
pub const STORE_BYTES_AT_ONCE: usize = 64 << 20;
/// Partitions that one publishing writes to: each has a file of its own.
pub const SINK_PARTITIONS_MAX: usize = 1_000;
/// The longest value of a column that a sink partitions by, escaped: file systems take names of 255 bytes.
pub const PARTITION_VALUE_BYTES_MAX: usize = 180;
/// After so many records the log of a sink of files gets one that holds what all before it say, and they go.
pub const SINK_LOG_RECORDS: u64 = 64;
/// Files that the log of a sink names one by one, the newest ones; of older ones it has the totals.
pub const SINK_FILES_NAMED_MAX: usize = 100_000;
/// Small files of one partition and about one size after which they are merged.
pub const SINK_FILES_MERGED: usize = 16;

/// How often a source that fails begins again from its last commit, and after how many epochs failures before are forgotten.
pub const RESTARTS_MAX: u32 = 3;
pub const RESTART_EPOCHS: u64 = 100;

/// The longest SQL text taken over HTTP.
pub const SQL_BYTES_MAX: usize = 64 << 10;
/// Tokens of one ad-hoc statement.
pub const SQL_TOKENS_MAX: usize = 10_000;
/// Operators chained in one expression: planning time grows with their square.
pub const SQL_OPERATORS_MAX: usize = 300;
/// What a query is made of once its views and functions are unfolded: planning takes as long as they are many.
pub const PLAN_PARTS_MAX: usize = 10_000;
/// Parentheses inside each other.
pub const SQL_NESTING_MAX: usize = 50;
/// Mistakes that are reported for one text; more are not read by anyone.
pub const DIAGNOSTICS_MAX: usize = 100;
/// How long an ad-hoc query may run.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a view that is added or dropped waits for its source, e.g. one that does not answer yet.
pub const VIEW_CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a statement waits until what was written to a table or source is in its views.
pub const WRITE_VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest name of a folder that is made for a source or table.
pub const FOLDER_NAME_BYTES_MAX: usize = 200;
/// Memory that ad-hoc queries share.
pub const QUERY_MEMORY_BYTES: usize = 512 << 20;
/// Ad-hoc queries that run at once; others wait, then are refused.
pub const QUERIES_AT_ONCE: usize = 4;
/// Ad-hoc queries that wait.
pub const QUERIES_WAITING: usize = 100;
/// Rows of a JSON answer without a limit of its own.
pub const JSON_ROWS_DEFAULT: usize = 10_000;
/// Rows of one page of a view, by default and at most.
pub const PAGE_ROWS_DEFAULT: usize = 500;
pub const PAGE_ROWS_MAX: usize = 20_000;

/// The longest request body.
pub const HTTP_BODY_BYTES_MAX: usize = 1 << 20;
/// How much of a body that is too long is read and thrown away, so that its sender hears why.
pub const HTTP_BODY_BYTES_DISCARDED_MAX: usize = 8 << 20;
/// Requests served at once.
pub const HTTP_CONNECTIONS_MAX: usize = 4_096;
/// WebSocket connections, subscriptions on each, and bytes of a message from a client.
pub const SOCKETS_MAX: usize = 10_000;
pub const SUBSCRIPTIONS_PER_SOCKET_MAX: usize = 1_024;
pub const SOCKET_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long a socket that takes nothing is kept.
pub const SOCKET_STALL_MAX: Duration = Duration::from_secs(30);

/// The longest head of a request: its line, with the query, and its headers.
pub const HTTP_HEAD_BYTES_MAX: usize = 128 << 10;
/// How long a client may take to send a head, and to stay silent between two requests.
pub const HTTP_HEAD_READ_MAX: Duration = Duration::from_secs(15);
/// How long a client may take to send a body.
pub const HTTP_BODY_READ_MAX: Duration = Duration::from_secs(10);
/// How long answers and sockets may go on after the shutdown began.
pub const HTTP_DRAIN_MAX: Duration = Duration::from_secs(5);
/// Bytes of rows in one JSON answer; a longer one is cut and says so. Streamed formats have no such bound.
pub const JSON_BYTES_MAX: usize = 64 << 20;
/// Values that one column of a filter may be compared with.
pub const FILTER_VALUES_MAX: usize = 1_024;

/// Rows in each message of a snapshot.
pub const SNAPSHOT_MESSAGE_ROWS: usize = 1_000;
/// Rows of the largest delta; beyond it a subscriber gets a snapshot instead.
pub const SOCKET_DELTA_ROWS_MAX: usize = 2 * EPOCH_ROWS_MAX;
/// How often a subscriber without changed rows hears how far its view has come, at most.
pub const SOCKET_PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// How often the server asks whether a socket is alive, and how long it waits for any word.
pub const SOCKET_PING_INTERVAL: Duration = Duration::from_secs(20);
pub const SOCKET_SILENCE_MAX: Duration = Duration::from_secs(60);
/// When a client should come back after a shutdown.
pub const SOCKET_RECONNECT_AFTER: Duration = Duration::from_millis(1_500);
/// Deltas kept encoded for the next subscriber with the same filter, and bytes of the largest such.
pub const SHARED_DELTAS: usize = 256;
pub const SHARED_DELTA_BYTES_MAX: usize = 256 << 10;
/// The longest name that a client may give a subscription.
pub const SUBSCRIPTION_ID_BYTES_MAX: usize = 128;
