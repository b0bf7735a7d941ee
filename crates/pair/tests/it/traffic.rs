//! What travels between the nodes beside heartbeats: streams for engines, maps and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hotspare_failover::{Command, Mode, OperationId, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::nodes::{Places, bounded, protected_pair};

/// More than any buffer on the way.
const MANY: usize = 3 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn streams_for_engine_traffic() {
    let places = Places::new();
    let (a, mut b) = protected_pair(&places, Mode::Available).await;
    let echo = tokio::spawn(async move {
        for _ in 0..2 {
            let mut stream = b.streams.next().await.expect("a stream");
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                tokio::io::copy(&mut read, &mut write)
                    .await
                    .expect("copied");
                write.shutdown().await.expect("ended");
            });
        }
        b
    });
    for seed in [1_u8, 2] {
        let stream = bounded("a stream", a.pair.connect())
            .await
            .expect("connected");
        let (mut read, mut write) = tokio::io::split(stream);
        let sent: Vec<u8> = (0..MANY).map(|at| (at as u8).wrapping_mul(seed)).collect();
        let expected = sent.clone();
        let send = async move {
            write.write_all(&sent).await.expect("written");
            write.shutdown().await.expect("ended");
        };
        let receive = async move {
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.expect("read");
            got
        };
        let ((), got) = bounded("an echo", async { tokio::join!(send, receive) }).await;
        assert!(got == expected, "{} bytes of {MANY}", got.len());
    }
    let b = bounded("two streams", echo).await.expect("served");
    b.wait_role(&["standby"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_and_counters_are_on_both() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let (on_a, on_b) = (a.pair.replicated(), b.pair.replicated());
    assert!(
        on_b.set("keys", "k", b"x").is_err(),
        "a standby does not write"
    );
    for number in 0..500 {
        let value = vec![1; 1000];
        on_a.set("keys", &format!("{number:03}"), &value)
            .expect("it serves");
    }
    let change = on_a.remove("keys", "007").expect("it serves");
    on_a.add("usage", "tenant", 40).expect("room");
    on_b.add("usage", "tenant", 2).expect("room");
    bounded("an acknowledgement", on_a.acknowledged(change)).await;
    assert_eq!(on_b.entries("keys").len(), 499);
    assert_eq!(on_b.get("keys", "007"), None);
    bounded("a flush", async {
        tokio::join!(on_a.flushed(), on_b.flushed())
    })
    .await;
    assert_eq!(
        (on_a.total("usage", "tenant"), on_b.total("usage", "tenant")),
        (42, 42)
    );
    assert_eq!(on_a.lag(), 0);
    // A node that starts again has forgotten all, and is told all.
    b.crash().await;
    a.wait_role(&["primary-solo"]).await;
    on_a.add("usage", "tenant", 1).expect("room");
    let b = places.start(1, Mode::Available).await;
    b.wait_role(&["standby"]).await;
    bounded("a flush", on_a.flushed()).await;
    let on_b = b.pair.replicated();
    assert_eq!(
        (on_b.entries("keys").len(), on_b.total("usage", "tenant")),
        (499, 43)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_waits_for_what_the_front_flushes() {
    let places = Places::new();
    let (a, b) = protected_pair(&places, Mode::Available).await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let replicated = a.pair.replicated().clone();
    a.pair.set_flush(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        // Counters of the last moment.
        let added = replicated.add("usage", "tenant", 5);
        Box::pin(async move {
            added.expect("room");
        })
    }));
    let (why, who) = (String::new(), "test".to_owned());
    let command = a
        .pair
        .command(OperationId(9), Command::Switchover, why, who);
    let outcome = bounded("the outcome", command).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    b.wait_role(&["primary"]).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let on_b = b.pair.replicated();
    assert_eq!(on_b.total("usage", "tenant"), 5);
}
