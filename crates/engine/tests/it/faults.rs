//! Injected faults cut the stream exactly where they say.

use hotspare_batch::RequestId;
use hotspare_engine::{EngineOptions, ScriptedOptions};

use crate::front::Front;
use crate::requests::{prompt, request, scripted};

/// Runs two sequences against an engine with `faults`; returns the tokens that arrived, and whether
/// the stream ended between two frames.
fn run(faults: &str, life: u64) -> (usize, bool) {
    let mut front = Front::start(EngineOptions {
        faults: faults.to_owned(),
        life,
        ..scripted(ScriptedOptions::default())
    });
    front.generate(&request(1, &prompt(1, 9), 50));
    front.generate(&request(2, &prompt(2, 9), 50));
    if faults.contains("hang") {
        let tokens = |front: &Front| front.answers.values().map(|a| a.ids.len()).sum::<usize>();
        front.receive_until(|front| tokens(front) >= 10);
        // Nothing more comes, and still the engine ends with its front.
        front.stream().shutdown(std::net::Shutdown::Write).unwrap();
    }
    let is_whole = front.receive_to_end();
    assert_eq!(front.fatal, None, "a fault gives no notice");
    let lengths = front.answers.values().map(|answer| answer.ids.len());
    (lengths.sum(), is_whole)
}

#[test]
fn an_engine_dies_before_after_and_within_the_frame_of_a_token() {
    for token in [1, 2, 11, 12] {
        assert_eq!(
            run(&format!("die-before-token={token}"), 0),
            (token - 1, true)
        );
        assert_eq!(run(&format!("die-after-token={token}"), 0), (token, true));
        let in_frame = format!("die-in-frame-of-token={token}");
        assert_eq!(run(&in_frame, 0), (token - 1, false));
    }
}

#[test]
fn an_engine_hangs_and_lives_on_until_its_front_goes() {
    assert_eq!(run("hang-at-token=11", 0), (10, true));
}

#[test]
fn a_restarted_engine_lives_unless_it_is_named() {
    let mut front = Front::start(EngineOptions {
        faults: "die-after-token=3".to_owned(),
        life: 1,
        ..scripted(ScriptedOptions::default())
    });
    let answers = front.run(&[request(1, &prompt(1, 9), 50)]);
    assert_eq!(answers[0].ids.len(), 50);
    assert_eq!(run("die-after-token=3,engine=1", 1), (3, true));
    assert_eq!(run("die-after-token=4,engine=all", 7), (4, true));
}

#[test]
fn slow_steps_change_no_token() {
    let options = scripted(ScriptedOptions::default());
    let generate = request(1, &prompt(1, 9), 20);
    let mut slow = Front::start(EngineOptions {
        faults: "slow-step-ms=3".to_owned(),
        ..options.clone()
    });
    let slow_answer = slow.run(std::slice::from_ref(&generate));
    let answer = Front::start(options).run(&[generate]);
    assert_eq!(slow_answer[0].ids, answer[0].ids);
    let device = slow.idle_stats().device;
    assert!(device.total_ns >= 20 * 3_000_000, "{device:?}");
    assert_eq!(slow.answers.get(&RequestId(1)), None);
}
