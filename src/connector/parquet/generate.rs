//! Made-up history: one Parquet file of 1-minute candles per trading pair, as Binance's full history has them.
//!
//! ```text
//! (seed, pair) ─▶ ChaCha8 ─▶ log price: a walk with slowly changing volatility ─▶ open, high, low, close
//!                                              └─ |return|, time of day ─▶ volume ─▶ trades, taker's share
//! ```
//! The same arguments give the same bytes. A pair's candles depend on the seed, its name and the start alone: more
//! pairs or more days leave them as they are.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, TimestampNanosecondArray, UInt16Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::types::{Error, Result};

const MINUTE_NS: i64 = 60_000_000_000;
const MINUTES_PER_DAY: i64 = 1_440;
const ROW_GROUP_ROWS: usize = 65_536;
const BATCH_ROWS: usize = 8_192;

/// Pairs that exist, with about the price they had at the beginning of 2024 and the US dollars traded per day.
const KNOWN_PAIRS: &[(&str, f64, f64)] = &[
    ("BTC-USDT", 42_283.58, 1.6e9),
    ("ETH-USDT", 2_281.87, 7.5e8),
    ("ADA-USDT", 0.5938, 1.1e8),
    ("BNB-USDT", 312.4, 2.4e8),
    ("SOL-USDT", 101.72, 6.5e8),
    ("XRP-USDT", 0.6152, 1.6e8),
    ("DOGE-USDT", 0.0895, 7.0e7),
    ("AVAX-USDT", 38.54, 1.6e8),
    ("LINK-USDT", 14.93, 8.0e7),
    ("MATIC-USDT", 0.9699, 1.2e8),
    ("DOT-USDT", 8.192, 5.5e7),
    ("LTC-USDT", 72.83, 5.0e7),
    ("TRX-USDT", 0.1074, 3.5e7),
    ("ATOM-USDT", 10.58, 3.0e7),
    ("UNI-USDT", 7.35, 2.2e7),
    ("ETC-USDT", 21.83, 3.0e7),
    ("FIL-USDT", 6.93, 4.2e7),
    ("NEAR-USDT", 3.65, 5.5e7),
    ("APT-USDT", 9.35, 4.0e7),
    ("ARB-USDT", 1.585, 9.0e7),
    ("OP-USDT", 3.727, 8.0e7),
    ("INJ-USDT", 36.9, 7.0e7),
    ("XLM-USDT", 0.1292, 1.3e7),
    ("VET-USDT", 0.0346, 1.2e7),
    ("ICP-USDT", 12.9, 4.5e7),
    ("HBAR-USDT", 0.0866, 1.5e7),
    ("ALGO-USDT", 0.2205, 1.5e7),
    ("AAVE-USDT", 108.7, 1.8e7),
    ("EGLD-USDT", 67.3, 1.0e7),
    ("SAND-USDT", 0.5937, 1.6e7),
    ("MANA-USDT", 0.5351, 1.2e7),
    ("AXS-USDT", 8.83, 1.2e7),
    ("THETA-USDT", 1.256, 9.0e6),
    ("FTM-USDT", 0.4899, 2.2e7),
    ("GRT-USDT", 0.1858, 1.4e7),
    ("RUNE-USDT", 5.129, 3.0e7),
    ("SHIB-USDT", 0.00001033, 4.0e7),
    ("CHZ-USDT", 0.0872, 7.0e6),
    ("CRV-USDT", 0.6208, 1.0e7),
    ("DYDX-USDT", 2.959, 1.6e7),
    ("ETH-BTC", 0.05396, 1.4e8),
    ("BNB-BTC", 0.007389, 3.0e7),
    ("ADA-BTC", 0.00001404, 5.0e6),
    ("SOL-BTC", 0.002406, 2.0e7),
    ("XRP-BTC", 0.00001455, 6.0e6),
    ("LINK-BTC", 0.0003531, 3.0e6),
    ("LTC-BTC", 0.001722, 3.0e6),
    ("DOT-BTC", 0.0001937, 2.0e6),
    ("ADA-ETH", 0.0002602, 1.0e6),
    ("SOL-ETH", 0.04458, 2.0e6),
];

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    pub pairs: usize,
    /// Nanoseconds since 1970; candles open every minute in `[start_ns, end_ns)`.
    pub start_ns: i64,
    pub end_ns: i64,
    pub seed: u64,
}

impl History {
    pub fn minutes(&self) -> u64 {
        u64::try_from((self.end_ns - self.start_ns).max(0) / MINUTE_NS).unwrap_or(0)
    }
}

/// The name of pair `index`, counted from 0: pairs that exist first, then made-up ones.
pub fn pair_name(index: usize) -> String {
    match KNOWN_PAIRS.get(index) {
        Some((name, ..)) => (*name).to_owned(),
        None => format!("COIN{:03}-USDT", index + 1),
    }
}

/// Open, high, low and close in the quote asset, volumes in the asset that their name says, `open_time` last.
pub fn candle_schema() -> SchemaRef {
    let float = |name| Field::new(name, DataType::Float32, true);
    Arc::new(Schema::new(vec![
        float("open"),
        float("high"),
        float("low"),
        float("close"),
        float("volume"),
        float("quote_asset_volume"),
        Field::new("number_of_trades", DataType::UInt16, true),
        float("taker_buy_base_asset_volume"),
        float("taker_buy_quote_asset_volume"),
        Field::new("open_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]))
}

/// Writes one file per pair into `directory`, which is made where it does not exist; calls `on_rows` with the rows
/// written since the last call. A file has its name only when it is complete.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn generate(history: &History, directory: &Path, on_rows: impl FnMut(u64) + Send) -> Result<()> {
    std::fs::create_dir_all(directory)
        .map_err(|cause| Error::caused(format!("cannot make the directory {}", directory.display()), cause))?;
    let next_pair = AtomicUsize::new(0);
    let on_rows = Mutex::new(on_rows);
    let write_pairs = || -> Result<()> {
        loop {
            let pair = next_pair.fetch_add(1, Ordering::Relaxed);
            if history.pairs <= pair {
                return Ok(());
            }
            let outcome = write_pair(history, &pair_name(pair), directory, &on_rows);
            if outcome.is_err() {
                // The others need not go on.
                next_pair.store(history.pairs, Ordering::Relaxed);
                return outcome;
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(history.pairs);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(write_pairs)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| Error::bug("a writer of candles panicked"))?)
    })
}

fn write_pair(history: &History, pair: &str, directory: &Path, on_rows: &Mutex<impl FnMut(u64)>) -> Result<()> {
    let path = directory.join(format!("{pair}.parquet"));
    let part = directory.join(format!("{pair}.parquet.part"));
    let failed =
        |cause: parquet::errors::ParquetError| Error::caused(format!("cannot write {}", part.display()), cause);
    let file = File::create(&part).map_err(|cause| Error::caused(format!("cannot write {}", part.display()), cause))?;
    let time = || ColumnPath::from("open_time");
    let trades = || ColumnPath::from("number_of_trades");
    let properties = WriterProperties::builder()
        .set_created_by("zeta generate".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level that zstd has")))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        // Prices hardly repeat; the time of a minute is the last one plus a minute.
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled(trades(), true)
        .set_column_encoding(time(), Encoding::DELTA_BINARY_PACKED)
        .build();
    let mut writer = ArrowWriter::try_new(file, candle_schema(), Some(properties)).map_err(failed)?;
    let mut candles = Candles::new(pair, history.seed, history.start_ns);
    let mut rows_left = history.minutes();
    while 0 < rows_left {
        let rows = rows_left.min(BATCH_ROWS as u64);
        writer.write(&candles.next_rows(rows as usize)).map_err(failed)?;
        rows_left -= rows;
        (on_rows.lock().expect("nobody panics while reporting"))(rows);
    }
    writer.close().map_err(failed)?;
    std::fs::rename(&part, &path).map_err(|cause| Error::caused(format!("cannot write {}", path.display()), cause))
}

/// The candles of one pair, minute after minute.
struct Candles {
    random: ChaCha8Rng,
    open_time: i64,
    /// The close of the last candle, exactly as it was written.
    close: f32,
    /// Standard deviation of the log return of a minute, in the long run.
    volatility: f64,
    /// Log of the present volatility over that, an autoregressive walk around 0.
    log_excitement: f64,
    /// Quote asset traded in a minute, in the long run.
    quote_per_minute: f64,
    /// Quote asset of a trade, in the long run.
    quote_per_trade: f64,
}

impl Candles {
    fn new(pair: &str, seed: u64, start_ns: i64) -> Self {
        let mut random = ChaCha8Rng::from_seed(pair_seed(pair, seed));
        let normal = |random: &mut ChaCha8Rng| random.sample::<f64, _>(StandardNormal);
        let known = KNOWN_PAIRS.iter().find(|(name, ..)| *name == pair);
        // Drawn for every pair, so that a pair's walk does not depend on whether it is known.
        let (price_draw, turnover_draw, volatility_draw) =
            (normal(&mut random), normal(&mut random), normal(&mut random));
        let price = known.map_or_else(|| (-1.0 + 2.0 * price_draw).exp(), |(_, price, _)| *price);
        let usd_per_day = known.map_or_else(|| (15.0 + turnover_draw).exp(), |(_, _, turnover)| *turnover);
        // Binance's large pairs move 2 to 3 % a day, its small ones 5 to 8 %.
        let daily = 0.025 * (1e9 / usd_per_day).powf(0.15) * (0.1 * volatility_draw).exp();
        let usd_per_quote = match pair.rsplit('-').next() {
            Some("BTC") => 42_283.58,
            Some("ETH") => 2_281.87,
            _ => 1.0,
        };
        Self {
            random,
            open_time: start_ns,
            close: price as f32,
            volatility: daily / (MINUTES_PER_DAY as f64).sqrt(),
            log_excitement: 0.0,
            quote_per_minute: usd_per_day / MINUTES_PER_DAY as f64 / usd_per_quote,
            quote_per_trade: (150.0 * (usd_per_day / 1e7).powf(0.3)) / usd_per_quote,
        }
    }

    fn normal(&mut self) -> f64 {
        self.random.sample(StandardNormal)
    }

    fn next_rows(&mut self, rows: usize) -> RecordBatch {
        const PRICE_MIN: f64 = 1e-9;
        const PRICE_MAX: f64 = 1e9;
        let mut floats: [Vec<f32>; 8] = std::array::from_fn(|_| Vec::with_capacity(rows));
        let mut trades = Vec::with_capacity(rows);
        let mut times = Vec::with_capacity(rows);
        for _ in 0..rows {
            self.log_excitement = 0.97 * self.log_excitement + 0.1 * self.normal();
            let season = day_season(self.open_time);
            let volatility = self.volatility * self.log_excitement.exp() * season.sqrt();
            let surprise = self.normal();

            let open = f64::from(self.close);
            let log_return = volatility * surprise - volatility * volatility / 2.0;
            let close = (open * log_return.exp()).clamp(PRICE_MIN, PRICE_MAX);
            // How far the minute went beyond its two ends.
            let (above, below) = (
                self.normal().abs() * volatility / 2.0,
                self.normal().abs() * volatility / 2.0,
            );
            let high = open.max(close) * above.exp();
            let low = open.min(close) * (-below).exp();

            // A minute that moves is a minute that trades.
            let activity =
                season * (0.6 * self.normal() - 0.18 + 0.5 * (surprise.abs() - 0.8)).exp() * self.log_excitement.exp();
            let quote_volume = self.quote_per_minute * activity;
            let volume = quote_volume / ((high + low + close) / 3.0);
            let trade_count = quote_volume / (self.quote_per_trade * (0.3 * self.normal()).exp());
            let taker_share = (0.5 + 0.12 * surprise.tanh() + 0.08 * self.normal()).clamp(0.02, 0.98);

            let (open, close) = (self.close, close as f32);
            // Rounding to floats is monotonic, so high and low stay where they are, up to equality.
            let values = [
                open,
                (high as f32).max(open).max(close),
                (low as f32).min(open).min(close),
                close,
                volume as f32,
                quote_volume as f32,
                (volume * taker_share) as f32,
                (quote_volume * taker_share) as f32,
            ];
            floats
                .iter_mut()
                .zip(values)
                .for_each(|(column, value)| column.push(value));
            trades.push(trade_count.round().clamp(1.0, f64::from(u16::MAX)) as u16);
            times.push(self.open_time);
            self.close = close;
            self.open_time += MINUTE_NS;
        }
        let [
            open,
            high,
            low,
            close,
            volume,
            quote_volume,
            taker_volume,
            taker_quote_volume,
        ] = floats.map(|values| Arc::new(Float32Array::from(values)) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            open,
            high,
            low,
            close,
            volume,
            quote_volume,
            Arc::new(UInt16Array::from(trades)),
            taker_volume,
            taker_quote_volume,
            Arc::new(TimestampNanosecondArray::from(times)),
        ];
        RecordBatch::try_new(candle_schema(), columns).expect("columns of the candle schema")
    }
}

/// How much is traded at this time of day, 1 on average: most in the European and American afternoon.
fn day_season(time_ns: i64) -> f64 {
    let day = time_ns.rem_euclid(MINUTES_PER_DAY * MINUTE_NS) as f64 / (MINUTES_PER_DAY * MINUTE_NS) as f64;
    let turn = std::f64::consts::TAU * (day - 15.0 / 24.0);
    1.0 + 0.4 * turn.cos() + 0.1 * (2.0 * turn).cos()
}

/// The seed in the first 8 bytes, the pair folded into the others: no pair shares its random numbers with another.
fn pair_seed(pair: &str, seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    for (place, byte) in pair.bytes().enumerate() {
        let folded = &mut bytes[8 + place % 24];
        *folded = folded.rotate_left(3) ^ byte;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::{array::AsArray, compute::concat_batches, datatypes::Float32Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    const START_NS: i64 = 1_704_067_200_000_000_000;

    fn history(pairs: usize, minutes: i64) -> History {
        History {
            pairs,
            start_ns: START_NS,
            end_ns: START_NS + minutes * MINUTE_NS,
            seed: 7,
        }
    }

    fn files(history: &History) -> BTreeMap<String, Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let mut rows = 0;
        generate(history, &directory.path().join("made"), |written| rows += written).unwrap();
        assert_eq!(rows, history.pairs as u64 * history.minutes());
        let entries = std::fs::read_dir(directory.path().join("made"))
            .unwrap()
            .map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                (
                    entry.file_name().into_string().unwrap(),
                    std::fs::read(entry.path()).unwrap(),
                )
            })
            .collect()
    }

    fn rows(file: &[u8]) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(file))
            .unwrap()
            .build()
            .unwrap();
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
        concat_batches(&candle_schema(), &batches).unwrap()
    }

    #[test]
    fn the_same_arguments_give_the_same_bytes() {
        let first = files(&history(5, 10_000));
        assert_eq!(first, files(&history(5, 10_000)));
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            [
                "ADA-USDT.parquet",
                "BNB-USDT.parquet",
                "BTC-USDT.parquet",
                "ETH-USDT.parquet",
                "SOL-USDT.parquet"
            ]
        );
        assert_ne!(
            first,
            files(&History {
                seed: 8,
                ..history(5, 10_000)
            })
        );
    }

    #[test]
    fn more_pairs_and_more_days_leave_a_pair_as_it_was() {
        let (few, many) = (files(&history(1, 9_000)), files(&history(4, 9_000)));
        assert_eq!(few["BTC-USDT.parquet"], many["BTC-USDT.parquet"]);
        let (short, long) = (
            rows(&files(&history(1, 9_000))["BTC-USDT.parquet"]),
            rows(&files(&history(1, 10_000))["BTC-USDT.parquet"]),
        );
        assert_eq!(short, long.slice(0, 9_000));
    }

    #[test]
    fn candles_are_consistent() {
        for (name, file) in files(&history(60, 20_000)) {
            let rows = rows(&file);
            let column = |name: &str| {
                rows.column_by_name(name)
                    .unwrap()
                    .as_primitive::<Float32Type>()
                    .values()
                    .to_vec()
            };
            let (open, high, low, close) = (column("open"), column("high"), column("low"), column("close"));
            for row in 0..rows.num_rows() {
                assert!(0.0 < low[row] && low[row] <= open[row].min(close[row]), "{name} {row}");
                assert!(
                    open[row].max(close[row]) <= high[row] && high[row].is_finite(),
                    "{name} {row}"
                );
                assert!(row == 0 || open[row] == close[row - 1], "{name} {row}");
            }
            for (part, whole) in [
                ("taker_buy_base_asset_volume", "volume"),
                ("taker_buy_quote_asset_volume", "quote_asset_volume"),
            ] {
                assert!(
                    column(part)
                        .iter()
                        .zip(column(whole))
                        .all(|(part, whole)| 0.0 < *part && *part < whole),
                    "{name} {part}"
                );
            }
            let times = rows
                .column(9)
                .as_primitive::<arrow::datatypes::TimestampNanosecondType>()
                .values();
            assert!(
                times
                    .iter()
                    .enumerate()
                    .all(|(row, time)| *time == START_NS + row as i64 * MINUTE_NS),
                "{name}"
            );
            assert_eq!(rows.column(6).null_count(), 0);
        }
    }

    #[test]
    fn volume_follows_the_size_of_the_move() {
        let rows = rows(&files(&history(1, 20_000))["BTC-USDT.parquet"]);
        let column = |place: usize| rows.column(place).as_primitive::<Float32Type>().values().to_vec();
        let (open, close, volume) = (column(0), column(3), column(4));
        let moves: Vec<f64> = open
            .iter()
            .zip(close)
            .map(|(open, close)| f64::from(close / open).ln().abs())
            .collect();
        let volumes: Vec<f64> = volume.iter().map(|volume| f64::from(*volume).ln()).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (m, v) = (mean(&moves), mean(&volumes));
        let covariance = moves.iter().zip(&volumes).map(|(a, b)| (a - m) * (b - v)).sum::<f64>();
        let spread = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        assert!(0.2 < covariance / (spread(&moves, m) * spread(&volumes, v)).sqrt());
        let daily = (spread(&moves, 0.0) / moves.len() as f64 * 1_440.0).sqrt();
        assert!((0.01..0.1).contains(&daily), "a day moves by {daily}");
    }

    #[test]
    fn a_thousand_pairs_have_a_thousand_names_and_seeds() {
        let names: std::collections::BTreeSet<String> = (0..1_500).map(pair_name).collect();
        assert_eq!(names.len(), 1_500);
        let seeds: std::collections::BTreeSet<[u8; 32]> = names.iter().map(|name| pair_seed(name, 7)).collect();
        assert_eq!(seeds.len(), 1_500);
    }
}
