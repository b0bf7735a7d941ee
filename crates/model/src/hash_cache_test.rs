//! The cache of hashes: what it finds again, what it must not, and what it does when it cannot.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A weight file, and a cache beside it.
struct Rig {
    directory: tempfile::TempDir,
    cache: HashCache,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rig = Self {
            cache: HashCache::impatient(&directory.path().join("cache")),
            directory,
        };
        std::fs::write(rig.path(), b"weights").unwrap();
        rig
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("model.safetensors")
    }

    fn identity(&self) -> FileIdentity {
        let file = File::open(self.path()).unwrap();
        FileIdentity::of(&file, &self.path()).unwrap()
    }

    fn entry(&self) -> PathBuf {
        self.cache.entry_path(&self.identity())
    }
}

fn hash(text: &str) -> blake3::Hash {
    blake3::hash(text.as_bytes())
}

#[test]
fn an_unchanged_file_is_found_again_under_any_name_of_its_path() {
    let rig = Rig::new();
    assert_eq!(rig.cache.get(&rig.identity()), None);
    rig.cache.put(&rig.identity(), &hash("a"));
    assert_eq!(rig.cache.get(&rig.identity()), Some(hash("a")));
    let link = rig.directory.path().join("link");
    std::os::unix::fs::symlink(rig.path(), &link).unwrap();
    let through_link = FileIdentity::of(&File::open(&link).unwrap(), &link).unwrap();
    assert_eq!(rig.cache.get(&through_link), Some(hash("a")));
    let left: Vec<_> = std::fs::read_dir(&rig.cache.directory).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays: {left:?}");
}

#[test]
fn a_changed_file_is_not_found() {
    let rig = Rig::new();
    let before = rig.identity();
    rig.cache.put(&before, &hash("a"));
    // Same length, and the old time of modification: only the inode's own time tells.
    let modified = std::fs::metadata(rig.path()).unwrap().modified().unwrap();
    std::fs::write(rig.path(), b"Weights").unwrap();
    let file = File::options().write(true).open(rig.path()).unwrap();
    file.set_modified(modified).unwrap();
    let after = rig.identity();
    assert_eq!(after.modified_ns, before.modified_ns);
    assert_ne!(after, before);
    assert_eq!(rig.cache.get(&after), None);
    // Replaced by another file.
    rig.cache.put(&after, &hash("b"));
    std::fs::write(rig.directory.path().join("new"), b"WEIGHTS").unwrap();
    std::fs::rename(rig.directory.path().join("new"), rig.path()).unwrap();
    assert_eq!(rig.cache.get(&rig.identity()), None);
    // What was hashed while it was replaced is not kept.
    rig.cache.put(&after, &hash("b"));
    assert_eq!(rig.cache.get(&rig.identity()), None);
}

#[test]
fn a_file_that_changed_just_now_is_not_kept() {
    let rig = Rig::new();
    let patient = HashCache::new(&rig.directory.path().join("cache"));
    patient.put(&rig.identity(), &hash("a"));
    assert_eq!(patient.get(&rig.identity()), None);
}

#[test]
fn a_damaged_entry_is_no_entry() {
    let rig = Rig::new();
    rig.cache.put(&rig.identity(), &hash("a"));
    let good = std::fs::read(rig.entry()).unwrap();
    for len in 0..good.len() - 1 {
        std::fs::write(rig.entry(), &good[..len]).unwrap();
        assert_eq!(rig.cache.get(&rig.identity()), None, "{len} bytes");
    }
    for at in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(rig.entry(), &bad).unwrap();
        let found = rig.cache.get(&rig.identity());
        assert_eq!(found, None, "byte {at}");
    }
    std::fs::write(rig.entry(), [0xff; 100]).unwrap();
    assert_eq!(rig.cache.get(&rig.identity()), None);
    std::fs::remove_file(rig.entry()).unwrap();
    std::fs::create_dir(rig.entry()).unwrap();
    assert_eq!(rig.cache.get(&rig.identity()), None);
    rig.cache.put(&rig.identity(), &hash("a"));
    assert_eq!(
        rig.cache.get(&rig.identity()),
        None,
        "a directory is in the way"
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let rig = Rig::new();
    std::fs::write(rig.directory.path().join("cache"), b"a file").unwrap();
    rig.cache.put(&rig.identity(), &hash("a"));
    assert_eq!(rig.cache.get(&rig.identity()), None);
    let locked = rig.directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    let cache = HashCache::impatient(&locked);
    cache.put(&rig.identity(), &hash("a"));
    // Root may write anywhere; anyone else may not.
    let found = cache.get(&rig.identity());
    assert!(found.is_none() || found == Some(hash("a")), "{found:?}");
}

#[test]
fn processes_that_write_at_once_leave_a_whole_entry() {
    let rig = Rig::new();
    let identity = rig.identity();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    rig.cache.put(&identity, &hash("a"));
                    assert_eq!(rig.cache.get(&identity), Some(hash("a")));
                }
            });
        }
    });
}
