//! Real services for tests, started by the scripts in `tests/services`.
//!
//! ```text
//! Kafka::start ─▶ kafka.sh up ─▶ env ─▶ brokers
//! the test process ends, however it ends ─▶ its end of the watchdog's pipe closes ─▶ kafka.sh wipe
//! ```

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// One instance of a service, in a folder of its own.
struct Service {
    script: &'static str,
    folder: PathBuf,
    /// What the script takes from the environment.
    settings: Vec<(&'static str, String)>,
    _watchdog: Watchdog,
}

impl Service {
    /// Nothing runs yet.
    fn new(script: &'static str, settings: Vec<(&'static str, String)>) -> Self {
        // Not in the folder of the build: the wipe outlives this process.
        let prefix = format!("zeta-{}-", script.trim_end_matches(".sh"));
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a folder for the service")
            .keep();
        let mut wipe = Command::new("sh");
        wipe.args(["-c", "cat >/dev/null; exec \"$0\" wipe", &path_of(script)])
            .env("ZETA_SERVICE_DIR", &folder);
        Self {
            script,
            folder,
            settings,
            _watchdog: Watchdog::start(wipe),
        }
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new(path_of(self.script))
            .args(arguments)
            .env("ZETA_SERVICE_DIR", &self.folder)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .expect("the script can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {} failed: {said}",
            self.script,
            arguments.join(" ")
        );
    }

    /// What the script wrote down when it started the service.
    fn env(&self, name: &str) -> String {
        let env = fs::read_to_string(self.folder.join("env")).expect("`up` writes env");
        let value = env.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value
            .unwrap_or_else(|| panic!("{} writes no {name}", self.script))
            .trim_matches('\'')
            .to_owned()
    }
}

/// A shell that waits for its input to close, which the end of this process does even where no destructor runs, and then cleans up.
pub struct Watchdog(Child);

impl Watchdog {
    /// `command` reads its input to the end before it does anything.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C ends the tests, not the one who cleans up after them.
        Self(command.process_group(0).spawn().expect("sh starts"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("the watchdog ends once its input is closed");
    }
}

/// One Kafka broker: KRaft, or an older one with ZooKeeper.
pub struct Kafka {
    service: Service,
    pub brokers: String,
}

impl Kafka {
    /// A broker of the test's own, to be killed and started again at will.
    pub fn start() -> Self {
        Self::started("kafka.sh", vec![])
    }

    /// Kafka 3.9 with ZooKeeper 3.8.
    pub fn start_with_zookeeper() -> Self {
        Self::started("kafka-zookeeper.sh", vec![])
    }

    /// A broker of the test's own, with what the script takes from the environment.
    pub fn start_with(settings: Vec<(&'static str, String)>) -> Self {
        Self::started("kafka.sh", settings)
    }

    /// A broker that has an address and does not run yet.
    pub fn absent() -> Self {
        let port = free_port();
        let service = Service::new("kafka.sh", vec![("KAFKA_PORT", port.to_string())]);
        Self {
            service,
            brokers: format!("127.0.0.1:{port}"),
        }
    }

    /// The broker that tests share: they use topics of their own, and leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn started(script: &'static str, settings: Vec<(&'static str, String)>) -> Self {
        let service = Service::new(script, settings);
        service.run(&["up"]);
        let brokers = service.env("KAFKA_BROKERS");
        Self { service, brokers }
    }

    /// Starts it, on the same port and with the same data as before.
    pub fn up(&mut self) {
        self.service.run(&["up"]);
    }

    pub fn down(&mut self) {
        self.service.run(&["down"]);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.service.run(&["kill"]);
    }

    /// Freezes it: its connections stand, and nobody answers on them.
    pub fn pause(&mut self) {
        self.service.run(&["pause"]);
    }

    pub fn resume(&mut self) {
        self.service.run(&["resume"]);
    }

    /// kill -9 of the ZooKeeper that it began with; `up` starts that again.
    pub fn kill_zookeeper(&mut self) {
        self.service.run(&["kill-zookeeper"]);
    }

    /// Runs one of Kafka's own tools on it.
    pub fn tool(&self, arguments: &[&str]) {
        self.service.run(arguments);
    }

    /// Where its partitions lie.
    pub fn log_folder(&self) -> PathBuf {
        self.service.folder.join("log")
    }
}

/// One NameNode and one DataNode.
pub struct Hdfs {
    service: Service,
    /// `hdfs://127.0.0.1:PORT`
    pub url: String,
}

impl Hdfs {
    pub fn start() -> Self {
        let service = Service::new("hdfs.sh", vec![]);
        service.run(&["up"]);
        let url = service.env("HDFS_URL");
        Self { service, url }
    }

    /// Copies all files of a folder into one of HDFS, which is made.
    pub fn put(&self, from: &Path, to: &str) {
        let mut files: Vec<String> = fs::read_dir(from)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .into_os_string()
                    .into_string()
                    .expect("a name that is text")
            })
            .collect();
        files.sort();
        let arguments: Vec<&str> = ["put"]
            .into_iter()
            .chain(files.iter().map(String::as_str))
            .chain([to])
            .collect();
        self.service.run(&arguments);
    }

    /// Copies a folder of HDFS into one on disk.
    pub fn get(&self, from: &str, to: &Path) {
        let to = to.to_str().expect("a name that is text");
        self.service.run(&["dfs", "-get", from, to]);
    }

    /// What lies in a folder; nothing where there is none.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let port = self.service.env("HDFS_HTTP_PORT");
        let url = format!("http://127.0.0.1:{port}/webhdfs/v1{folder}?op=LISTSTATUS");
        match ureq::get(&url).call() {
            Ok(mut answer) => {
                let listed: serde_json::Value = answer.body_mut().read_json().expect("JSON");
                let entries = listed["FileStatuses"]["FileStatus"].as_array().expect("a list");
                let name = |entry: &serde_json::Value| entry["pathSuffix"].as_str().expect("a name").to_owned();
                entries.iter().map(name).collect()
            }
            Err(ureq::Error::StatusCode(404)) => Vec::new(),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Freezes the `namenode` or the `datanode`: its connections stand, and nobody answers on them.
    pub fn pause(&mut self, node: &str) {
        self.service.run(&["pause", node]);
    }

    pub fn resume(&mut self, node: &str) {
        self.service.run(&["resume", node]);
    }

    /// Runs `hdfs dfsadmin`.
    pub fn admin(&self, arguments: &[&str]) {
        let whole: Vec<&str> = ["dfsadmin"].iter().chain(arguments).copied().collect();
        self.service.run(&whole);
    }

    /// kill -9 of the `namenode` or the `datanode`.
    pub fn kill(&mut self, node: &str) {
        self.service.run(&["kill", node]);
    }

    /// Starts what does not run, on the same ports and with the same data as before.
    pub fn up(&mut self) {
        self.service.run(&["up"]);
    }
}

/// nginx with the configuration of compose/nginx.
pub struct Nginx {
    /// Kept for its end.
    _service: Service,
    pub url: String,
}

impl Nginx {
    /// In front of the Zeta at `address`, with the page that was built into web/dist.
    pub fn start(address: &str) -> Self {
        let service = Service::new("nginx.sh", vec![("ZETA_ADDRESS", address.to_owned())]);
        service.run(&["up"]);
        let url = service.env("NGINX_URL");
        Self { _service: service, url }
    }
}

/// A port that nobody listens on, outside of the range from which outgoing connections get theirs; each call gives another one.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Different processes begin at different places.
    let first = 10_000 + u16::try_from(std::process::id() % 8_000).expect("below 8,000");
    (0..2_000)
        .map(|_| first + GIVEN.fetch_add(1, Ordering::Relaxed) % 2_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of thousands of ports is free")
}

fn path_of(script: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/services")
        .join(script);
    path.into_os_string()
        .into_string()
        .expect("the repository lies in a folder whose name is text")
}
