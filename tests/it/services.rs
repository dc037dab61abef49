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
    sync::OnceLock,
};

/// One Kafka broker in a folder of its own.
pub struct Kafka {
    folder: PathBuf,
    pub brokers: String,
    /// Waits for its input to close, which the end of this process does even where no destructor runs.
    watchdog: Child,
}

impl Kafka {
    /// A broker of the test's own, to be killed and started again at will.
    pub fn start() -> Self {
        // Not in the folder of the build: the wipe outlives this process.
        let folder = tempfile::Builder::new().prefix("zeta-kafka-").tempdir().expect("a folder for the broker").keep();
        let watchdog = Command::new("sh")
            .args(["-c", "cat >/dev/null; exec \"$0\" wipe", &script("kafka.sh")])
            .env("ZETA_SERVICE_DIR", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, not the one who cleans up after them.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let mut kafka = Self { folder, brokers: String::new(), watchdog };
        kafka.up();
        let env = fs::read_to_string(kafka.folder.join("env")).expect("kafka.sh up writes env");
        kafka.brokers = env
            .lines()
            .find_map(|line| line.strip_prefix("KAFKA_BROKERS="))
            .expect("env names the brokers")
            .trim_matches('\'')
            .to_owned();
        kafka
    }

    /// The broker that tests share: they use topics of their own, and leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts it, on the same port and with the same data as before.
    pub fn up(&mut self) {
        self.run("up");
    }

    pub fn down(&mut self) {
        self.run("down");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.run("kill");
    }

    fn run(&self, verb: &str) {
        let output = Command::new(script("kafka.sh"))
            .arg(verb)
            .env("ZETA_SERVICE_DIR", &self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("kafka.sh can be run");
        assert!(output.status.success(), "kafka.sh {verb} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        self.watchdog.wait().expect("the watchdog ends once its input is closed");
    }
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(name);
    path.into_os_string().into_string().expect("the repository lies in a folder whose name is text")
}
