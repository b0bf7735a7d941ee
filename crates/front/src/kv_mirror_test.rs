//! What becomes of a lost engine's KV blocks: who is told, when, and for how long.

use futures::StreamExt;
use hotspare_engine::{EngineOptions, ScriptedOptions};
use hotspare_link::{EngineMessage, FrontMessage};

use super::*;
use crate::testing::{
    Puppet, PuppetLauncher, ScriptedLauncher, config, event, job, model_info, scripted,
};
use crate::testing_streams::{collect, engine_falls_idle, metric, proved, pull, ready};
use crate::{Front, FrontConfig, ShadowMode};

const RETENTION: Duration = Duration::from_secs(10);

#[test]
fn what_was_lost_last_is_held_for_a_while() {
    let mut lost = LostMirrors::default();
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert!(!lost.expire(start, RETENTION), "there was none");
    assert_eq!(lost.expires_at(RETENTION), None);
    let mirrors: Vec<_> = (0..3)
        .map(|_| Arc::new(KvMirror::create().unwrap()))
        .collect();
    for (seconds, mirror) in (0..).zip(&mirrors) {
        lost.push(Arc::clone(mirror), after(seconds));
    }
    assert_eq!(Arc::strong_count(&mirrors[0]), 1, "there is room for two");
    assert_eq!(lost.expires_at(RETENTION), Some(after(11)));
    assert!(!lost.expire(after(11), RETENTION), "there is one left");
    assert_eq!(Arc::strong_count(&mirrors[1]), 1);
    assert_eq!(Arc::strong_count(&mirrors[2]), 2);
    assert!(lost.expire(after(12), RETENTION));
    assert_eq!(Arc::strong_count(&mirrors[2]), 1);
}

#[test]
fn another_opening_sees_the_same_file() {
    let mirror = KvMirror::create().unwrap();
    std::fs::write(mirror.path(), b"blocks").unwrap();
    assert_eq!(std::fs::read(mirror.path()).unwrap(), b"blocks");
}

fn with_a_spare() -> FrontConfig {
    FrontConfig {
        num_spare_engines: 1,
        spare_shadow: ShadowMode::Off,
        kv_mirror_retention_ms: 300,
        ..config()
    }
}

/// How a puppet's life ends.
type End = fn(&mut Puppet);

/// What the spare is told when the engine that serves a stream ends so, up to the stream's own
/// request; and the spare.
async fn told(end: End) -> (Vec<FrontMessage>, Puppet, impl Sized) {
    let (launcher, mut puppets) = PuppetLauncher::with_kv_mirrors();
    let handle = Front::start(with_a_spare(), model_info(None), launcher);
    let mut main = proved(&mut puppets, 1).await;
    let front = ready(&handle).await;
    let mut spare = proved(&mut puppets, 2).await;
    let serving = pull(move || {
        let request = main.admit();
        let first = hotspare_batch::SequenceEvent {
            request_id: request.request_id,
            attempt: request.attempt,
            ..event(0, &[8])
        };
        main.step(1, first);
        main
    });
    let mut stream = front.generate(job(&[&[5, 6, 7]], 60)).await.unwrap();
    let mut main = serving.await;
    stream.next().await.expect("a token").unwrap();
    // It goes on as it is read.
    let reading = tokio::spawn(async move { while stream.next().await.is_some() {} });
    let heard = pull(move || {
        end(&mut main);
        drop(main);
        let mut heard = Vec::new();
        loop {
            let message = spare.receive().expect("the front is there");
            let is_request = matches!(message, FrontMessage::Generate(_));
            heard.push(message);
            if is_request {
                return (heard, spare);
            }
        }
    });
    let (heard, spare) = heard.await;
    (heard, spare, (reading, handle, puppets))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_streams_over_is_told_first_and_told_to_forget() {
    let (heard, mut spare, kept) = told(|_| ()).await;
    let [
        FrontMessage::AdoptKv { path },
        FrontMessage::Generate(request),
    ] = &heard[..]
    else {
        panic!("{heard:?}");
    };
    assert_eq!(request.num_delivered, 1);
    std::fs::write(path, b"blocks").expect("the file is held");
    let last = pull(move || spare.receive());
    assert_eq!(last.await, Some(FrontMessage::ForgetKv));
    let gone = std::fs::read(path);
    assert!(gone.is_err() || gone.is_ok_and(|bytes| bytes != b"blocks"));
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_computed_that_is_not_sound_is_not_used() {
    let says_so: End = |main| {
        let message = "NaN everywhere".to_owned();
        main.send(&EngineMessage::Fatal { message });
    };
    for end in [says_so, Puppet::send_garbage] {
        let (heard, ..) = told(end).await;
        assert!(
            matches!(heard[..], [FrontMessage::Generate(_)]),
            "{heard:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_from_the_blocks_of_engines_that_died() {
    for num_spare_engines in [0, 1] {
        let launcher = ScriptedLauncher(|_| EngineOptions {
            // Three in a row.
            faults: "engine=all,die-after-token=60".to_owned(),
            ..scripted(ScriptedOptions {
                step_time_us: 500,
                ..ScriptedOptions::default()
            })
        });
        let config = FrontConfig {
            num_spare_engines,
            spare_shadow: ShadowMode::Auto,
            has_kv_mirror: true,
            ..config()
        };
        let handle = Front::start(config, model_info(None), Arc::new(launcher));
        let front = ready(&handle).await;
        let prompt: Vec<u32> = (5..45).collect();
        let params = job(&[&prompt], 200);
        let script = ScriptedOptions::default();
        let expected = script.continuation(&prompt, 0, &params.sampling, &params.stop, 200);
        let answers = collect(front.generate(params).await.unwrap());
        assert_eq!(answers.await.unwrap()[0].token_ids, expected);
        engine_falls_idle(&front).await;
        // 40 at first, then 100, 160 and 220 again; of those, but for what the last two steps
        // filled, all that was in whole blocks.
        let num_queries = metric(&front, "vllm:prefix_cache_queries_total");
        let num_hits = metric(&front, "vllm:prefix_cache_hits_total");
        assert!(num_queries >= 500.0, "{num_queries}");
        let num_missed = num_queries - 40.0 - num_hits;
        assert!(
            num_missed <= 3.0 * 40.0,
            "{num_spare_engines}: {num_missed} read again"
        );
    }
}
