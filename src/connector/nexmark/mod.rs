//! Nexmark: people, auctions and bids of an online auction, made up by their number alone.
//!
//! ```text
//! position ─▶ event number ─▶ Generator ─▶ Person | Auction | Bid ─▶ a JSON record
//! ```
//! The data model of the Nexmark benchmark (Tucker et al., "NEXMark: A Benchmark for Queries over Data Streams", 2002) with the
//! proportions, hot keys and texts of its common generators. The same options give the same bytes everywhere and always.

mod event;
mod source;
mod text;

use super::{OptionKind, OptionSpec};

pub use event::{Auction, Bid, Config, Generator, Person, Table};
pub use source::NexmarkSource;

/// The options of a source with `connector = 'nexmark'`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::text(
        "table",
        "which rows: of fifty events one is a person, three are auctions, the others bids",
    )
    .kind(OptionKind::Choice(&["person", "auction", "bid"]))
    .default("bid"),
    OptionSpec::text(
        "events",
        "after how many events of all tables to stop; without it there is no end",
    )
    .kind(OptionKind::Integer),
    OptionSpec::text(
        "events_per_second",
        "how many events there are in a second of event time",
    )
    .kind(OptionKind::Integer)
    .default("10000"),
    OptionSpec::text(
        "out_of_order",
        "how many events that follow each other have their times mixed; '1' keeps them in order",
    )
    .kind(OptionKind::Integer)
    .default("5"),
    OptionSpec::text("base_time", "the event time of the first event").default("2015-07-15T00:00:00Z"),
    OptionSpec::text("splits", "how many splits the rows are dealt to")
        .kind(OptionKind::Integer)
        .default("1"),
    OptionSpec::text("seed", "another number gives other people, auctions and bids")
        .kind(OptionKind::Integer)
        .default("1"),
    OptionSpec::text(
        "speed",
        "how much faster than its event time: '1x' brings a second per second, 'max' does not wait",
    )
    .default("max"),
];
