//! The real binary, run as people run it: started, asked over HTTP, stopped or killed, and never left behind.
//!
//! ```text
//! Zeta::run(file).start() ─▶ zeta run FILE --listen 127.0.0.1:0 ─▶ "zeta: http://127.0.0.1:PORT" on stderr ─▶ url
//! the test ends ─▶ Drop kills it;  the test process ends, however it ends ─▶ the watchdog kills it
//! ```
//! Nothing sleeps for a time that was guessed: [`until`] looks again and again, up to a deadline.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, BufReader, ErrorKind, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, ipc::reader::StreamReader};
use serde_json::{Value, json};

use crate::services::Watchdog;

/// Far above what anything here takes on a quiet machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
pub const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Looks until there is something to see; what was seen last is part of the failure.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(last) if PATIENCE < began.elapsed() => panic!("waited {PATIENCE:?} for {what}; last seen: {last}"),
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// Sends a signal to its process: STOP freezes it, CONT lets it go on.
pub fn signal(zeta: &Zeta, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &zeta.pid().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// A deadline is wall-clock time by its nature, and decides no result.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// A new folder, removed after the last test.
pub fn folder(name: &str) -> PathBuf {
    static ROOT: OnceLock<(PathBuf, Watchdog)> = OnceLock::new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (root, _) = ROOT.get_or_init(|| {
        let root = tempfile::Builder::new()
            .prefix("zeta-test-")
            .tempdir()
            .expect("a folder for tests")
            .keep();
        let mut remove = Command::new("sh");
        remove.args(["-c", "cat >/dev/null; exec rm -rf \"$0\""]).arg(&root);
        (root, Watchdog::start(remove))
    });
    let folder = root.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&folder).expect("a new folder");
    folder
}

/// Candles made by `zeta generate`: a file of one-minute candles for each pair, from `start` on.
pub fn dataset(pairs: u32, days: u32, start: &str) -> PathBuf {
    let out = folder("dataset");
    let (pairs, days) = (pairs.to_string(), days.to_string());
    zeta(&[
        "generate",
        "--pairs",
        &pairs,
        "--days",
        &days,
        "--start",
        start,
        "--out",
        text(&out),
    ])
    .expect(0);
    out
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a name that is text")
}

/// A pipeline file of the repository, with places replaced, in a folder of its own. Each must be there.
pub fn edited(file: &str, edits: &[(&str, &str)]) -> PathBuf {
    let mut pipeline =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a pipeline file");
    for (from, to) in edits {
        assert!(pipeline.contains(from), "{file} holds no {from}");
        pipeline = pipeline.replace(from, to);
    }
    written(&pipeline)
}

/// A pipeline file with this text.
pub fn written(pipeline: &str) -> PathBuf {
    let path = folder("pipeline").join("pipeline.sql");
    std::fs::write(&path, pipeline).expect("a new file");
    path
}

fn command(arguments: &[&str]) -> Command {
    let binary = std::env::var_os("ZETA_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_zeta").into());
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    for name in ["KAFKA", "HISTORY", "ZETA_LISTEN", "ZETA_STATE", "ZETA_LOG"] {
        command.env_remove(name);
    }
    command
}

/// What a command left that ended by itself.
pub struct Outcome {
    arguments: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// # Panics
    /// It ended with another code, or by a signal.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self {
            arguments, out, err, ..
        } = &self;
        assert_eq!(
            self.code,
            Some(code),
            "zeta {arguments}\n--- out\n{out}\n--- err\n{err}"
        );
        assert!(
            !err.contains("panicked") && !err.contains("internal error"),
            "zeta {arguments}: {err}"
        );
        self
    }
}

/// The exit code of a verb that nobody reads, neither what it prints nor its complaints.
pub fn zeta_unread(arguments: &[&str]) -> Option<i32> {
    let mut command = command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("zeta starts");
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().expect("it ends").code()
}

/// Runs a verb that ends by itself.
pub fn zeta(arguments: &[&str]) -> Outcome {
    zeta_with(&[], arguments)
}

/// The same, with variables of the environment.
pub fn zeta_with(env: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    zeta_fed("", env, arguments)
}

/// The same, with something to read on standard input.
pub fn zeta_fed(input: &str, env: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let mut command = command(arguments);
    command
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Background {
        arguments: arguments.join(" "),
        child: command.spawn().expect("zeta starts"),
        readers: None,
    };
    fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).expect("a pipe can be read");
            String::from_utf8(all).expect("zeta writes UTF-8")
        })
    }
    let (out, err) = (
        running.child.stdout.take().expect("piped"),
        running.child.stderr.take().expect("piped"),
    );
    running.readers = Some((collect(out), collect(err)));
    let mut to = running.child.stdin.take().expect("piped");
    match to.write_all(input.as_bytes()) {
        // It need not read what it is given.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.expect("a pipe can be written"),
    }
    drop(to);
    running.finish()
}

/// A verb that runs beside the test; killed where the test ends first.
pub struct Background {
    arguments: String,
    child: Child,
    readers: Option<(JoinHandle<String>, JoinHandle<String>)>,
}

impl Background {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            arguments: arguments.join(" "),
            child: command.spawn().expect("zeta starts"),
            readers: None,
        }
    }

    pub fn finish(mut self) -> Outcome {
        let status = until(&format!("the end of zeta {}", self.arguments), || {
            self.child
                .try_wait()
                .expect("our child")
                .ok_or_else(|| "it runs".to_owned())
        });
        let (out, err) = match self.readers.take() {
            Some((out, err)) => (out.join().expect("no panic"), err.join().expect("no panic")),
            None => Default::default(),
        };
        Outcome {
            arguments: self.arguments.clone(),
            code: status.code(),
            out,
            err,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself: then there is nothing to kill, and it was waited for.
    if child.try_wait().expect("our child").is_none() {
        child.kill().expect("our child can be killed");
        child.wait().expect("a killed child ends");
    }
}

/// How a Zeta is to be started.
pub struct Start {
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    /// A command and its arguments, which ends by becoming the Zeta that follows them.
    wrapper: Vec<String>,
}

impl Start {
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn state(self, folder: &Path) -> Self {
        self.arg("--state").arg(text(folder))
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Reads a source from Parquet files, as if they came now.
    pub fn replay(self, source: &str, dataset: &Path, more: &str) -> Self {
        self.arg("--source")
            .arg(format!("{source}=connector=replay,path={}{more}", text(dataset)))
    }

    pub fn wrapped(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Starts it and waits until it says where it listens.
    #[track_caller]
    pub fn start(self) -> Zeta {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = command(&arguments);
        if let Some((wrapper, rest)) = self.wrapper.split_first() {
            let mut outer = Command::new(wrapper);
            outer
                .args(rest)
                .arg(command.get_program())
                .args(command.get_args())
                .stdin(Stdio::null());
            outer.current_dir(command.get_current_dir().expect("set"));
            for (name, _) in command.get_envs() {
                outer.env_remove(name);
            }
            command = outer;
        }
        command.envs(self.env).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("zeta starts");
        let mut watch = Command::new("sh");
        // A pid alone may by then be somebody else's.
        watch.args([
            "-c",
            r#"cat >/dev/null; case "$(cat /proc/$0/comm)" in zeta*) kill -9 "$0" ;; esac"#,
            &child.id().to_string(),
        ]);
        let watchdog = Watchdog::start(watch);
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let logged = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines {
                writeln!(
                    logged.lock().expect("no panic while it is held"),
                    "{}",
                    line.expect("zeta writes UTF-8")
                )
                .expect("memory");
            }
        });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        let mut zeta = Zeta {
            url: String::new(),
            child,
            log,
            agent: config.build().new_agent(),
            _watchdog: watchdog,
        };
        zeta.url = until("zeta's address", || {
            let log = zeta.log();
            if let Some(status) = zeta.child.try_wait().expect("our child") {
                panic!("zeta {} ended with {status}: {log}", arguments.join(" "));
            }
            log.lines()
                .find_map(|line| line.strip_prefix("zeta: http").map(|rest| format!("http{rest}")))
                .ok_or(log)
        });
        zeta
    }
}

/// A running Zeta.
pub struct Zeta {
    pub url: String,
    child: Child,
    log: Arc<Mutex<String>>,
    agent: ureq::Agent,
    _watchdog: Watchdog,
}

impl Zeta {
    pub fn run(file: &Path) -> Start {
        Self::verb("run").arg(text(file))
    }

    /// A verb that listens.
    pub fn verb(verb: &str) -> Start {
        let arguments = [verb, "--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        Start {
            arguments,
            env: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("plain HTTP")
    }

    /// What it wrote to standard error by now.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while it is held").clone()
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) {
        end(&mut self.child);
    }

    /// Asks it to stop, as a service manager does, and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        let status = Command::new("kill")
            .args(["-s", "TERM", &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "zeta runs");
        until("the end of zeta", || {
            self.child.try_wait().expect("our child").ok_or_else(|| self.log())
        })
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match method {
            "GET" | "HEAD" => self.agent.run(request.body(()).expect("a request")),
            _ => self.agent.run(request.body(body).expect("a request")),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        let headers = answer.headers().iter();
        Reply {
            status: answer.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
                .collect(),
            body: answer
                .body_mut()
                .with_config()
                .limit(1 << 30)
                .read_to_vec()
                .expect("a whole body"),
        }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub fn post_sql(&self, sql: &str, accept: &str) -> Reply {
        self.request(
            "POST",
            "/api/v1/sql",
            &[("Content-Type", "application/sql"), ("Accept", accept)],
            sql.as_bytes(),
        )
    }

    /// The rows of a query, as Arrow batches.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<RecordBatch> {
        let reply = self.post_sql(sql, ARROW).expect(200);
        reply.arrow()
    }

    /// The rows of a query, as arrays of JSON values.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Value> {
        let headers = [("Content-Type", "application/sql")];
        let answer = self
            .request("POST", "/api/v1/sql?limit=10000000", &headers, sql.as_bytes())
            .expect(200)
            .json();
        assert_eq!(answer["truncated"], json!(false), "{sql}");
        answer["rows"].as_array().expect("rows").clone()
    }

    /// One source of `/api/v1/sources`.
    #[track_caller]
    pub fn source(&self, name: &str) -> Source {
        let sources = self.get("/api/v1/sources").expect(200).json();
        let found = sources["sources"]
            .as_array()
            .and_then(|sources| sources.iter().find(|source| source["name"] == name));
        Source(found.unwrap_or_else(|| panic!("no source {name} in {sources}")).clone())
    }

    /// Waits until a source says what is wanted of it.
    #[track_caller]
    pub fn until_source(&self, name: &str, what: &str, is_so: impl Fn(&Source) -> bool) -> Source {
        until(what, || {
            let source = self.source(name);
            if source.state() == "failed" && !is_so(&source) {
                panic!("source {name} failed: {}\n{}", source.reason(), self.log());
            }
            if is_so(&source) {
                Ok(source)
            } else {
                Err(source.0.to_string())
            }
        })
    }
}

impl Drop for Zeta {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!("--- log of zeta at {}\n{}---", self.url, self.log());
        }
    }
}

/// One source, as `/api/v1/sources` shows it.
#[derive(Clone, Debug)]
pub struct Source(pub Value);

impl Source {
    pub fn number(&self, name: &str) -> u64 {
        self.0[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no number {name} in {}", self.0))
    }

    /// Good rows, late ones included.
    pub fn rows(&self) -> u64 {
        self.number("rows")
    }

    /// Everything that was read, bad records included.
    pub fn read(&self) -> u64 {
        self.rows() + self.number("bad_rows")
    }

    pub fn epoch(&self) -> u64 {
        self.number("epoch")
    }

    pub fn state(&self) -> &str {
        self.0["state"].as_str().expect("a state")
    }

    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }
}

/// An answer over HTTP.
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    /// # Panics
    /// It has another status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub fn arrow(&self) -> Vec<RecordBatch> {
        assert_eq!(self.header("content-type"), ARROW);
        let reader = StreamReader::try_new(self.body.as_slice(), None).expect("an Arrow stream");
        let schema = reader.schema();
        let mut batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("whole batches");
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        batches
    }
}
