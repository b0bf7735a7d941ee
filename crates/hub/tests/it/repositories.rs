//! Repositories of every kind, their access, and the cache when nobody can be asked.
//!
//! Invariant: an error names what is wrong and what helps.

use hotspare_hub::{HubProgress, Token, fetch};

use crate::rig::{REPO, Rig, WEIGHTS, wanted};

#[test]
fn a_model_is_fetched_once_in_the_shared_layout() {
    let rig = Rig::new();
    let mut start = None;
    let mut num_bytes = 0;
    let fetched = fetch(&rig.config, &wanted(REPO), &mut |event| match event {
        HubProgress::Start {
            num_files,
            num_bytes,
        } => start = Some((num_files, num_bytes)),
        HubProgress::Bytes { num_new, .. } => num_bytes += num_new,
        other => panic!("{other:?}"),
    })
    .unwrap();
    rig.check_whole(&fetched);
    assert_eq!(start, Some((3, 3_000_010)));
    assert_eq!(num_bytes, 3_000_010);
    let root = rig.repo_cache();
    let expected = root.join("snapshots").join(rig.hub.commit());
    assert_eq!(fetched.path, expected);
    let mut names: Vec<_> = std::fs::read_dir(&expected)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", WEIGHTS, "tokenizer.json"],
        "only what is needed"
    );
    let target = std::fs::read_link(expected.join(WEIGHTS)).unwrap();
    let blob = target
        .strip_prefix("../../blobs")
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(blob.len(), 64, "named by its SHA-256");
    assert_eq!(
        std::fs::read_to_string(root.join("refs/main")).unwrap(),
        rig.hub.commit()
    );
    // Again: what there is and how long it is, and no file.
    let num_downloads = rig.hub.downloads().len();
    let num_before = rig.hub.requests().len() + 2;
    assert_eq!(rig.fetch().unwrap(), fetched);
    assert_eq!(rig.hub.requests().len(), num_before);
    assert_eq!(rig.hub.downloads().len(), num_downloads);
    // Offline, and with the hub gone.
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    assert_eq!(
        fetch(&offline, &wanted(REPO), &mut |_| {}).unwrap(),
        fetched
    );
    assert_eq!(rig.hub.requests().len(), num_before);
    let mut gone = rig.config.clone();
    gone.endpoint = "http://127.0.0.1:1".to_owned();
    let mut reason = String::new();
    let found = fetch(&gone, &wanted(REPO), &mut |event| {
        if let HubProgress::FromCache { reason: why } = event {
            reason = why.to_owned();
        }
    });
    assert_eq!(found.unwrap(), fetched);
    assert!(reason.contains("cannot be reached"), "{reason}");
}

#[test]
fn locked_repositories_need_a_token_which_stays_with_the_hub() {
    let mut rig = Rig::new();
    rig.hub.lock_repo(REPO, "hf_right", true);
    let error = rig.error();
    assert!(
        error.contains("gated") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    rig.config.token = Token::new("hf_wrong");
    let error = rig.error();
    assert!(
        error.contains("gated") && !error.contains("hf_wrong"),
        "{error}"
    );
    rig.config.token = Token::new("hf_right");
    rig.check_whole(&rig.fetch().unwrap());
    let requests = rig.hub.requests();
    assert!(requests.iter().any(|request| request.is_storage));
    for request in requests.iter().filter(|request| request.is_storage) {
        assert_eq!(request.authorization, None, "{request:?}");
    }
    let private = Rig::new();
    private.hub.lock_repo(REPO, "hf_right", false);
    let error = private.error();
    assert!(
        error.contains("401") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    private.check_nothing_loads();
}

#[test]
fn what_is_not_there_is_named() {
    let rig = Rig::new();
    let error = |model: &str, revision: Option<&str>| {
        let mut wanted = wanted(model);
        wanted.revision = revision.map(str::to_owned);
        fetch(&rig.config, &wanted, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(error("org/other", None).contains("no model org/other"));
    let text = error(REPO, Some("v9"));
    assert!(text.contains("revision `v9`"), "{text}");
    let text = error("org/model:x.gguf", None);
    assert!(
        text.contains("x.gguf") && text.contains("config.json"),
        "{text}"
    );
    assert!(error(REPO, Some("../../x")).contains("revision"));
}

#[test]
fn a_named_gguf_file_is_fetched_alone() {
    let rig = Rig::new();
    rig.hub
        .add_file("org/quants", "a-Q4_K_M.gguf", b"GGUF four");
    rig.hub.add_file("org/quants", "a-Q8_0.gguf", b"GGUF eight");
    let error = fetch(&rig.config, &wanted("org/quants"), &mut |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("a-Q4_K_M.gguf, a-Q8_0.gguf"), "{text}");
    for name in ["org/quants:a-Q8_0.gguf", "org/quants:a-Q8_0"] {
        let fetched = fetch(&rig.config, &wanted(name), &mut |_| {}).unwrap();
        assert_eq!(std::fs::read(&fetched.path).unwrap(), b"GGUF eight");
        assert!(fetched.path.ends_with("a-Q8_0.gguf"));
        let mut offline = rig.config.clone();
        offline.is_offline = true;
        assert_eq!(
            fetch(&offline, &wanted(name), &mut |_| {}).unwrap(),
            fetched
        );
    }
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let missing = fetch(&offline, &wanted("org/quants:a-Q4_K_M.gguf"), &mut |_| {});
    let text = missing.unwrap_err().to_string();
    assert!(
        text.contains("hotspare pull org/quants:a-Q4_K_M.gguf"),
        "{text}"
    );
}

#[test]
fn a_gguf_model_in_several_files_is_fetched_whole() {
    let rig = Rig::new();
    for number in 1..=3 {
        let name = format!("m-Q8_0-0000{number}-of-00003.gguf");
        rig.hub
            .add_file("org/split", &name, format!("GGUF {number}").as_bytes());
    }
    rig.hub.add_file("org/split", "other.gguf", b"GGUF");
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let model = wanted("org/split:m-Q8_0-00001-of-00003.gguf");
    let fetched = fetch(&rig.config, &model, &mut |_| {}).unwrap();
    assert!(fetched.path.ends_with("m-Q8_0-00001-of-00003.gguf"));
    let third = fetched.path.with_file_name("m-Q8_0-00003-of-00003.gguf");
    assert_eq!(std::fs::read(&third).unwrap(), b"GGUF 3");
    assert!(!fetched.path.with_file_name("other.gguf").exists());
    for name in ["m-Q8_0", "m-Q8_0-00002-of-00003.gguf"] {
        let model = wanted(&format!("org/split:{name}"));
        assert_eq!(fetch(&offline, &model, &mut |_| {}).unwrap(), fetched);
    }
    std::fs::remove_file(&third).unwrap();
    let error = fetch(&offline, &model, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("00003-of-00003.gguf"), "{error}");
    assert_eq!(fetch(&rig.config, &model, &mut |_| {}).unwrap(), fetched);
    assert!(third.exists());
}

#[test]
fn a_mirror_that_cannot_tell_lengths_is_enough() {
    let rig = Rig::new();
    rig.check_whole(&rig.fetch().unwrap());
    let num_before = rig.hub.requests().len();
    // The list of files, and the question how long they are.
    rig.hub.fail_api_after(1, 404);
    rig.check_whole(&rig.fetch().unwrap());
    assert_eq!(rig.hub.requests().len(), num_before + 2);
}

#[test]
fn shards_are_those_of_the_index() {
    let rig = Rig::new();
    let index = br#"{"weight_map": {"x": "m-1.safetensors", "y": "m-2.safetensors"}}"#;
    for (name, bytes) in [
        ("config.json", &b"{}"[..]),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", b"one"),
        ("consolidated.safetensors", b"a copy"),
    ] {
        rig.hub.add_file("org/shards", name, bytes);
    }
    let error = fetch(&rig.config, &wanted("org/shards"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("m-2.safetensors"), "{error}");
    rig.hub.add_file("org/shards", "m-2.safetensors", b"two");
    let fetched = fetch(&rig.config, &wanted("org/shards"), &mut |_| {}).unwrap();
    assert_eq!(
        std::fs::read(fetched.path.join("m-2.safetensors")).unwrap(),
        b"two"
    );
    assert!(!fetched.path.join("consolidated.safetensors").exists());
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    fetch(&offline, &wanted("org/shards"), &mut |_| {}).unwrap();
    std::fs::remove_file(fetched.path.join("m-1.safetensors")).unwrap();
    let error = fetch(&offline, &wanted("org/shards"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("m-1.safetensors"), "{error}");
}

#[test]
fn patterns_and_random_weights_choose_other_files() {
    let rig = Rig::new();
    let mut by_pattern = wanted(REPO);
    by_pattern.include = vec!["*.md".to_owned()];
    let fetched = fetch(&rig.config, &by_pattern, &mut |_| {}).unwrap();
    assert!(fetched.path.join("README.md").exists());
    assert!(!fetched.path.join("config.json").exists());
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    assert_eq!(fetch(&offline, &by_pattern, &mut |_| {}).unwrap(), fetched);
    by_pattern.include.push("config.*".to_owned());
    let error = fetch(&offline, &by_pattern, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("`config.*`"), "{error}");
    let mut without = wanted(REPO);
    without.has_weights = false;
    let fetched = fetch(&rig.config, &without, &mut |_| {}).unwrap();
    assert!(fetched.path.join("config.json").exists());
    assert!(!fetched.path.join(WEIGHTS).exists());
    rig.check_whole(&rig.fetch().unwrap());
}

#[test]
fn a_commit_is_completed_online_and_found_offline() {
    let rig = Rig::new();
    let mut pinned = wanted(REPO);
    pinned.revision = Some(rig.hub.commit().to_owned());
    let fetch_pinned = || fetch(&rig.config, &pinned, &mut |_| {}).unwrap();
    let fetched = fetch_pinned();
    rig.check_whole(&fetched);
    // Nothing that a look at the weights would show.
    let tokenizer = fetched.path.join("tokenizer.json");
    std::fs::remove_file(&tokenizer).unwrap();
    assert_eq!(fetch_pinned(), fetched);
    assert_eq!(std::fs::read(&tokenizer).unwrap(), b"{}");
    let num_before = rig.hub.requests().len();
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    assert_eq!(fetch(&offline, &pinned, &mut |_| {}).unwrap(), fetched);
    assert_eq!(rig.hub.requests().len(), num_before);
    assert_eq!(fetch_pinned(), fetched);
    assert_eq!(
        rig.hub.requests().len(),
        num_before + 2,
        "what there is, how long"
    );
}

#[test]
fn a_part_of_a_new_commit_does_not_hide_the_old_one() {
    let rig = Rig::new();
    rig.check_whole(&rig.fetch().unwrap());
    // As if that had been of another commit, and the branch had moved on since.
    let (root, old) = (rig.repo_cache(), "f".repeat(40));
    let snapshots = root.join("snapshots");
    std::fs::rename(snapshots.join(rig.hub.commit()), snapshots.join(&old)).unwrap();
    std::fs::write(root.join("refs/main"), &old).unwrap();
    let branch = || std::fs::read_to_string(root.join("refs/main")).unwrap();
    let mut by_pattern = wanted(REPO);
    by_pattern.include = vec!["*.md".to_owned()];
    let mut without = wanted(REPO);
    without.has_weights = false;
    for part in [&by_pattern, &wanted("org/model:config.json"), &without] {
        let fetched = fetch(&rig.config, part, &mut |_| {}).unwrap();
        assert_eq!(fetched.commit, rig.hub.commit());
        assert_eq!(branch(), old);
    }
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let found = fetch(&offline, &wanted(REPO), &mut |_| {}).unwrap();
    assert_eq!(found.commit, old);
    // A part that makes it as whole as the old one moves the branch, and the whole always does.
    let weights = format!("{REPO}:{WEIGHTS}");
    fetch(&rig.config, &wanted(&weights), &mut |_| {}).unwrap();
    assert_eq!(branch(), rig.hub.commit());
    std::fs::write(root.join("refs/main"), &old).unwrap();
    std::fs::write(snapshots.join(&old).join("extra.json"), "{}").unwrap();
    fetch(&rig.config, &by_pattern, &mut |_| {}).unwrap();
    assert_eq!(branch(), old);
    rig.check_whole(&rig.fetch().unwrap());
    assert_eq!(branch(), rig.hub.commit());
}

#[test]
fn a_busy_hub_is_asked_again_within_bounds() {
    let mut rig = Rig::new();
    rig.hub.fail_api(503);
    rig.hub.fail_api(429);
    rig.check_whole(&rig.fetch().unwrap());
    rig.config.max_num_retries = 1;
    rig.config.cache_dir = rig.directory.path().join("another");
    rig.hub.fail_api(503);
    rig.hub.fail_api(503);
    let error = rig.error();
    assert!(error.contains("503"), "{error}");
    rig.config.endpoint = "http://127.0.0.1:1".to_owned();
    let error = rig.error();
    assert!(
        error.contains("cannot be reached") && error.contains("HF_ENDPOINT"),
        "{error}"
    );
    let mut offline = rig.config.clone();
    offline.is_offline = true;
    let error = fetch(&offline, &wanted(REPO), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("hotspare pull"),
        "{error}"
    );
}

#[test]
fn what_is_no_hub_is_said_to_be_none() {
    // The storage's port knows no API.
    let rig = Rig::new();
    let mut config = rig.config.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>");
        }
    });
    let error = fetch(&config, &wanted(REPO), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not answer as a hub"), "{error}");
}
