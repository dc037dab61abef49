//! Brokers that freeze, die and come back, and a ZooKeeper that is gone.

use std::time::Duration;

use super::{numbers, seen, until_rows, until_state};
use crate::{
    kafka::{Read, create, from_start, send, source},
    services::Kafka,
    zeta::{Zeta, folder, now, until, written},
};

#[test]
fn a_broker_that_freezes_is_unreachable_after_a_while_and_nothing_is_lost() {
    let mut kafka = Kafka::start();
    let name = "frozen";
    create(&kafka, name, 2, &[]);
    send(&kafka, name, 0..1_000);
    // The client gives a request up after six seconds, not after sixty.
    let file = written(&numbers(
        &kafka.brokers,
        name,
        ", 'properties.socket.timeout.ms' = '6000'",
    ));
    let zeta = Zeta::run(&file).state(&folder("state")).start();
    until_rows(&zeta, name, 1_000);

    // For a moment: nobody needs to hear of it.
    kafka.pause();
    kafka.resume();
    send(&kafka, name, 1_000..2_000);
    until_rows(&zeta, name, 2_000);

    kafka.pause();
    let frozen = now();
    let source = until_state(&zeta, name, "unreachable");
    let seconds = frozen.elapsed().as_secs_f64();
    println!(
        "a frozen broker was unreachable after {seconds:.1} s: {}",
        source.reason()
    );
    assert!(source.reason().starts_with("unreachable since "), "{}", source.reason());
    assert!(source.reason().contains("not answer"), "{}", source.reason());
    // Past the client's own time-outs and its attempts to connect anew: it goes on being unreachable, and never fails.
    until("the time-outs are over", || match zeta.source(name).state() {
        "unreachable" if Duration::from_secs(16) < frozen.elapsed() => Ok(()),
        "unreachable" => Err("unreachable".to_owned()),
        other => panic!("{other} while nobody answers"),
    });
    kafka.resume();
    until_state(&zeta, name, "running");
    send(&kafka, name, 2_000..3_000);
    until_rows(&zeta, name, 3_000);
    assert_eq!(seen(&zeta), (0..3_000).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_is_killed_again_and_again_loses_and_repeats_nothing() {
    let mut kafka = Kafka::start();
    let name = "killed_often";
    create(&kafka, name, 2, &[]);
    let zeta = Zeta::run(&written(&numbers(&kafka.brokers, name, "")))
        .state(&folder("state"))
        .start();
    for round in 0..3 {
        send(&kafka, name, round * 1_000..(round + 1) * 1_000);
        if round == 1 {
            until_rows(&zeta, name, 2_000);
        }
        // In the first round and the last, some rows are on their way.
        kafka.kill();
        let source = until_state(&zeta, name, "unreachable");
        assert!(source.reason().starts_with("unreachable since "), "{}", source.reason());
        kafka.up();
        until_state(&zeta, name, "running");
    }
    until_rows(&zeta, name, 3_000);
    assert_eq!(seen(&zeta), (0..3_000).collect::<Vec<_>>());
}

#[test]
fn without_its_zookeeper_a_broker_is_read_on_and_after_it_too() {
    let mut kafka = Kafka::start_with_zookeeper();
    let name = "keeper";
    create(&kafka, name, 2, &[]);
    send(&kafka, name, 0..1_000);
    let file = written(&numbers(&kafka.brokers, name, ""));
    let state = folder("state");
    let zeta = Zeta::run(&file).state(&state).start();
    until_rows(&zeta, name, 1_000);
    kafka.kill_zookeeper();
    send(&kafka, name, 1_000..2_000);
    until_rows(&zeta, name, 2_000);
    // A start needs no ZooKeeper either.
    zeta.kill();
    let zeta = Zeta::run(&file).state(&state).start();
    until_rows(&zeta, name, 2_000);
    // Longer than the broker's session, which is 4 s.
    let gone = now();
    until_state(&zeta, name, "running");
    until("the session is over", || match zeta.source(name).state() {
        "running" if Duration::from_secs(6) < gone.elapsed() => Ok(()),
        "running" => Err("running".to_owned()),
        other => panic!("{other}"),
    });
    kafka.up();
    send(&kafka, name, 2_000..3_000);
    until_rows(&zeta, name, 3_000);
    assert_eq!(seen(&zeta), (0..3_000).collect::<Vec<_>>());
    // A topic made by the new ZooKeeper's means has an id, too.
    create(&kafka, "keeper-after", 1, &[]);
}

#[test]
fn a_reader_that_does_not_ask_for_long_is_thrown_out_of_nothing() {
    let kafka = Kafka::shared();
    create(kafka, "patient", 1, &[]);
    send(kafka, "patient", 0..10);
    // A member of a group that polls so rarely loses its partitions.
    let limits = [
        ("properties.session.timeout.ms", "1000"),
        ("properties.max.poll.interval.ms", "1000"),
    ];
    let mut source = source(&kafka.brokers, "patient", &limits);
    from_start(&mut source);
    let mut read = Read::default();
    read.until(&mut source, 10);
    let began = now();
    until("three times the limit", || {
        match Duration::from_secs(3) < began.elapsed() {
            true => Ok(()),
            false => Err(String::new()),
        }
    });
    send(kafka, "patient", 10..20);
    read.until(&mut source, 20);
    assert_eq!(read.numbers(), (0..20).collect::<Vec<_>>());
}
