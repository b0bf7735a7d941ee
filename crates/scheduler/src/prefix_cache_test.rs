//! The index of prefixes by itself: what is found, what never is, and what makes way.
//!
//! Invariant: hashes are chosen by hand, so collisions are as common as a test wants.

use std::sync::Arc;

use crate::prefix_cache::{BlockContent, PrefixCache, PrefixId};

fn keys(keys: &[u64]) -> Arc<[u64]> {
    Arc::from(keys)
}

fn content<'a>(
    hash: u64,
    parent: Option<PrefixId>,
    tokens: &'a [u32],
    keys: &'a Arc<[u64]>,
) -> BlockContent<'a> {
    BlockContent {
        hash,
        parent,
        tokens,
        keys,
    }
}

#[test]
fn a_registered_prefix_is_found_by_its_content() {
    let mut cache = PrefixCache::new(4, 2);
    let none = keys(&[]);
    let first = content(10, None, &[1, 2], &none);
    let first_id = cache.register(3, &first).id;
    assert_eq!(cache.find(&first).map(|(block, _)| block), Some(3));
    let second = content(11, first_id, &[3, 4], &none);
    let second_id = cache.register(0, &second).id;
    assert_eq!(cache.find(&second), Some((0, second_id.unwrap())));
    assert!(cache.contains(0) && cache.contains(3) && !cache.contains(1));
    cache.check_integrity();
}

#[test]
fn equal_hashes_are_not_equal_content() {
    let mut cache = PrefixCache::new(4, 2);
    let (none, salt) = (keys(&[]), keys(&[1]));
    let first = content(7, None, &[1, 2], &none);
    let first_id = cache.register(0, &first).id;
    for other in [
        content(7, None, &[1, 3], &none),
        content(7, None, &[1, 2], &salt),
        content(7, first_id, &[1, 2], &none),
    ] {
        assert_eq!(cache.find(&other), None);
        let registration = cache.register(1, &other);
        assert_eq!(
            (registration.id, registration.dropped),
            (None, None),
            "the first one stays"
        );
    }
    assert!(cache.find(&first).is_some());
    cache.check_integrity();
}

#[test]
fn equal_content_stays_with_the_first_block() {
    let mut cache = PrefixCache::new(4, 2);
    let none = keys(&[]);
    let first = content(7, None, &[1, 2], &none);
    let id = cache.register(2, &first).id;
    assert_eq!(
        cache.register(1, &first).id,
        id,
        "both go on from the same entry"
    );
    assert!(!cache.contains(1));
    assert_eq!(cache.len(), 1);
}

#[test]
fn what_follows_a_forgotten_block_is_not_found_and_makes_way() {
    let mut cache = PrefixCache::new(6, 2);
    let none = keys(&[]);
    let (first, tail) = (content(1, None, &[1, 2], &none), [3, 4]);
    let old_parent = cache.register(0, &first).id;
    let orphan = content(2, old_parent, &tail, &none);
    cache.register(1, &orphan);
    assert!(cache.remove(0));
    assert!(!cache.remove(0), "once");
    let refused = content(3, old_parent, &[5, 6], &none);
    assert_eq!(
        cache.register(2, &refused).id,
        None,
        "nobody could get there"
    );

    let new_parent = cache.register(0, &first).id;
    assert_ne!(
        new_parent, old_parent,
        "the same block again is another entry"
    );
    let wanted = content(2, new_parent, &tail, &none);
    assert_eq!(
        cache.find(&wanted),
        None,
        "the orphan follows another entry"
    );
    let registration = cache.register(3, &wanted);
    assert_eq!(registration.dropped, Some(1), "the orphan makes way");
    assert_eq!(cache.find(&wanted).map(|(block, _)| block), Some(3));
    cache.check_integrity();
}
