//! The events of one table as records of splits, at once or as their time comes.
//!
//! A position is the number of a row in its split. Rows depend on the options alone; the speed decides only when they come.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::event::{Auction, Bid, Config, Generator, Person, Table};
use crate::{
    connector::{
        Options, Source, SourceError, SplitBounds,
        replay::{Pace, Speed, SystemWall, Wall, parse_time},
    },
    types::{Anchors, Chunk, Error, Payload, Position, RecordsBuilder, Result, SplitId},
};

/// Rows of a split in one poll: the next split comes after them.
const ROWS_AT_ONCE: usize = 8_192;
/// Splits that a source may be dealt to.
const SPLITS_MAX: u64 = 1_000;

/// Reads one table of the made-up world.
pub struct NexmarkSource {
    generator: Generator,
    table: Table,
    /// Of all tables together; `None` is without end.
    events: Option<u64>,
    splits: u64,
    /// First row that is not given yet, of the splits that are read.
    positions: BTreeMap<u64, u64>,
    /// Rows of each split that were given at some time: the ends of a world without end.
    given: BTreeMap<u64, u64>,
    speed: Speed,
    pace: Pace,
    wall: Box<dyn Wall>,
    text: String,
}

impl NexmarkSource {
    /// # Errors
    /// A wrong option.
    pub fn new(options: &Options) -> Result<Self> {
        let wrong = |name: &'static str| move |reason: String| Error::user(format!("`{name}`: {reason}"));
        let number = |name: &'static str, least: i64| match options.integer(name) {
            Some(number) if number < least => Err(Error::user(format!("`{name}` is {least} or more, not {number}"))),
            number => Ok(number.map(|number| number as u64)),
        };
        let splits = number("splits", 1)?.unwrap_or(1);
        if SPLITS_MAX < splits {
            return Err(Error::user(format!("`splits` is {SPLITS_MAX} at most, not {splits}")));
        }
        let speed: Speed = options.get("speed").unwrap_or("max").parse().map_err(wrong("speed"))?;
        Ok(Self {
            generator: Generator::new(Config {
                seed: options.integer("seed").unwrap_or(1) as u64,
                base_ns: parse_time(options.text("base_time")).map_err(wrong("base_time"))?,
                events_per_second: number("events_per_second", 1)?.unwrap_or(10_000),
                out_of_order: number("out_of_order", 1)?.unwrap_or(1),
            }),
            table: match options.text("table") {
                "person" => Table::Person,
                "auction" => Table::Auction,
                _ => Table::Bid,
            },
            events: number("events", 0)?,
            splits,
            positions: BTreeMap::new(),
            given: BTreeMap::new(),
            speed,
            pace: Pace::new(speed),
            wall: Box::new(SystemWall::default()),
            text: String::new(),
        })
    }

    /// Rows of a split up to its end, as far as there is one.
    fn end(&self, split: u64) -> u64 {
        self.events
            .map_or(u64::MAX, |events| self.table.rows(events, split, self.splits))
    }

    /// Rows of a split that are due by now.
    fn due(&self, split: u64) -> u64 {
        match self.speed {
            Speed::Max => self.end(split),
            Speed::Times(_) => {
                let arrived = self.generator.arrived(self.pace.due_until(self.wall.elapsed()));
                self.table.rows(arrived, split, self.splits).min(self.end(split))
            }
        }
    }

    /// When the next row comes, of the splits that have one.
    fn next_arrival(&self) -> Option<i64> {
        self.positions
            .iter()
            .filter(|(split, row)| **row < self.end(**split))
            .map(|(split, row)| self.generator.arrival(self.table.event(*row, *split, self.splits)))
            .min()
    }

    /// Waits until a row is due; false where none is by then.
    fn wait(&mut self, wait: Duration) -> bool {
        let deadline = self.wall.elapsed().saturating_add(wait);
        let Some(next) = self.next_arrival() else {
            return false;
        };
        self.pace.start(self.wall.elapsed(), next);
        loop {
            let elapsed = self.wall.elapsed();
            if next <= self.pace.due_until(elapsed) {
                return true;
            }
            if deadline <= elapsed {
                return false;
            }
            self.wall
                .sleep(self.pace.wait_for(elapsed, next).min(deadline - elapsed));
        }
    }

    /// Rows of one split from its position on.
    fn take(&mut self, split: u64, rows_max: usize, bytes_max: usize) -> Option<Chunk> {
        let from = self.positions[&split];
        let rows = (self.due(split).saturating_sub(from)).min(rows_max.min(ROWS_AT_ONCE) as u64);
        let mut records = RecordsBuilder::default();
        for row in from..from + rows {
            if bytes_max <= records.bytes() && !records.is_empty() {
                break;
            }
            let event = self.table.event(row, split, self.splits);
            self.text.clear();
            match self.table {
                Table::Person => write_person(&self.generator.person(event), &mut self.text),
                Table::Auction => write_auction(&self.generator.auction(event), &mut self.text),
                Table::Bid => write_bid(&self.generator.bid(event), &mut self.text),
            }
            let arrival_ms = self.generator.arrival(event).div_euclid(1_000_000);
            records.push(row, Some(arrival_ms), None, Some(self.text.as_bytes()));
        }
        let to = from + records.len() as u64;
        if from == to {
            return None;
        }
        self.positions.insert(split, to);
        let given = self.given.entry(split).or_default();
        *given = to.max(*given);
        Some(Chunk {
            split: id(split),
            from: Position(from),
            to: Position(to),
            payload: Payload::Records(records.finish()),
        })
    }
}

fn id(split: u64) -> SplitId {
    SplitId::new(&split.to_string())
}

impl Source for NexmarkSource {
    fn discover(&mut self) -> Result<Vec<SplitBounds>, SourceError> {
        let ends = self.ends();
        Ok(ends
            .into_iter()
            .map(|(split, end)| SplitBounds {
                split,
                first: Position(0),
                start: Position(0),
                end,
            })
            .collect())
    }

    /// Made up by their numbers, which are options: there is nothing to compare.
    fn recognise(&mut self, _: &Anchors) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    fn seek(&mut self, positions: &BTreeMap<SplitId, Position>) -> Result<(), SourceError> {
        self.positions.clear();
        for (split, position) in positions {
            let number = (0..self.splits).find(|number| id(*number) == *split);
            let Some(number) = number else {
                return Err(SourceError::Failed(format!(
                    "there are {} splits from 0 on, and no split {split}",
                    self.splits
                )));
            };
            if self.end(number) < position.0 {
                return Err(SourceError::Failed(format!(
                    "position {position} lies beyond the {} rows of split {split}",
                    self.end(number)
                )));
            }
            self.positions.insert(number, position.0);
        }
        self.pace.restart();
        Ok(())
    }

    fn poll(&mut self, rows_max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Chunk>, SourceError> {
        if rows_max == 0 || !self.wait(wait) {
            return Ok(Vec::new());
        }
        // Those that are behind come first, so that event time goes on in all of them alike.
        let mut splits: Vec<(u64, u64)> = self.positions.iter().map(|(split, row)| (*row, *split)).collect();
        splits.sort_unstable();
        let mut chunks = Vec::new();
        let (mut rows_left, mut bytes_left) = (rows_max, bytes_max);
        let count = splits.len();
        for (index, (_, split)) in splits.into_iter().enumerate() {
            if rows_left == 0 || bytes_left == 0 {
                break;
            }
            let share = rows_left.div_ceil(count - index);
            if let Some(chunk) = self.take(split, share, bytes_left) {
                rows_left -= chunk.payload.len();
                if let Payload::Records(records) = &chunk.payload {
                    bytes_left = bytes_left.saturating_sub(records.bytes());
                }
                chunks.push(chunk);
            }
        }
        Ok(chunks)
    }

    /// What is due by now; without end and without pace, what was read.
    fn ends(&self) -> BTreeMap<SplitId, Position> {
        let end = |split| match (self.events, self.speed) {
            (None, Speed::Max) => self.given.get(&split).copied().unwrap_or(0),
            _ => self.due(split).max(self.given.get(&split).copied().unwrap_or(0)),
        };
        (0..self.splits)
            .map(|split| (id(split), Position(end(split))))
            .collect()
    }

    fn is_finished(&self) -> bool {
        let is_read = |split: &u64| self.positions.get(split).is_some_and(|row| self.end(*split) <= *row);
        self.events.is_some() && (0..self.splits).all(|split| is_read(&split))
    }
}

fn write_person(person: &Person, out: &mut String) {
    Object::open(out)
        .number("id", person.id)
        .text("name", &person.name)
        .text("email_address", &person.email_address)
        .text("credit_card", &person.credit_card)
        .text("city", person.city)
        .text("state", person.state)
        .time("date_time", person.date_time)
        .text("extra", &person.extra)
        .close();
}

fn write_auction(auction: &Auction, out: &mut String) {
    Object::open(out)
        .number("id", auction.id)
        .text("item_name", &auction.item_name)
        .text("description", &auction.description)
        .number("initial_bid", auction.initial_bid)
        .number("reserve", auction.reserve)
        .time("date_time", auction.date_time)
        .time("expires", auction.expires)
        .number("seller", auction.seller)
        .number("category", auction.category)
        .text("extra", &auction.extra)
        .close();
}

fn write_bid(bid: &Bid, out: &mut String) {
    Object::open(out)
        .number("auction", bid.auction)
        .number("bidder", bid.bidder)
        .number("price", bid.price)
        .text("channel", &bid.channel)
        .text("url", &bid.url)
        .time("date_time", bid.date_time)
        .text("extra", &bid.extra)
        .close();
}

/// A JSON object, key by key. The texts of this world hold nothing that JSON would escape.
struct Object<'a>(&'a mut String);

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self(out)
    }

    fn key(&mut self, key: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    fn number(mut self, key: &str, value: u64) -> Self {
        self.key(key);
        write!(self.0, "{value}").expect("a text takes everything");
        self
    }

    fn text(mut self, key: &str, value: &str) -> Self {
        debug_assert!(!value.contains(['"', '\\']), "{value} needs no escape");
        self.key(key);
        self.0.push('"');
        self.0.push_str(value);
        self.0.push('"');
        self
    }

    fn time(mut self, key: &str, nanos: i64) -> Self {
        self.key(key);
        let time = chrono::DateTime::from_timestamp_nanos(nanos);
        write!(self.0, "\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.fZ")).expect("a text takes everything");
        self
    }

    fn close(self) {
        self.0.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::{super::OPTIONS, *};
    use crate::connector::conformance;

    fn source(given: &[(&str, &str)]) -> NexmarkSource {
        let given = given.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        NexmarkSource::new(&Options::resolve(OPTIONS, given)).unwrap()
    }

    fn read(source: &mut NexmarkSource) -> BTreeMap<SplitId, Vec<String>> {
        let starts = source
            .discover()
            .unwrap()
            .into_iter()
            .map(|bounds| (bounds.split, bounds.start));
        source.seek(&starts.collect()).unwrap();
        let mut texts: BTreeMap<SplitId, Vec<String>> = BTreeMap::new();
        while !source.is_finished() {
            for chunk in source.poll(1_000, usize::MAX, Duration::ZERO).unwrap() {
                texts
                    .entry(chunk.split)
                    .or_default()
                    .extend(conformance::texts(&chunk.payload));
            }
        }
        texts
    }

    #[test]
    fn every_table_keeps_the_contract_of_sources() {
        for table in ["person", "auction", "bid"] {
            for splits in ["1", "3"] {
                let options = [("table", table), ("splits", splits), ("events", "10123")];
                let expected = read(&mut source(&options));
                assert_eq!(expected.len().to_string(), splits);
                conformance::check(&mut || Box::new(source(&options)), &expected);
            }
        }
    }

    #[test]
    fn the_same_options_give_the_same_bytes_and_another_seed_does_not() {
        let first = |seed| read(&mut source(&[("events", "60"), ("seed", seed)]));
        assert_eq!(first("1"), first("1"));
        assert_ne!(first("1"), first("2"));
        // Written down: other bytes would be another benchmark.
        let generator = source(&[]).generator;
        let mut out = String::new();
        write_person(&generator.person(0), &mut out);
        insta::assert_snapshot!(out, @r#"{"id":1000,"name":"Saul Smith","email_address":"ycuby@kux.com","credit_card":"9521 6598 5117 5948","city":"Bend","state":"OR","date_time":"2015-07-15T00:00:00Z","extra":"owcemjidzjxzouqmmjufhgorfzmzislefmpbhsxcqpndfafkmwnasgbikbqlcfdhsrmosvyhlqdodylirqazdrnpqevjhpwofewamlgkokkoaasztmdybs"}"#);
        out.clear();
        write_auction(&generator.auction(1), &mut out);
        insta::assert_snapshot!(out, @r#"{"id":1000,"item_name":"avj gtladbwzwd","description":"ubqvriqnhpfivfdxpbme luugf vtywgrs qcchixgjrdkeem knftsohcye hzvhlsnhjwnsv pztrrddxswnfysmkaftw","initial_bid":314427,"reserve":10278823,"date_time":"2015-07-15T00:00:00.000300Z","expires":"2015-07-15T00:00:00.036453593Z","seller":1000,"category":12,"extra":"hskimnfghahnheywklppifmpmhoqwpoudsirwlqtvtyjvkymbeisgqumhpklhstcymgdswgzegsbvniborlggnkaznzswefqlnyfikfmfrmjlbehqfvjtabrhpikrdbpafirrsobgyvaicjsdfhtssbjucujyyqydosbgpnebqhkbfhezxynpvffwqwjtrasneftphuqsdttbwbgiwjxjkystqhrurehdulbbgyrjiuhsmwurjcijjekxhubqvmzwweukdavxlzxefuduyzjshaoencklkfmxxmwjnuspalolxivvvqzpztnikefrsqnqdwvamdgmmbkuclns"}"#);
        out.clear();
        write_bid(&generator.bid(4), &mut out);
        insta::assert_snapshot!(out, @r#"{"auction":1002,"bidder":1001,"price":8426,"channel":"channel-968","url":"https://www.nexmark.com/vqq/zwse/tbdz/item.htm?query=1&channel_id=331350016","date_time":"2015-07-15T00:00:00.000200Z","extra":"miaaezvjoccvasludgxhyqxxhkhoagmaotohywqsgutbddvfdfljxloyrb"}"#);
    }

    #[test]
    fn splits_hold_the_rows_of_one_split_dealt_anew() {
        let rows = |splits| {
            let mut rows: Vec<String> = read(&mut source(&[("events", "1000"), ("splits", splits)]))
                .into_values()
                .flatten()
                .collect();
            rows.sort();
            rows
        };
        assert_eq!(rows("1").len(), 920, "46 of 50 events are bids");
        assert_eq!(rows("1"), rows("4"));
    }

    #[test]
    fn without_end_it_goes_on_and_its_end_is_what_was_read() {
        let mut source = source(&[]);
        assert_eq!(source.discover().unwrap()[0].end, Position(0));
        source.seek(&BTreeMap::from([(id(0), Position(1_000_000))])).unwrap();
        let chunks = source.poll(10, usize::MAX, Duration::ZERO).unwrap();
        assert_eq!(
            (chunks[0].from, chunks[0].to),
            (Position(1_000_000), Position(1_000_010))
        );
        assert_eq!(source.ends()[&id(0)], Position(1_000_010));
        assert!(!source.is_finished());
    }

    #[test]
    fn with_a_speed_rows_come_when_their_time_comes() {
        #[derive(Clone, Default)]
        struct Still(std::sync::Arc<std::sync::Mutex<Duration>>);
        impl Wall for Still {
            fn elapsed(&self) -> Duration {
                *self.0.lock().unwrap()
            }
            fn sleep(&self, duration: Duration) {
                *self.0.lock().unwrap() += duration;
            }
        }
        let mut source = source(&[("speed", "2x"), ("events_per_second", "50"), ("events", "500")]);
        let wall = Still::default();
        source.wall = Box::new(wall.clone());
        source.seek(&BTreeMap::from([(id(0), Position(0))])).unwrap();
        let poll = |source: &mut NexmarkSource| -> usize {
            let chunks = source.poll(1_000, usize::MAX, Duration::ZERO).unwrap();
            chunks.iter().map(|chunk| chunk.payload.len()).sum()
        };
        assert_eq!(poll(&mut source), 1, "the first bid is there at once");
        assert_eq!(poll(&mut source), 0, "the next one is not");
        wall.sleep(Duration::from_secs(1));
        assert_eq!(poll(&mut source), 92, "two rounds in a second: up to event 104");
        assert!(!source.is_finished());
        wall.sleep(Duration::from_secs(10));
        assert_eq!(poll(&mut source), 460 - 93);
        assert!(source.is_finished());
    }

    #[test]
    fn a_wrong_option_is_told() {
        for (name, value, expected) in [
            ("events", "-1", "`events` is 0 or more, not -1"),
            ("splits", "0", "`splits` is 1 or more, not 0"),
            ("splits", "1001", "`splits` is 1000 at most, not 1001"),
            ("events_per_second", "0", "`events_per_second` is 1 or more, not 0"),
            (
                "speed",
                "fast",
                "`speed`: 'fast' is not a speed: expected a factor such as '60x' or '0.5x', or 'max'",
            ),
        ] {
            let options = Options::resolve(OPTIONS, [(name.to_owned(), value.to_owned())]);
            let Err(error) = NexmarkSource::new(&options) else {
                panic!("{name} = {value} is taken");
            };
            assert_eq!(error.to_string(), expected);
        }
    }
}
