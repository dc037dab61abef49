//! The events: which kind an event number is, whom it is about, and when it happened.
//!
//! ```text
//! number   0      1 2 3    4 … 49 | 50     51 52 53 54 … 99 | …
//!          person auctions bids   | person auctions    bids | …
//! time     base + number / events per second, mixed inside groups of `out_of_order`
//! ```
//! Half of the bids are on one hot auction, three quarters by one hot bidder; who is hot changes as ids go on.

use std::fmt::Write;

use super::text::Random;

/// Events in a round: one person, three auctions, forty-six bids.
const ROUND: u64 = 50;
const PEOPLE: u64 = 1;
const AUCTIONS: u64 = 3;
const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// The last so many people are active, and some that are not there yet.
const ACTIVE_PEOPLE: u64 = 1_000;
const PEOPLE_AHEAD: u64 = 10;
/// The last so many auctions are open, and some that are not there yet.
const OPEN_AUCTIONS: u64 = 100;
const AUCTIONS_AHEAD: u64 = 10;
/// One id of so many is hot.
const HOT_STEP: u64 = 100;
const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Average bytes of an event.
const PERSON_BYTES: u64 = 200;
const AUCTION_BYTES: u64 = 500;
const BID_BYTES: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Person,
    Auction,
    Bid,
}

impl Table {
    /// The first of its events in a round, and how many there are.
    fn place(self) -> (u64, u64) {
        match self {
            Self::Person => (0, PEOPLE),
            Self::Auction => (PEOPLE, AUCTIONS),
            Self::Bid => (PEOPLE + AUCTIONS, ROUND - PEOPLE - AUCTIONS),
        }
    }

    /// The number of the event that is row `row` of split `split`: rounds are dealt to the splits in turn.
    pub fn event(self, row: u64, split: u64, splits: u64) -> u64 {
        let (first, count) = self.place();
        let round = row / count * splits + split;
        round * ROUND + first + row % count
    }

    /// How many of the first `events` events are rows of this split.
    pub fn rows(self, events: u64, split: u64, splits: u64) -> u64 {
        let (first, count) = self.place();
        let rounds = events / ROUND;
        let whole = rounds / splits + u64::from(split < rounds % splits);
        let begun = match rounds % splits == split {
            true => (events % ROUND).saturating_sub(first).min(count),
            false => 0,
        };
        whole * count + begun
    }
}

/// What decides the events.
#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    /// Nanoseconds since 1970 of the first event.
    pub base_ns: i64,
    /// Above 0.
    pub events_per_second: u64,
    /// Above 0.
    pub out_of_order: u64,
}

/// Event times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: u64,
    pub name: String,
    pub email_address: String,
    pub credit_card: String,
    pub city: &'static str,
    pub state: &'static str,
    pub date_time: i64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auction {
    pub id: u64,
    pub item_name: String,
    pub description: String,
    /// In cents, like every price.
    pub initial_bid: u64,
    pub reserve: u64,
    pub date_time: i64,
    pub expires: i64,
    pub seller: u64,
    pub category: u64,
    pub extra: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bid {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
    pub channel: String,
    pub url: String,
    pub date_time: i64,
    pub extra: String,
}

/// Makes events from their numbers.
#[derive(Clone, Debug)]
pub struct Generator(Config);

impl Generator {
    pub fn new(config: Config) -> Self {
        Self(config)
    }

    /// When an event comes: in the order of the numbers. Beyond the year 2262 time stands still.
    pub fn arrival(&self, number: u64) -> i64 {
        let rate = self.0.events_per_second;
        let (seconds, rest) = (number / rate, number % rate);
        let nanos = u128::from(seconds) * 1_000_000_000 + u128::from(rest) * 1_000_000_000 / u128::from(rate);
        self.0.base_ns.saturating_add(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// How many events come up to a time.
    pub fn arrived(&self, until_ns: i64) -> u64 {
        match u128::try_from(i128::from(until_ns) - i128::from(self.0.base_ns)) {
            Ok(passed) => {
                let events = passed * u128::from(self.0.events_per_second) / 1_000_000_000 + 1;
                u64::try_from(events).unwrap_or(u64::MAX)
            }
            Err(_) => 0,
        }
    }

    /// When an event happened: the times of a group are dealt anew among its events.
    pub fn time(&self, number: u64) -> i64 {
        let group = self.0.out_of_order;
        // 953 is prime: every time of a group is dealt once, unless the group is a multiple of it. Groups such as 2 stay in order.
        let step = if group.is_multiple_of(953) { 1 } else { 953 };
        let mixed = number / group * group + (number % group * (step % group)) % group;
        self.arrival(mixed)
    }

    /// # Panics
    /// Where the event is none of this kind.
    pub fn person(&self, number: u64) -> Person {
        assert!(number % ROUND < PEOPLE, "event {number} is no person");
        const FIRST_NAMES: [&str; 11] = [
            "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
        ];
        const LAST_NAMES: [&str; 9] = [
            "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
        ];
        const CITIES: [&str; 10] = [
            "Phoenix",
            "Los Angeles",
            "San Francisco",
            "Boise",
            "Portland",
            "Bend",
            "Redmond",
            "Seattle",
            "Kent",
            "Cheyenne",
        ];
        const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
        let mut random = self.random(number);
        let random = &mut random;
        let name = format!("{} {}", random.one_of(&FIRST_NAMES), random.one_of(&LAST_NAMES));
        let mut email_address = String::new();
        random.word(7, '_', &mut email_address);
        email_address.push('@');
        random.word(5, '_', &mut email_address);
        email_address.push_str(".com");
        let digits = [(); 4].map(|()| format!("{:04}", random.below(10_000)));
        let (credit_card, city, state) = (digits.join(" "), random.one_of(&CITIES), random.one_of(&STATES));
        let bytes = 8 + name.len() + email_address.len() + credit_card.len() + city.len() + state.len();
        Person {
            id: FIRST_PERSON + last_person(number),
            name,
            email_address,
            credit_card,
            city,
            state,
            date_time: self.time(number),
            extra: random.extra(bytes as u64, PERSON_BYTES),
        }
    }

    /// # Panics
    /// Where the event is none of this kind.
    pub fn auction(&self, number: u64) -> Auction {
        assert!(
            (PEOPLE..PEOPLE + AUCTIONS).contains(&(number % ROUND)),
            "event {number} is no auction"
        );
        let mut random = self.random(number);
        let random = &mut random;
        let (mut item_name, mut description) = (String::new(), String::new());
        random.word(20, ' ', &mut item_name);
        random.word(100, ' ', &mut description);
        let initial_bid = random.price();
        let reserve = initial_bid + random.price();
        let date_time = self.time(number);
        // About as long as it takes that as many auctions as are open begin.
        let open_for = self.arrival(number + OPEN_AUCTIONS * ROUND / AUCTIONS) - self.arrival(number);
        let expires = date_time.saturating_add(1_000_000 + random.below(open_for.max(1) as u64 * 2) as i64);
        let seller = match random.mostly(4) {
            true => last_person(number) / HOT_STEP * HOT_STEP,
            false => active_person(number, random),
        };
        let bytes = 48 + item_name.len() + description.len();
        Auction {
            id: FIRST_AUCTION + last_auction(number),
            item_name,
            description,
            initial_bid,
            reserve,
            date_time,
            expires,
            seller: FIRST_PERSON + seller,
            category: FIRST_CATEGORY + random.below(CATEGORIES),
            extra: random.extra(bytes as u64, AUCTION_BYTES),
        }
    }

    /// # Panics
    /// Where the event is none of this kind.
    pub fn bid(&self, number: u64) -> Bid {
        assert!(PEOPLE + AUCTIONS <= number % ROUND, "event {number} is no bid");
        let mut random = self.random(number);
        let random = &mut random;
        let last = last_auction(number);
        let auction = match random.mostly(2) {
            true => last / HOT_STEP * HOT_STEP,
            false => {
                let first = last.saturating_sub(OPEN_AUCTIONS);
                first + random.below(last - first + 1 + AUCTIONS_AHEAD)
            }
        };
        let bidder = match random.mostly(4) {
            true => last_person(number) / HOT_STEP * HOT_STEP + 1,
            false => active_person(number, random),
        };
        let price = random.price();
        let (channel, url) = self.channel(random);
        Bid {
            auction: FIRST_AUCTION + auction,
            bidder: FIRST_PERSON + bidder,
            price,
            channel,
            url,
            date_time: self.time(number),
            extra: random.extra(32, BID_BYTES),
        }
    }

    /// A channel has one address; most of those that are not hot carry their number in it.
    fn channel(&self, random: &mut Random) -> (String, String) {
        let (channel, number) = match random.mostly(2) {
            true => {
                let hot = random.below(HOT_CHANNELS.len() as u64);
                (HOT_CHANNELS[hot as usize].to_owned(), CHANNELS + hot)
            }
            false => {
                let number = random.below(CHANNELS);
                (format!("channel-{number}"), number)
            }
        };
        let mut own = Random::of(self.0.seed, u64::MAX - number);
        let mut url = "https://www.nexmark.com/".to_owned();
        for _ in 0..3 {
            own.word(5, '_', &mut url);
            url.push('/');
        }
        url.push_str("item.htm?query=1");
        if number < CHANNELS && own.mostly(10) {
            let id = (number as i32).reverse_bits().unsigned_abs();
            write!(url, "&channel_id={id}").expect("a text takes everything");
        }
        (channel, url)
    }

    fn random(&self, number: u64) -> Random {
        Random::of(self.0.seed, number)
    }
}

/// The newest person when an event happens, from 0.
fn last_person(number: u64) -> u64 {
    number / ROUND
}

/// The newest auction when an event happens, from 0.
fn last_auction(number: u64) -> u64 {
    let (round, place) = (number / ROUND, number % ROUND);
    match place.checked_sub(PEOPLE) {
        // The first person is there before the first auction.
        None => (round * AUCTIONS).saturating_sub(1),
        Some(place) => round * AUCTIONS + place.min(AUCTIONS - 1),
    }
}

fn active_person(number: u64, random: &mut Random) -> u64 {
    let people = last_person(number) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + PEOPLE_AHEAD)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn generator(out_of_order: u64) -> Generator {
        Generator::new(Config {
            seed: 1,
            base_ns: 0,
            events_per_second: 1_000,
            out_of_order,
        })
    }

    #[test]
    fn every_event_is_a_row_of_one_split_of_one_table() {
        for splits in [1, 2, 3, 7] {
            for events in [0, 1, 2, 4, 5, 49, 50, 51, 54, 100, 365, 1_000] {
                let mut found = BTreeSet::new();
                let mut rows = 0;
                for table in [Table::Person, Table::Auction, Table::Bid] {
                    for split in 0..splits {
                        let count = table.rows(events, split, splits);
                        rows += count;
                        found.extend((0..count).map(|row| table.event(row, split, splits)));
                        assert!(
                            events <= table.event(count, split, splits),
                            "the next one is behind the end"
                        );
                    }
                }
                assert_eq!(rows, events, "{splits} splits");
                assert!(found.into_iter().eq(0..events), "{splits} splits of {events} events");
            }
        }
    }

    #[test]
    fn times_are_mixed_inside_groups_and_each_is_there_once() {
        for group in [1, 2, 5, 10, 953, 1_906] {
            let generator = generator(group);
            let times: Vec<i64> = (0..3_812).map(|number| generator.time(number)).collect();
            for (number, time) in times.iter().enumerate() {
                let away = (time / 1_000_000 - number as i64).unsigned_abs();
                assert!(away < group, "event {number} of groups of {group} is {away} steps away");
            }
            let unique: BTreeSet<&i64> = times.iter().collect();
            assert_eq!(unique.len(), times.len(), "groups of {group}");
            let is_mixed = !times.is_sorted();
            assert_eq!(is_mixed, [5, 10].contains(&group), "groups of {group}");
        }
    }

    #[test]
    fn what_has_arrived_is_counted_from_its_time() {
        let generator = generator(1);
        for (until, expected, why) in [
            (-1, 0, "before the first"),
            (0, 1, "the first comes at once"),
            (999_999, 1, "just before the second"),
            (1_000_000, 2, "the second"),
            (i64::MAX, 9_223_372_036_855, "all that there is time for"),
        ] {
            assert_eq!(generator.arrived(until), expected, "{why}");
        }
        assert_eq!(generator.arrival(u64::MAX), i64::MAX, "time stands still at its end");
    }

    #[test]
    fn ids_are_of_what_was_there_or_comes_soon() {
        let generator = generator(5);
        let (mut auctions, mut bidders) = (BTreeMap::new(), BTreeMap::new());
        let bids: Vec<u64> = (0..20_000).filter(|number| 4 <= number % 50).collect();
        for number in &bids {
            let bid = generator.bid(*number);
            assert!(bid.auction <= FIRST_AUCTION + last_auction(*number) + AUCTIONS_AHEAD);
            assert!(bid.bidder <= FIRST_PERSON + last_person(*number) + PEOPLE_AHEAD);
            *auctions.entry(bid.auction).or_insert(0usize) += 1;
            *bidders.entry(bid.bidder).or_insert(0usize) += 1;
        }
        let hot = |counts: &BTreeMap<u64, usize>, rest: u64| {
            let hot = counts.iter().filter(|(id, _)| **id % HOT_STEP == rest);
            hot.map(|(_, count)| *count).sum::<usize>() as f64 / bids.len() as f64
        };
        assert!(
            (0.45..0.56).contains(&hot(&auctions, 0)),
            "half of the bids are on a hot auction"
        );
        assert!(
            (0.70..0.80).contains(&hot(&bidders, 1)),
            "three quarters are by a hot bidder"
        );
        let people: Vec<u64> = (0..10).map(|round| generator.person(round * 50).id).collect();
        assert!(people.into_iter().eq(1_000..1_010), "people are numbered");
        let auctions: Vec<u64> = (0..100)
            .filter(|number| (1..4).contains(&(number % 50)))
            .map(|number| generator.auction(number).id)
            .collect();
        assert!(auctions.into_iter().eq(1_000..1_006), "auctions are numbered");
    }
}
