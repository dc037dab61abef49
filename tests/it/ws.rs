//! WebSocket, by docs/api.md: whoever applies snapshot and deltas by key has the view, however often and slowly they read.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::zeta::{PATIENCE, Start, Zeta, dataset, edited, folder, text};

const VIEW: &str = "candles_5m";

/// A client that does what the manual says.
struct Client(WebSocketStream<tokio::net::TcpStream>);

impl Client {
    async fn connect(zeta: &Zeta) -> Self {
        Self::connect_with(zeta, None).await
    }

    /// With room for so many bytes between the kernel and the reader.
    async fn connect_with(zeta: &Zeta, receive_bytes: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("a size");
        }
        let stream = socket
            .connect(zeta.address().parse().expect("an address"))
            .await
            .expect("zeta listens");
        let mut request = format!("ws://{}/api/v1/ws", zeta.address())
            .into_client_request()
            .expect("an address");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", "zeta.v1".parse().expect("text"));
        let (socket, response) = client_async(request, stream).await.expect("a WebSocket");
        assert_eq!(response.headers()["sec-websocket-protocol"], "zeta.v1");
        Self(socket)
    }

    async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .expect("zeta takes messages");
    }

    async fn subscribe(&mut self, id: &str, more: Value) {
        let mut message = json!({"op": "subscribe", "id": id, "view": VIEW});
        message
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        self.say(message).await;
    }

    /// The next message of the API.
    async fn hear(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next())
                .await
                .expect("zeta says something");
            match message.expect("the socket is open").expect("a whole message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a client knows of a view.
#[derive(Debug, Default)]
struct Mirror {
    key: Vec<usize>,
    rows: BTreeMap<String, Value>,
    token: String,
    is_in_snapshot: bool,
    snapshots: usize,
    deltas: usize,
    resets: usize,
    merged: u64,
    is_complete: bool,
}

impl Mirror {
    fn key_of(&self, row: &Value) -> String {
        self.key
            .iter()
            .map(|column| row[column].to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn take(&mut self, message: &Value) {
        let rows = |field: &str| {
            message[field]
                .as_array()
                .unwrap_or_else(|| panic!("no {field}: {message}"))
                .clone()
        };
        match message["op"].as_str().expect("an op") {
            "ack" => {
                let position = |name: &Value| {
                    message["columns"]
                        .as_array()
                        .expect("columns")
                        .iter()
                        .position(|column| column["name"] == *name)
                };
                self.key = message["key"]
                    .as_array()
                    .expect("a key")
                    .iter()
                    .map(|name| position(name).expect("a column"))
                    .collect();
                assert_eq!(message["time"], "window_start");
            }
            "snapshot" => {
                if !self.is_in_snapshot {
                    self.rows.clear();
                    self.snapshots += 1;
                }
                for row in rows("rows") {
                    assert!(
                        self.rows.insert(self.key_of(&row), row).is_none(),
                        "a snapshot has each key once"
                    );
                }
                self.is_in_snapshot = message["last"] == json!(false);
            }
            "delta" => {
                assert!(!self.is_in_snapshot, "a snapshot comes whole");
                self.deltas += 1;
                for row in rows("delete") {
                    assert!(
                        self.rows.remove(&self.key_of(&row)).is_some(),
                        "only what is there is deleted: {row}"
                    );
                }
                for row in rows("upsert") {
                    self.rows.insert(self.key_of(&row), row);
                }
            }
            "merged" => self.merged += message["count"].as_u64().expect("a number"),
            "reset" => self.resets += 1,
            "complete" => self.is_complete = true,
            _ => panic!("{message}"),
        }
        if let Some(token) = message["token"].as_str() {
            token.clone_into(&mut self.token);
        }
    }

    /// The rows in the order of their keys.
    fn sorted(&self) -> Vec<Value> {
        self.rows.values().cloned().collect()
    }

    fn assert_is_the_view(&self, zeta: &Zeta, condition: &str) {
        let mut expected = Self {
            key: self.key.clone(),
            ..Self::default()
        };
        for row in zeta.rows(&format!("SELECT * FROM {VIEW} WHERE {condition}")) {
            expected.rows.insert(expected.key_of(&row), row);
        }
        assert!(!expected.rows.is_empty());
        assert_eq!(
            self.rows.len(),
            expected.rows.len(),
            "{} snapshots, {} deltas",
            self.snapshots,
            self.deltas
        );
        assert_eq!(self.sorted(), expected.sorted());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn start(file: &Path, dataset: &Path, how: &str) -> Start {
    Zeta::run(file)
        .env("HISTORY", text(dataset))
        .replay("candles", dataset, how)
}

/// A day of three pairs within some seconds.
fn a_day_in_seconds() -> Zeta {
    let dataset = dataset(3, 1, "2024-01-01");
    let zeta = start("sql/candles.sql".as_ref(), &dataset, ",speed=20000x")
        .arg("--no-state")
        .start();
    zeta.until_source("candles", "the first rows", |source| 0 < source.rows());
    zeta
}

#[test]
fn snapshot_and_deltas_applied_by_key_are_the_rows_of_the_view() {
    let zeta = a_day_in_seconds();
    runtime().block_on(async {
        let mut client = Client::connect(&zeta).await;
        client.subscribe("all", json!({})).await;
        client
            .subscribe("ada", json!({"where": {"symbol": ["ADA-USDT"]}}))
            .await;
        client
            .subscribe(
                "two",
                json!({"where": {"symbol": ["BTC-USDT", "ETH-USDT"]}, "snapshot": 100_000}),
            )
            .await;
        let mut mirrors: BTreeMap<String, Mirror> = BTreeMap::new();
        while mirrors.len() < 3 || !mirrors.values().all(|mirror| mirror.is_complete) {
            let message = client.hear().await;
            mirrors
                .entry(message["id"].as_str().expect("an id").to_owned())
                .or_default()
                .take(&message);
        }
        for (id, condition) in [
            ("all", "true"),
            ("ada", "symbol = 'ADA-USDT'"),
            ("two", "symbol <> 'ADA-USDT'"),
        ] {
            let mirror = &mirrors[id];
            mirror.assert_is_the_view(&zeta, condition);
            assert!(1 < mirror.deltas, "it came bit by bit: {}", mirror.deltas);
            assert_eq!((mirror.snapshots, mirror.resets), (1, 0));
        }

        // The id is free again, and all is there at once.
        client
            .subscribe(
                "all",
                json!({"snapshot": 2, "time": "ms", "where": {"symbol": "ADA-USDT"}}),
            )
            .await;
        assert_eq!(client.hear().await["op"], "ack");
        let snapshot = client.hear().await;
        let starts: Vec<&Value> = snapshot["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| &row[1])
            .collect();
        assert_eq!(
            starts,
            [1_704_153_000_000_i64, 1_704_153_300_000],
            "the two newest, oldest first, in milliseconds"
        );
        assert_eq!(client.hear().await, json!({"op": "complete", "id": "all"}));
    });
}

#[test]
fn who_comes_back_with_a_token_misses_nothing_and_gets_no_snapshot() {
    let zeta = a_day_in_seconds();
    runtime().block_on(async {
        let mut mirror = Mirror::default();
        let mut sockets = 0;
        while !mirror.is_complete {
            sockets += 1;
            let mut client = Client::connect(&zeta).await;
            let resume = if mirror.token.is_empty() {
                json!({})
            } else {
                json!({"resume": mirror.token})
            };
            client.subscribe("c1", resume).await;
            // Some messages on each socket, then it is gone without a word, and what comes meanwhile is missed.
            for _ in 0..4 {
                let message = client.hear().await;
                mirror.take(&message);
                if mirror.is_complete {
                    break;
                }
            }
            drop(client);
        }
        assert!(3 < sockets, "it was away several times: {sockets}");
        assert_eq!((mirror.snapshots, mirror.resets), (1, 0));
        mirror.assert_is_the_view(&zeta, "true");
    });
}

#[test]
fn a_token_of_another_view_or_run_is_answered_by_a_reset() {
    let (dataset, state) = (dataset(2, 1, "2024-01-01"), folder("state"));
    let file = edited(
        "sql/candles.sql",
        &[(
            "CREATE MATERIALIZED VIEW",
            "CREATE MATERIALIZED VIEW highs AS SELECT symbol, max(high) AS high FROM candles GROUP BY symbol;\nCREATE MATERIALIZED VIEW",
        )],
    );
    let begin = || start(&file, &dataset, ",speed=max").state(&state).start();
    let zeta = begin();
    zeta.until_source("candles", "the end", |source| source.state() == "finished");
    let token_of = |view: &str| {
        zeta.get(&format!("/api/v1/views/{view}/rows?limit=100"))
            .expect(200)
            .header("zeta-as-of")
            .to_owned()
    };
    let token = token_of(VIEW);
    let of_another = token_of("highs");
    assert_ne!(token, of_another);
    runtime().block_on(async {
        let mut client = Client::connect(&zeta).await;
        client.subscribe("own", json!({"resume": token})).await;
        let heard = [client.hear().await, client.hear().await, client.hear().await];
        assert_eq!(
            [&heard[0]["op"], &heard[1]["op"], &heard[2]["op"]],
            ["ack", "delta", "complete"],
            "its own token: nothing is missing"
        );
        assert_eq!((&heard[1]["upsert"], &heard[1]["delete"]), (&json!([]), &json!([])));
    });
    reset_by(&zeta, &of_another);
    zeta.kill();

    let zeta = begin();
    zeta.until_source("candles", "the end", |source| source.state() == "finished");
    reset_by(&zeta, &token);
}

fn reset_by(zeta: &Zeta, token: &str) {
    runtime().block_on(async {
        let mut client = Client::connect(zeta).await;
        client.subscribe("c1", json!({"resume": token})).await;
        let mut mirror = Mirror::default();
        while !mirror.is_complete {
            mirror.take(&client.hear().await);
        }
        assert_eq!((mirror.resets, mirror.snapshots), (1, 1));
        mirror.assert_is_the_view(zeta, "true");
    });
}

#[test]
fn what_cannot_be_followed_is_an_error_and_the_socket_goes_on() {
    let zeta = a_day_in_seconds();
    runtime().block_on(async {
        let mut client = Client::connect(&zeta).await;
        for (message, id, slug, word) in [
            (
                json!({"op": "subscribe", "id": "a", "view": "candels_5m"}),
                json!("a"),
                "not-found",
                "did you mean candles_5m?",
            ),
            (
                json!({"op": "subscribe", "id": "b", "view": "history"}),
                json!("b"),
                "not-found",
                "candles_5m",
            ),
            (
                json!({"op": "subscribe", "id": "c", "view": VIEW, "where": {"symbl": "ADA-USDT"}}),
                json!("c"),
                "unknown-column",
                "symbol",
            ),
            (
                json!({"op": "subscribe", "id": "d", "view": VIEW, "where": {"volume": "much"}}),
                json!("d"),
                "invalid-parameter",
                "volume",
            ),
            (
                json!({"op": "subscribe", "id": "e", "view": VIEW, "resume": "nonsense"}),
                json!("e"),
                "invalid-parameter",
                "token",
            ),
            (
                json!({"op": "subscribe", "id": "f", "view": VIEW, "snapshots": 3}),
                json!("f"),
                "invalid-parameter",
                "snapshots",
            ),
            (json!({"op": "sing"}), Value::Null, "invalid-parameter", "subscribe"),
            (json!("words"), Value::Null, "invalid-parameter", "subscribe"),
        ] {
            client.say(message.clone()).await;
            let error = client.hear().await;
            assert_eq!(
                (&error["op"], &error["id"]),
                (&json!("error"), &id),
                "{message}: {error}"
            );
            assert_eq!(
                error["problem"]["type"],
                format!("/problems/{slug}"),
                "{message}: {error}"
            );
            assert!(error["problem"].to_string().contains(word), "{message}: {error}");
        }
        client.say(json!({"op": "ping"})).await;
        assert_eq!(client.hear().await, json!({"op": "pong"}));

        client.subscribe("g", json!({"snapshot": 0})).await;
        assert_eq!(client.hear().await["op"], "ack");
        assert_eq!(client.hear().await["rows"], json!([]), "no row of before was asked for");
        client.say(json!({"op": "unsubscribe", "id": "g"})).await;
        client.say(json!({"op": "ping"})).await;
        while client.hear().await != json!({"op": "pong"}) {}
        client.subscribe("g", json!({"snapshot": 0})).await;
        assert_eq!(
            client.hear().await["op"],
            "ack",
            "after it was unsubscribed, and nothing of it after that"
        );
    });
}

#[test]
fn a_reader_that_is_too_slow_gets_merged_changes_or_a_reset_and_ends_up_right() {
    // An epoch per row or so, each changing candles: far more bytes than sockets hold.
    let dataset = dataset(20, 5, "2024-01-01");
    let file = edited(
        "sql/candles.sql",
        &[(
            "idle_timeout = '30 seconds'",
            "idle_timeout = '30 seconds', trigger = '0'",
        )],
    );
    let zeta = start(&file, &dataset, ",speed=80000x").arg("--no-state").start();
    runtime().block_on(async {
        let mut client = Client::connect_with(&zeta, Some(4_096)).await;
        client.subscribe("slow", json!({})).await;
        // Nothing is read until everything has happened; a thread waits for that, and zeta must not wait for us.
        tokio::task::block_in_place(|| {
            zeta.until_source("candles", "the end, past a reader that reads nothing", |source| {
                source.state() == "finished"
            })
        });
        let mut mirror = Mirror::default();
        while !mirror.is_complete {
            mirror.take(&client.hear().await);
        }
        assert!(
            0 < mirror.merged || 0 < mirror.resets,
            "it was told that it missed steps: {} deltas",
            mirror.deltas
        );
        mirror.assert_is_the_view(&zeta, "true");
    });
}

#[test]
fn a_shutdown_says_when_to_come_back() {
    let zeta = a_day_in_seconds();
    let pid = zeta.pid();
    runtime().block_on(async {
        let mut client = Client::connect(&zeta).await;
        client.subscribe("c1", json!({})).await;
        assert_eq!(client.hear().await["op"], "ack");
        let stopped = std::process::Command::new("kill")
            .args(["-s", "TERM", &pid.to_string()])
            .status();
        assert!(stopped.expect("kill runs").success());
        let message = loop {
            let message = client.hear().await;
            if message["op"] != "snapshot" && message["op"] != "delta" && message["op"] != "merged" {
                break message;
            }
        };
        assert_eq!(message, json!({"op": "shutdown", "reconnect_after_ms": 1_500}));
        let closed = tokio::time::timeout(Duration::from_secs(30), client.0.next())
            .await
            .expect("it closes the socket");
        assert!(matches!(closed, Some(Ok(Message::Close(_)))), "{closed:?}");
    });
}
