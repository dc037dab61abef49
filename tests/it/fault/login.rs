//! Brokers that ask who is there: TLS, passwords, and topics that are not for everybody.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{numbers, seen, until_failed, until_rows, until_state};
use crate::{
    kafka::{create, send},
    services::{Kafka, free_port},
    sink,
    zeta::{Start, Zeta, folder, text, until, written},
};

const PLAIN_PASSWORD: &str = "hunter2-plain";
const SCRAM_PASSWORD: &str = "hunter2-scram";
const WRONG_PASSWORD: &str = "hunter2-wrong";

/// A broker that takes logins over TLS: at one port with a right certificate, at others with one of another host and one that has expired.
struct Guarded {
    kafka: Kafka,
    folder: PathBuf,
    login: String,
    other_host: String,
    expired: String,
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!("req -x509 {KEY} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"),
    );
}

/// A certificate for a host, with its key, as a broker takes it.
fn certificate(folder: &Path, name: &str, host: &str, days: i32) -> String {
    openssl(
        folder,
        &format!("req {KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
    );
    fs::write(folder.join(format!("{name}.ext")), format!("subjectAltName={host}")).expect("a file");
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.crt -days {days} -extfile {name}.ext"
        ),
    );
    let part = |end: &str| fs::read_to_string(folder.join(format!("{name}.{end}"))).expect("made above");
    let path = folder.join(format!("{name}.pem"));
    fs::write(&path, part("key") + &part("crt")).expect("a file");
    text(&path).to_owned()
}

fn guarded() -> &'static Guarded {
    static GUARDED: OnceLock<Guarded> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let folder = folder("certificates");
        authority(&folder, "ca");
        authority(&folder, "another");
        let mut settings = String::from(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             connections.max.reauth.ms=4000\n"
        );
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for (name, host, days) in [("login", "IP:127.0.0.1", 2), ("other", "DNS:elsewhere.example", 2), ("expired", "IP:127.0.0.1", -1)] {
            let port = free_port();
            let keys = certificate(&folder, name, host, days);
            listeners.push(format!("{}=SASL_SSL:{port}:{port}", name.to_uppercase()));
            addresses.push(format!("127.0.0.1:{port}"));
            let of_listener = format!("listener.name.{name}");
            settings += &format!(
                "{of_listener}.ssl.keystore.type=PEM\n\
                 {of_listener}.ssl.keystore.location={keys}\n\
                 {of_listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_zeta=\"{PLAIN_PASSWORD}\";\n\
                 {of_listener}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            );
        }
        let kafka = Kafka::start_with(vec![("KAFKA_LISTENERS", listeners.join(" ")), ("KAFKA_SETTINGS", settings)]);
        let [login, other_host, expired] = <[String; 3]>::try_from(addresses).expect("three");
        let guarded = Guarded {
            kafka,
            folder,
            login,
            other_host,
            expired,
        };
        guarded.set_password(SCRAM_PASSWORD);
        guarded
    })
}

impl Guarded {
    /// Of the user that logs in by SCRAM.
    fn set_password(&self, password: &str) {
        let config = format!("SCRAM-SHA-512=[password={password}]");
        let arguments = [
            "configs",
            "--alter",
            "--entity-type",
            "users",
            "--entity-name",
            "scram",
            "--add-config",
        ];
        self.kafka.tool(&[&arguments[..], &[&config]].concat());
    }

    fn allow(&self, user: &str, operations: &[&str], resource: &[&str]) {
        let user = format!("User:{user}");
        let operations = operations.iter().flat_map(|operation| ["--operation", operation]);
        let arguments: Vec<&str> = (["acls", "--add", "--allow-principal", &user].into_iter())
            .chain(operations)
            .chain(resource.iter().copied())
            .collect();
        self.kafka.tool(&arguments);
    }

    fn options(&self, mechanism: &str, user: &str, authority: &str) -> String {
        format!(
            ", 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = '{mechanism}', 'sasl.username' = '{user}',
             'sasl.password' = '${{ZETA_TEST_PASSWORD}}', 'properties.ssl.ca.location' = '{}'",
            text(&self.folder.join(authority))
        )
    }
}

fn with_password(start: Start, password: &str) -> Start {
    // All that the client says about itself goes to the log.
    start.env("ZETA_TEST_PASSWORD", password).env("ZETA_LOG", "debug")
}

#[track_caller]
fn assert_no_secret(zeta: &Zeta) {
    let said = [
        zeta.log(),
        zeta.get("/api/v1/sources").text().to_owned(),
        zeta.get("/metrics").text().to_owned(),
    ];
    for said in said {
        for secret in [PLAIN_PASSWORD, SCRAM_PASSWORD, WRONG_PASSWORD] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn rows_come_over_tls_with_the_right_password_and_none_with_a_wrong_one() {
    let guarded = guarded();
    let name = "guarded";
    create(&guarded.kafka, name, 2, &[]);
    send(&guarded.kafka, name, 0..100);
    guarded.allow("zeta", &["Read"], &["--topic", name]);
    guarded.allow("scram", &["Read"], &["--topic", name]);
    for (mechanism, user, password) in [
        ("PLAIN", "zeta", PLAIN_PASSWORD),
        ("SCRAM-SHA-512", "scram", SCRAM_PASSWORD),
    ] {
        let file = written(&numbers(
            &guarded.login,
            name,
            &guarded.options(mechanism, user, "ca.pem"),
        ));
        let zeta = with_password(Zeta::run(&file).state(&folder("state")), password).start();
        until_rows(&zeta, name, 100);
        assert_eq!(seen(&zeta), (0..100).collect::<Vec<_>>(), "{mechanism}");
        assert_no_secret(&zeta);

        let zeta = with_password(Zeta::run(&file).state(&folder("state")), WRONG_PASSWORD).start();
        let reason = until_failed(&zeta, name);
        assert!(
            reason.contains("does not let us in") && reason.to_lowercase().contains("authentication failed"),
            "{mechanism}: {reason}"
        );
        assert_no_secret(&zeta);
    }
}

#[test]
fn a_broker_whose_certificate_is_not_trusted_is_not_talked_to() {
    let guarded = guarded();
    let name = "untrusted";
    create(&guarded.kafka, name, 1, &[]);
    for (brokers, authority, expected) in [
        (&guarded.login, "another.pem", "certificate verify failed"),
        (&guarded.other_host, "ca.pem", "certificate verify failed"),
        (&guarded.expired, "ca.pem", "certificate verify failed"),
    ] {
        let file = written(&numbers(brokers, name, &guarded.options("PLAIN", "zeta", authority)));
        let zeta = with_password(Zeta::run(&file).state(&folder("state")), PLAIN_PASSWORD).start();
        let source = until_state(&zeta, name, "unreachable");
        let reason = until("a reason", || {
            let reason = zeta.source(name).reason().to_owned();
            if reason.contains(expected) {
                Ok(reason)
            } else {
                Err(reason)
            }
        });
        println!("{}: {reason}", source.state());
        assert_no_secret(&zeta);
    }
}

#[test]
fn a_password_that_is_changed_is_told_and_waited_for() {
    let guarded = guarded();
    let name = "rotated";
    create(&guarded.kafka, name, 1, &[]);
    send(&guarded.kafka, name, 0..10);
    let user = "rotating";
    let set_password = |password: &str| {
        let config = format!("SCRAM-SHA-512=[password={password}]");
        guarded.kafka.tool(&[
            "configs",
            "--alter",
            "--entity-type",
            "users",
            "--entity-name",
            user,
            "--add-config",
            &config,
        ]);
    };
    set_password(SCRAM_PASSWORD);
    guarded.allow(user, &["Read"], &["--topic", name]);
    let file = written(&numbers(
        &guarded.login,
        name,
        &guarded.options("SCRAM-SHA-512", user, "ca.pem"),
    ));
    let zeta = with_password(Zeta::run(&file).state(&folder("state")), SCRAM_PASSWORD).start();
    until_rows(&zeta, name, 10);
    // A session ends after four seconds, and then the password is asked for again.
    set_password(WRONG_PASSWORD);
    let reason = until("it says so", || {
        let source = zeta.source(name);
        match source.state() {
            "unreachable" if source.reason().to_lowercase().contains("authentication failed") => {
                Ok(source.reason().to_owned())
            }
            "failed" => panic!("{}", source.reason()),
            _ => Err(source.0.to_string()),
        }
    });
    assert!(reason.starts_with("unreachable since "), "{reason}");
    set_password(SCRAM_PASSWORD);
    send(&guarded.kafka, name, 10..20);
    until_state(&zeta, name, "running");
    until_rows(&zeta, name, 20);
    assert_eq!(seen(&zeta), (0..20).collect::<Vec<_>>());
    assert_no_secret(&zeta);
}

#[test]
fn a_sink_that_may_not_write_its_topics_is_refused_at_its_start() {
    let guarded = guarded();
    let name = "denied";
    sink::create(&guarded.kafka, name);
    sink::outputs(&guarded.kafka, name);
    let input = &guarded.kafka.brokers;
    sink::send(input, name, 0..10);
    let options = guarded.options("PLAIN", "zeta", "ca.pem");
    let file = written(&sink::pipeline(input, &guarded.login, name, &options));
    let state = folder("state");
    let start = || with_password(Zeta::run(&file).state(&state), PLAIN_PASSWORD).start();
    let outputs = [format!("{name}-every"), format!("{name}-totals")];
    let markers = ["every_out", "totals_out"].map(|sink| format!("zeta-{name}-{sink}-marker"));
    let on = |topics: &[String]| {
        topics
            .iter()
            .flat_map(|topic| ["--topic".to_owned(), topic.clone()])
            .collect::<Vec<_>>()
    };
    let allow = |operations: &[&str], resource: &[String]| {
        let resource: Vec<&str> = resource.iter().map(String::as_str).collect();
        guarded.allow("zeta", operations, &resource);
    };
    let refused = |expected: &[&str]| {
        let zeta = start();
        let reason = until_failed(&zeta, name);
        assert!(
            expected.iter().all(|part| reason.contains(part)),
            "{expected:?}: {reason}"
        );
    };
    // Two sinks start, and either may be refused first.
    refused(&["does not let us", " topic `denied-"]);
    allow(&["Describe"], &on(&outputs));
    refused(&["does not let us", " topic `zeta-denied-", "-marker`"]);
    allow(&["Describe", "Read"], &on(&markers));
    refused(&["does not let us create topic `zeta-denied-", "-marker`"]);
    allow(&["Create"], &on(&markers));
    refused(&["does not let us write to topic `denied-", "operation Write"]);
    allow(&["Write"], &on(&outputs));
    refused(&[
        "does not let us write to topic `zeta-denied-",
        "-marker`",
        "operation Write",
    ]);
    allow(&["Write"], &on(&markers));
    refused(&["does not let us use the transactional id `zeta-denied-"]);
    for sink in ["every_out", "totals_out"] {
        guarded.allow(
            "zeta",
            &["Write"],
            &["--transactional-id", &format!("zeta-{name}-{sink}")],
        );
    }
    let zeta = start();
    sink::until_read(&zeta, name, 10);
    sink::assert_right(&guarded.kafka.brokers, name, 10);
}
