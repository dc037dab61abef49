//! The pipeline that every seed runs, and how its connectors are made over a simulated world.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::{
    connector::{OptionSpec, SinkEpoch, ToRecords, kafka::KafkaSink},
    format::{
        ChangeEncoder,
        json::{self, ChangeStyle, JsonChanges},
    },
    plan::{Binder, Catalog, ConnectorSpec, FormatSpec, Registry, SinkSpec, base_session},
    runtime::query_environment,
    sql,
    types::{Error, Records, Result},
};

use super::{brokers::Brokers, scheduler::Life, topic::Topic};

pub const SOURCE: &str = "trades";
/// One sink with all rows, one with totals that change.
pub const ROWS: &str = "every_out";
pub const TOTALS: &str = "totals_out";

const SQL: &str = "
    CREATE SOURCE trades (id BIGINT, k VARCHAR, v BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5 seconds')
        WITH (connector = 'simulated', trigger = '50 ms', idle_timeout = '1 hour');
    CREATE MATERIALIZED VIEW every AS SELECT id, k, v FROM trades;
    CREATE MATERIALIZED VIEW totals AS
        SELECT k, count(*) AS n, sum(id) AS ids, sum(v) AS s, min(v) AS low, max(v) AS high FROM trades GROUP BY k;
    CREATE MATERIALIZED VIEW closed AS
        SELECT k, window_start, window_end, count(*) AS n, sum(v) AS s
        FROM TUMBLE(trades, at, INTERVAL '5 seconds') GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE;
    CREATE SINK every_out FROM every WITH (connector = 'simulated');
    CREATE SINK totals_out FROM totals WITH (connector = 'simulated');";

/// The world that the connectors of one life see.
#[derive(Clone)]
pub struct Surroundings {
    pub topic: Topic,
    pub brokers: Brokers,
    pub life: Life,
}

/// `None`: only for binding, nothing can be opened.
pub fn registry(surroundings: Option<Surroundings>) -> Registry {
    const NONE: &[OptionSpec] = &[];
    let source = surroundings.clone();
    Registry {
        environment: query_environment(),
        connectors: vec![ConnectorSpec {
            name: "simulated",
            options: NONE,
            open_prefixes: &[],
            fields: Vec::new(),
            takes_rows: false,
            make: Arc::new(move |_, _| match &source {
                Some(world) => Ok(world.topic.source()),
                None => Err(Error::bug("nothing is simulated here")),
            }),
        }],
        formats: vec![FormatSpec {
            name: "json",
            options: json::OPTIONS,
            make: Arc::new(|schema, declared, options| {
                Ok(Box::new(
                    json::JsonDecoder::new(schema, options)?.accept_bare(declared == 1),
                ))
            }),
        }],
        sinks: vec![SinkSpec {
            name: "simulated",
            options: NONE,
            open_prefixes: &[],
            formats: &["json"],
            format_options: |_| NONE,
            takes_changes_without_key: |_| false,
            takes_changes: true,
            make: Arc::new(move |open| {
                let encoder = Encoded(JsonChanges::new(ChangeStyle::Plain, open.schema, open.key)?);
                let broker = match &surroundings {
                    Some(world) => world.brokers.of(&open.publisher.sink, world.life),
                    None => return Ok(Box::new(Unopened)),
                };
                Ok(Box::new(KafkaSink::over(
                    broker,
                    true,
                    open.publisher,
                    Box::new(encoder),
                )))
            }),
        }],
        insert: Arc::new(|_, _| Err(Error::bug("nothing is inserted here"))),
        open_external: Arc::new(|_| Box::pin(async { Err(Error::bug("there are no files here")) })),
    }
}

/// Bound once for all seeds.
pub fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let registry = registry(None);
        let base = base_session(Arc::clone(&registry.environment));
        let text = sql::SourceText::new("simulated.sql", SQL);
        let parsed = sql::parse(&text);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        let places = |span| sql::byte_span(&text, span);
        let mut catalog = Catalog::default();
        for statement in &parsed.statements {
            let binder = Binder {
                registry: &registry,
                base: &base,
                text: &text.text,
                places: &places,
                snapshots: BTreeMap::new(),
            };
            let bound = futures::executor::block_on(binder.bind(statement, &mut catalog));
            assert!(bound.is_ok(), "{:?}", bound.err());
        }
        catalog
    })
}

struct Encoded(JsonChanges);

impl ToRecords for Encoded {
    fn records(&mut self, epoch: &SinkEpoch) -> Result<Records> {
        self.0.records(&epoch.added, &epoch.removed)
    }
}

/// A sink that is bound and never asked.
struct Unopened;

impl crate::connector::Sink for Unopened {
    fn recover(&mut self) -> Result<Option<crate::connector::Marker>, crate::connector::SinkError> {
        Ok(None)
    }

    fn publish(&mut self, _: &[SinkEpoch]) -> Result<(), crate::connector::SinkError> {
        Ok(())
    }

    fn digest(&mut self, _: &SinkEpoch) -> Result<(u64, u64), crate::connector::SinkError> {
        Ok((0, 0))
    }
}
