//! Downloads that are cut, damaged, stale, or wanted by several at once.
//!
//! Invariant: no byte is kept that is not right, and none is fetched twice without need.

use std::time::Duration;

use hotspare_hub::{HubProgress, fetch};
use hotspare_testkit::HubFault;

use crate::rig::{REPO, Rig, WEIGHTS, wanted};

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(500_000));
    rig.hub.add_fault(WEIGHTS, HubFault::Status(503));
    let mut retries = Vec::new();
    let fetched = fetch(&rig.config, &wanted(REPO), &mut |event| {
        if let HubProgress::Retry { num_bytes, .. } = event {
            retries.push(num_bytes);
        }
    });
    rig.check_whole(&fetched.unwrap());
    assert_eq!(retries, [1_000_000, 1_500_000, 1_500_000]);
    let range = |first: u32| Some(format!("bytes={first}-2999999"));
    let expected = [None, range(1_000_000), range(1_500_000), range(1_500_000)];
    assert_eq!(rig.weight_ranges(), expected);
}

#[test]
fn a_download_that_is_always_cut_ends_and_is_continued_by_the_next() {
    let mut rig = Rig::new();
    rig.config.max_num_retries = 2;
    for _ in 0..3 {
        rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1000));
    }
    let error = rig.error();
    assert!(
        error.contains("cut 3 times") && error.contains("3000 bytes"),
        "{error}"
    );
    rig.check_nothing_loads();
    assert_eq!(rig.incomplete_bytes(), Some(3000));
    rig.check_whole(&rig.fetch().unwrap());
    assert_eq!(
        rig.weight_ranges().last().unwrap().as_deref(),
        Some("bytes=3000-2999999")
    );
}

#[test]
fn progress_renews_patience() {
    let mut rig = Rig::new();
    rig.config.max_num_retries = 1;
    rig.config.min_retry_progress_bytes = 100_000;
    for _ in 0..6 {
        rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(400_000));
    }
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_connection_that_says_nothing_is_given_up() {
    let mut rig = Rig::new();
    rig.config.read_timeout_ms = 1000;
    // A slow machine may let it pass more often than there are stalls.
    rig.config.max_num_retries = 1000;
    rig.hub
        .add_fault(WEIGHTS, HubFault::Stall(Duration::from_secs(3600)));
    let mut reasons = Vec::new();
    let fetched = fetch(&rig.config, &wanted(REPO), &mut |event| {
        if let HubProgress::Retry { reason, .. } = event {
            reasons.push(reason.to_owned());
        }
    });
    rig.check_whole(&fetched.unwrap());
    assert!(reasons[0].contains("timeout"), "{reasons:?}");
    assert!(rig.weight_ranges().len() >= 2);
}

#[test]
fn a_refusal_leaves_what_arrived() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::Status(403));
    let error = rig.error();
    assert!(error.contains("gated"), "{error}");
    assert_eq!(rig.incomplete_bytes(), Some(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::Status(404));
    let error = rig.error();
    assert!(error.contains(WEIGHTS), "{error}");
    assert_eq!(rig.incomplete_bytes(), Some(1_000_000));
    // What a proxy in front of a storage says, and no standard has.
    rig.hub.add_fault(WEIGHTS, HubFault::Status(520));
    rig.check_whole(&rig.fetch().unwrap());
    let range = Some("bytes=1000000-2999999".to_owned());
    let mut expected = vec![range; 5];
    expected[0] = None;
    assert_eq!(rig.weight_ranges(), expected);
}

#[test]
fn a_range_that_the_storage_lacks_is_given_up() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::Status(416));
    rig.check_whole(&rig.fetch().unwrap());
    let range = Some("bytes=1000000-2999999".to_owned());
    assert_eq!(rig.weight_ranges(), [None, range, None]);
}

#[test]
fn the_same_bytes_again_are_no_progress() {
    let mut rig = Rig::new();
    rig.config.max_num_retries = 3;
    rig.config.min_retry_progress_bytes = 100_000;
    for _ in 0..4 {
        rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(400_000));
        rig.hub.add_fault(WEIGHTS, HubFault::Status(416));
    }
    let error = rig.error();
    assert!(error.contains("cut 4 times"), "{error}");
}

#[test]
fn storage_without_ranges_is_read_from_the_beginning() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::CutAfter(1_000_000));
    rig.hub.add_fault(WEIGHTS, HubFault::IgnoreRange);
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_wrong_hash_is_thrown_away() {
    let rig = Rig::new();
    rig.hub.add_fault(WEIGHTS, HubFault::Damage);
    let error = rig.error();
    assert!(
        error.contains("SHA-256") && error.contains(WEIGHTS),
        "{error}"
    );
    rig.check_nothing_loads();
    assert_eq!(rig.incomplete_bytes(), None, "nothing of it stays");
    let small = Rig::new();
    small.hub.add_fault("config.json", HubFault::Damage);
    let error = small.error();
    assert!(
        error.contains("git hash") && error.contains("config.json"),
        "{error}"
    );
    small.check_nothing_loads();
}

#[test]
fn a_stale_beginning_is_found_out() {
    let rig = Rig::new();
    rig.check_whole(&rig.fetch().unwrap());
    let snapshot = rig.repo_cache().join("snapshots").join(rig.hub.commit());
    let blob = snapshot.join(WEIGHTS).canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let incomplete = blob.with_extension("incomplete");
    std::fs::write(&incomplete, vec![9; 1_000_000]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
    let ranges = rig.weight_ranges();
    let expected = [Some("bytes=1000000-2999999".to_owned()), None];
    assert_eq!(
        ranges[ranges.len() - 2..],
        expected,
        "continued, found wrong, read anew"
    );
    // A blob that lost its end is no blob.
    std::fs::write(&blob, &rig.weights[..5]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
    // Longer than the file can be.
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&incomplete, vec![9; 4_000_000]).unwrap();
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn two_that_fetch_at_once_download_once() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| rig.check_whole(&rig.fetch().unwrap()));
        }
    });
    assert_eq!(
        rig.weight_ranges(),
        [None],
        "the others waited for the first"
    );
}

#[test]
fn a_lock_is_waited_for_within_bounds() {
    let mut rig = Rig::new();
    rig.config.lock_timeout_ms = 300;
    rig.check_whole(&rig.fetch().unwrap());
    let root = rig.repo_cache();
    let snapshot = root.join("snapshots").join(rig.hub.commit());
    let blob = snapshot.join(WEIGHTS).canonicalize().unwrap();
    std::fs::remove_file(&blob).unwrap();
    let etag = blob.file_name().unwrap().to_str().unwrap();
    let lock = rig
        .directory
        .path()
        .join(format!("hub/.locks/models--org--model/{etag}.lock"));
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let mut waited = false;
    let result = fetch(&rig.config, &wanted(REPO), &mut |event| {
        waited |= matches!(event, HubProgress::Waiting { .. });
    });
    let error = result.unwrap_err().to_string();
    assert!(waited && error.contains("another process"), "{error}");
    held.unlock().unwrap();
    rig.check_whole(&rig.fetch().unwrap());
}
