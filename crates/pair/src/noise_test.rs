//! Handshakes and streams under Noise, over pipes in memory.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const TIMEOUT_MS: u64 = 5_000;

fn keys(bytes: &[u8]) -> PairKeys {
    let keys: Vec<[u8; 32]> = bytes.iter().map(|&byte| [byte; 32]).collect();
    PairKeys::new(&keys).expect("keys")
}

fn hello(boot: u64, purpose: Purpose) -> Hello {
    Hello {
        node: format!("node-{boot}"),
        rank: 1,
        boot,
        purpose,
    }
}

type Side = Result<(NoiseStream<DuplexStream>, Hello), HandshakeError>;

async fn shake(one: &[u8], two: &[u8]) -> (Side, Side) {
    let (a, b) = duplex(1 << 20);
    let (one, two) = (keys(one), keys(two));
    let (mine, yours) = (hello(1, Purpose::Engine), hello(2, Purpose::Control));
    tokio::join!(
        initiate(a, &one, &[], &mine, TIMEOUT_MS),
        respond(b, &two, &[], &yours, TIMEOUT_MS),
    )
}

#[tokio::test]
async fn both_learn_who_the_other_one_is() {
    let (a, b) = shake(&[1], &[1]).await;
    let ((mut a, of_b), (mut b, of_a)) = (a.expect("a"), b.expect("b"));
    assert_eq!(of_a, hello(1, Purpose::Engine));
    assert_eq!(of_b.boot, 2);
    a.write_all(b"to the peer").await.expect("written");
    a.flush().await.expect("flushed");
    let mut read = [0; 11];
    b.read_exact(&mut read).await.expect("read");
    assert_eq!(&read, b"to the peer");
}

#[tokio::test]
async fn keys_rotate_without_a_gap() {
    // `old, new` meets `old`; `new, old` meets `old, new`; `new` meets `new, old`.
    for (one, two) in [
        ([1, 2].as_slice(), [1].as_slice()),
        (&[2, 1], &[1, 2]),
        (&[2], &[2, 1]),
    ] {
        let (a, b) = shake(one, two).await;
        assert!(a.is_ok() && b.is_ok(), "{one:?} to {two:?}");
    }
}

#[tokio::test]
async fn another_key_never_connects() {
    let (a, b) = shake(&[1], &[2]).await;
    assert!(a.is_err());
    assert!(matches!(b, Err(HandshakeError::WrongKey)));
    // The right id with another key: a forger who saw the id in clear.
    let (mut forger, server) = duplex(1 << 16);
    let (right, wrong) = (keys(&[1]), keys(&[2]));
    let answer = tokio::spawn(async move {
        respond(server, &right, &[], &hello(2, Purpose::Control), TIMEOUT_MS).await
    });
    let mut prelude = [0; PRELUDE_BYTES];
    prelude[..4].copy_from_slice(&MAGIC);
    prelude[4] = WIRE_VERSION;
    prelude[5..].copy_from_slice(&keys(&[1]).signing().expect("a key").id);
    let key = wrong.signing().expect("a key");
    let mut noise = builder(&key.noise, &prelude)
        .and_then(|b| b.build_initiator().map_err(|_| HandshakeError::Malformed))
        .expect("an initiator");
    send(&mut forger, &prelude, &mut noise, &[])
        .await
        .expect("sent");
    let result = answer.await.expect("answered");
    assert!(
        matches!(result, Err(HandshakeError::WrongKey)),
        "{result:?}"
    );
}

#[tokio::test]
async fn nonsense_and_other_versions_are_told_apart() {
    let future = [MAGIC.as_slice(), &[WIRE_VERSION + 1, 0, 0, 0, 0]].concat();
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), "a malformed handshake"),
        (future, "it speaks version 2, this node 1"),
    ] {
        let (mut client, server) = duplex(1 << 16);
        client.write_all(&bytes).await.expect("written");
        let yours = hello(2, Purpose::Control);
        let result = respond(server, &keys(&[1]), &[], &yours, TIMEOUT_MS).await;
        assert_eq!(result.expect_err("refused").to_string(), expected);
    }
}

#[tokio::test]
async fn a_cut_is_told_from_an_end() {
    let (a, b) = shake(&[1], &[1]).await;
    let ((mut a, _), (mut b, _)) = (a.expect("a"), b.expect("b"));
    a.write_all(b"all").await.expect("written");
    a.shutdown().await.expect("ended");
    let mut read = Vec::new();
    b.read_to_end(&mut read)
        .await
        .expect("an end that was meant");
    assert_eq!(read, b"all");
    b.write_all(b"half").await.expect("written");
    b.flush().await.expect("flushed");
    drop(b);
    let mut read = Vec::new();
    let error = a.read_to_end(&mut read).await.expect_err("a cut");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(read, b"half");
}

#[tokio::test]
async fn a_changed_byte_is_an_error() {
    let (a, b) = shake(&[1], &[1]).await;
    let ((mut a, _), (b, _)) = (a.expect("a"), b.expect("b"));
    a.write_all(b"text").await.expect("written");
    a.flush().await.expect("flushed");
    // Takes the record out of the pipe, changes it, and plays it back from another one.
    let (mut raw_in, raw_out) = duplex(1 << 16);
    let mut pipe = None;
    let mut b = b
        .map_inner(|inner| {
            pipe = Some(inner);
            Ok::<_, ()>(raw_out)
        })
        .expect("moved");
    let mut record = vec![0; 2 + 4 + 16];
    let mut pipe = pipe.expect("a pipe");
    pipe.read_exact(&mut record).await.expect("a record");
    record[5] ^= 1;
    raw_in.write_all(&record).await.expect("written");
    let error = b.read_u8().await.expect_err("forged");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any bytes in any pieces, through pipes of any size, come out as they went in.
    #[test]
    fn bytes_come_out_as_they_went_in(
        len in 0_usize..400_000,
        piece in 1_usize..100_000,
        pipe in 1_usize..100_000,
        step in any::<u8>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let sent: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(step | 1)).collect();
        let expected = sent.clone();
        let read = runtime.block_on(async move {
            let (a, b) = duplex(pipe);
            let (mine, yours) = (hello(1, Purpose::Engine), hello(2, Purpose::Control));
            let (one, two) = (keys(&[1]), keys(&[1]));
            let (a, b) = tokio::join!(
                initiate(a, &one, &[], &mine, TIMEOUT_MS),
                respond(b, &two, &[], &yours, TIMEOUT_MS),
            );
            let ((mut a, _), (mut b, _)) = (a.expect("a"), b.expect("b"));
            let write = async move {
                for part in sent.chunks(piece) {
                    a.write_all(part).await.expect("written");
                }
                a.shutdown().await.expect("ended");
            };
            let read = async move {
                let mut read = Vec::new();
                b.read_to_end(&mut read).await.expect("read");
                read
            };
            tokio::join!(write, read).1
        });
        prop_assert!(read == expected);
    }
}
