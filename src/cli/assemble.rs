//! The registry: the only place that names concrete connectors, formats and object stores.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    catalog::TableProvider,
    datasource::{listing::ListingTableUrl, object_store::ObjectStoreUrl},
    execution::{context::SessionState, runtime_env::RuntimeEnv},
};
use hdfs_native_object_store::HdfsObjectStoreBuilder;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};

use crate::{
    connector::{
        SinkEpoch, SinkError, ToRecords, kafka,
        memory::MemoryTopic,
        nexmark,
        parquet::{self, Destination, LocalStore, ParquetSink, ParquetTable, Store},
        replay,
    },
    format::{
        ChangeEncoder,
        avro::{self, AvroChanges},
        json::{self, ChangeStyle, JsonChanges},
    },
    plan::{ConnectorSpec, FieldSpec, FormatSpec, OpenExternal, Registry, SinkSpec, base_session},
    remote::{RemoteError, RemoteFolder},
    state::Place,
    types::{Error, RecordSchema, Records, Result, SplitId},
};

/// Everything that this binary can read, with topics in memory by the name of their source.
pub fn registry(topics: MemoryTopics, environment: Arc<RuntimeEnv>) -> Registry {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let kafka_fields = kafka::FIELDS
        .iter()
        .map(|field| FieldSpec {
            name: field.name,
            data_type: as_view(&field.data_type),
            is_nullable: field.is_nullable,
        })
        .collect::<Vec<_>>();
    let replay_fields = vec![
        FieldSpec {
            name: "timestamp",
            data_type: time,
            is_nullable: true,
        },
        FieldSpec {
            name: "partition",
            data_type: DataType::Int32,
            is_nullable: false,
        },
        FieldSpec {
            name: "offset",
            data_type: DataType::Int64,
            is_nullable: false,
        },
        FieldSpec {
            name: "key",
            data_type: DataType::Utf8View,
            is_nullable: true,
        },
    ];
    // Every event has a time at which it comes, and none has a key.
    let nexmark_fields = replay_fields
        .iter()
        .filter(|field| field.name != "key")
        .map(|field| FieldSpec {
            is_nullable: false,
            ..field.clone()
        })
        .collect();
    let inserted = topics.clone();
    let session = base_session(Arc::clone(&environment));
    Registry {
        environment: Arc::clone(&environment),
        connectors: vec![
            ConnectorSpec {
                name: "kafka",
                options: kafka::OPTIONS,
                open_prefixes: kafka::PROPERTY_PREFIXES,
                fields: kafka_fields,
                takes_rows: false,
                make: Arc::new(|_, options| Ok(Box::new(kafka::KafkaSource::new(options).map_err(Error::User)?))),
            },
            ConnectorSpec {
                name: "replay",
                options: replay::OPTIONS,
                open_prefixes: &[],
                fields: replay_fields,
                takes_rows: false,
                make: Arc::new(|_, options| Ok(Box::new(super::replay::open_source(options)?))),
            },
            ConnectorSpec {
                name: "nexmark",
                options: nexmark::OPTIONS,
                open_prefixes: &[],
                fields: nexmark_fields,
                takes_rows: false,
                make: Arc::new(|_, options| Ok(Box::new(nexmark::NexmarkSource::new(options)?))),
            },
            ConnectorSpec {
                name: "memory",
                options: &[],
                open_prefixes: &[],
                fields: vec![],
                takes_rows: true,
                make: Arc::new(move |source, _| Ok(Box::new(topics.of(source).source()))),
            },
        ],
        formats: vec![FormatSpec {
            name: "json",
            options: json::OPTIONS,
            make: Arc::new(|schema, declared, options| {
                // `42` is a record of a source with one column, whichever columns a view needs.
                Ok(Box::new(
                    json::JsonDecoder::new(schema, options)?.accept_bare(declared == 1),
                ))
            }),
        }],
        sinks: vec![
            SinkSpec {
                name: "kafka",
                options: kafka::SINK_OPTIONS,
                open_prefixes: kafka::PROPERTY_PREFIXES,
                formats: &["json", "debezium", "avro"],
                format_options: |format| match format {
                    "avro" => avro::OPTIONS,
                    _ => &[],
                },
                takes_changes_without_key: |format| format == "debezium",
                takes_changes: true,
                make: Arc::new(|open| {
                    let json = |style| JsonChanges::new(style, Arc::clone(&open.schema), open.key);
                    let encoder: Box<dyn ToRecords> = match open.format {
                        "avro" => {
                            let name = &open.publisher.sink;
                            let changes = AvroChanges::new(name, &open.schema, open.key, open.format_options)?;
                            Box::new(Encoded(changes))
                        }
                        "debezium" => Box::new(Encoded(json(ChangeStyle::Debezium)?)),
                        _ => Box::new(Encoded(json(ChangeStyle::Plain)?)),
                    };
                    let sink = kafka::KafkaSink::new(open.source, open.options, open.publisher, encoder);
                    Ok(Box::new(sink.map_err(Error::User)?))
                }),
            },
            SinkSpec {
                name: "parquet",
                options: parquet::SINK_OPTIONS,
                open_prefixes: &[],
                formats: &["parquet"],
                format_options: |_| &[],
                takes_changes_without_key: |_| false,
                takes_changes: false,
                make: Arc::new(|open| {
                    let destination = destination(open.options.text("path"))?;
                    let sink = ParquetSink::new(&open.schema, open.options, open.publisher, destination);
                    Ok(Box::new(sink.map_err(Error::User)?))
                }),
            },
        ],
        insert: Arc::new(move |source, rows| {
            let split = SplitId::from(0);
            let end = inserted.of(source).append(&split, rows);
            Ok((split, end))
        }),
        open_external: Arc::new(move |open| {
            let (environment, session) = (Arc::clone(&environment), session.clone());
            Box::pin(async move { open_external(open, &environment, &session).await })
        }),
    }
}

/// A format's records for a sink.
struct Encoded<E>(E);

impl<E: ChangeEncoder> ToRecords for Encoded<E> {
    fn records(&mut self, epoch: &SinkEpoch) -> Result<Records> {
        self.0.records(&epoch.added, &epoch.removed)
    }

    fn schemas(&self) -> Vec<RecordSchema> {
        self.0.schemas()
    }
}

/// Strings are views everywhere: a little faster as keys, and slices of them share their bytes.
fn as_view(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 => DataType::Utf8View,
        other => other.clone(),
    }
}

/// Topics of sources with connector 'memory'; they stay when the engine over them is made anew.
#[derive(Clone, Default)]
pub struct MemoryTopics(Arc<Mutex<BTreeMap<String, MemoryTopic>>>);

impl MemoryTopics {
    pub fn of(&self, source: &str) -> MemoryTopic {
        let mut topics = self.0.lock().expect("nobody panics while holding it");
        topics
            .entry(source.to_owned())
            .or_insert_with(|| MemoryTopic::with_splits([SplitId::from(0)]))
            .clone()
    }
}

async fn open_external(
    open: OpenExternal,
    environment: &RuntimeEnv,
    session: &SessionState,
) -> Result<Arc<dyn TableProvider>> {
    let (store, store_url, path) = resolve(&open.location, environment)?;
    let table = ParquetTable::open(&open.location, store, store_url, path, open.file_name_column, session).await?;
    Ok(Arc::new(table))
}

/// Where a location is.
enum Location {
    Local(PathBuf),
    Hdfs { url: String, path: Path },
}

/// # Errors
/// A sentence about what no location is.
fn located(location: &str) -> Result<Location> {
    let bad = |reason: String| Error::user(format!("'{location}' is no location: {reason}"));
    match location.split_once("://") {
        Some(("hdfs", rest)) => {
            let authority = rest.split('/').next().unwrap_or_default();
            if authority.is_empty() {
                return Err(bad("a name node is missing; write hdfs://host:port/folder".into()));
            }
            let path = Path::parse(rest[authority.len()..].trim_matches('/')).map_err(|e| bad(e.to_string()))?;
            let url = format!("hdfs://{authority}");
            Ok(Location::Hdfs { url, path })
        }
        Some(("file", _)) | None => {
            let text = location.strip_prefix("file://").unwrap_or(location);
            let absolute = std::path::absolute(text).map_err(|e| bad(e.to_string()))?;
            Ok(Location::Local(absolute))
        }
        Some((scheme, _)) => Err(bad(format!(
            "{scheme}:// is not supported; use a folder, file:// or hdfs://"
        ))),
    }
}

/// The store of a location, known to the environment by its URL, and the path in it.
fn resolve(location: &str, environment: &RuntimeEnv) -> Result<(Arc<dyn ObjectStore>, ObjectStoreUrl, Path)> {
    let bad = |reason: String| Error::user(format!("'{location}' is no location: {reason}"));
    match located(location)? {
        Location::Hdfs { url, path } => {
            let store_url = ObjectStoreUrl::parse(&url).map_err(|e| bad(e.strip_backtrace()))?;
            let store = HdfsObjectStoreBuilder::new()
                .with_url(url)
                .build()
                .map_err(|e| Error::external(format!("cannot reach {location}: {e}")))?;
            let store: Arc<dyn ObjectStore> = Arc::new(store);
            environment.register_object_store(store_url.as_ref(), Arc::clone(&store));
            Ok((store, store_url, path))
        }
        Location::Local(absolute) => {
            if !absolute.exists() {
                return Err(Error::user(format!(
                    "there is no {}; make data with `zeta generate --pairs 3 --days 7 --seed 1 --out {}`, or see dataset/README.md",
                    absolute.display(),
                    location.strip_prefix("file://").unwrap_or(location)
                )));
            }
            let url = ListingTableUrl::parse(absolute.to_string_lossy()).map_err(|e| bad(e.strip_backtrace()))?;
            let path = Path::from_absolute_path(&absolute).map_err(|e| bad(e.to_string()))?;
            let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
            Ok((store, url.object_store(), path))
        }
    }
}

/// Where a sink writes files. Nothing is asked of it yet.
fn destination(location: &str) -> Result<Destination> {
    let connect: Box<dyn Fn() -> Result<Box<dyn Store>, SinkError> + Send> = match located(location)? {
        Location::Local(folder) => Box::new(move || Ok(Box::new(LocalStore::new(folder.clone())))),
        Location::Hdfs { url, path } => {
            let location = location.to_owned();
            Box::new(move || Ok(Box::new(remote_folder(&location, &url, path.clone())?)))
        }
    };
    Ok(Destination {
        location: location.to_owned(),
        connect,
    })
}

/// Where a state lies. Nothing is asked of it yet.
///
/// # Errors
/// A sentence about what no location is.
pub fn state_place(location: &str) -> Result<Place> {
    if !location.contains("://") {
        return Ok(PathBuf::from(location).into());
    }
    match located(location)? {
        Location::Local(folder) => Ok(folder.into()),
        Location::Hdfs { url, path } => {
            let location = location.trim_end_matches('/');
            let folder = remote_folder(location, &url, path).map_err(|error| Error::external(error.to_string()))?;
            Ok(Place::remote(folder))
        }
    }
}

fn remote_folder(location: &str, url: &str, path: Path) -> Result<RemoteFolder, RemoteError> {
    RemoteFolder::connect(location, path, |handle| {
        let builder = HdfsObjectStoreBuilder::new().with_url(url);
        let store = builder.with_io_runtime(handle.clone()).build()?;
        Ok(Arc::new(store) as Arc<dyn ObjectStore>)
    })
}
