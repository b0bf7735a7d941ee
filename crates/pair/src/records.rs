//! Files of JSON lines beside the epoch file: history, and the audit record of admissions.
//!
//! A thread of its own writes them; whoever has a record puts it into a bounded queue and goes on.
//! What does not fit, or cannot be written, is counted. Files are bounded by rotation.
//!
//! Invariant: nobody ever waits for this disk.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::PairError;
use crate::config::PairBounds;
use crate::view::HistoryEntry;

const HISTORY: &str = "history";
const AUDIT: &str = "audit";
const NUM_HISTORY_FILES: usize = 2;

/// One admitted request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct AuditRecord {
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Boot-time clock, in milliseconds.
    pub boot_ms: u64,
    /// The admitting node.
    pub node: String,
    /// The epoch that it was admitted in.
    pub epoch: u64,
    /// The request.
    pub request_id: String,
}

enum Record {
    History(HistoryEntry),
    Audit(AuditRecord),
}

/// The queue to the writing thread.
#[derive(Clone)]
pub(crate) struct Records {
    queue: SyncSender<Record>,
    lost: Arc<AtomicU64>,
}

impl Records {
    /// Starts the thread.
    pub(crate) fn start(dir: &Path, bounds: &PairBounds) -> Result<Self, PairError> {
        let (queue, records) = sync_channel(bounds.max_num_queued_records);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            history: Rotating::new(
                dir,
                HISTORY,
                bounds.history_file_max_bytes,
                NUM_HISTORY_FILES,
            ),
            audit: Rotating::new(
                dir,
                AUDIT,
                bounds.audit_file_max_bytes,
                bounds.max_num_audit_files,
            ),
            sync_interval: Duration::from_millis(bounds.audit_sync_interval_ms),
            lost: Arc::clone(&lost),
        };
        std::thread::Builder::new()
            .name("pair-records".to_owned())
            .spawn(move || writer.run(&records))
            .map_err(PairError::Thread)?;
        Ok(Self { queue, lost })
    }

    pub(crate) fn history(&self, entry: HistoryEntry) {
        self.put(Record::History(entry));
    }

    pub(crate) fn audit(&self, record: AuditRecord) {
        self.put(Record::Audit(record));
    }

    fn put(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn num_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The newest entries of the history files, oldest first. What does not parse is left out.
pub(crate) fn load_history(dir: &Path, max: usize) -> Vec<HistoryEntry> {
    let mut entries = Vec::new();
    for number in (0..NUM_HISTORY_FILES).rev() {
        let Ok(file) = File::open(file_path(dir, HISTORY, number)) else {
            continue;
        };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if let Ok(entry) = serde_json::from_str(&line) {
                entries.push(entry);
            }
        }
    }
    let surplus = entries.len().saturating_sub(max);
    entries.drain(..surplus);
    entries
}

fn file_path(dir: &Path, name: &str, number: usize) -> PathBuf {
    match number {
        0 => dir.join(format!("{name}.jsonl")),
        number => dir.join(format!("{name}.{number}.jsonl")),
    }
}

struct Writer {
    history: Rotating,
    audit: Rotating,
    sync_interval: Duration,
    lost: Arc<AtomicU64>,
}

impl Writer {
    /// Until every sender is gone. Lines reach the kernel at once, and the disk by and by.
    fn run(mut self, records: &Receiver<Record>) {
        let mut synced = Instant::now();
        loop {
            let record = records.recv_timeout(self.sync_interval);
            let ended = matches!(record, Err(RecvTimeoutError::Disconnected));
            if let Ok(record) = record {
                self.write(&record);
                for record in records.try_iter().take(1024) {
                    self.write(&record);
                }
                self.check(|writer| writer.flush());
            }
            if ended || synced.elapsed() >= self.sync_interval {
                self.check(Rotating::sync);
                synced = Instant::now();
            }
            if ended {
                return;
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let (file, line) = match record {
            Record::History(entry) => (&mut self.history, serde_json::to_vec(entry)),
            Record::Audit(record) => (&mut self.audit, serde_json::to_vec(record)),
        };
        let written = line
            .map_err(io::Error::other)
            .and_then(|line| file.write(line));
        if let Err(error) = written {
            self.failed(&error);
        }
    }

    fn check(&mut self, what: impl Fn(&mut Rotating) -> io::Result<()>) {
        for result in [what(&mut self.history), what(&mut self.audit)] {
            if let Err(error) = result {
                self.failed(&error);
            }
        }
    }

    fn failed(&self, error: &io::Error) {
        if self.lost.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::error!(%error, "history or audit records cannot be written");
        }
    }
}

/// A file of lines that is put aside when it is full; the oldest is deleted.
struct Rotating {
    dir: PathBuf,
    name: &'static str,
    max_bytes: u64,
    max_files: usize,
    open: Option<(io::BufWriter<File>, u64)>,
    dirty: bool,
}

impl Rotating {
    fn new(dir: &Path, name: &'static str, max_bytes: u64, max_files: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            name,
            max_bytes,
            max_files: max_files.max(1),
            open: None,
            dirty: false,
        }
    }

    fn write(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let len = line.len() as u64;
        if let Some((file, size)) = &mut self.open
            && *size > 0
            && *size + len > self.max_bytes
        {
            file.flush()?;
            file.get_ref().sync_data()?;
            self.open = None;
            self.rotate()?;
        }
        if self.open.is_none() {
            let path = file_path(&self.dir, self.name, 0);
            let file = File::options().create(true).append(true).open(path)?;
            let size = file.metadata()?.len();
            self.open = Some((io::BufWriter::new(file), size));
        }
        if let Some((file, size)) = &mut self.open {
            file.write_all(&line)?;
            *size += len;
            self.dirty = true;
        }
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (0..self.max_files - 1).rev() {
            let from = file_path(&self.dir, self.name, number);
            match std::fs::rename(from, file_path(&self.dir, self.name, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.max_files == 1 {
            std::fs::remove_file(file_path(&self.dir, self.name, 0))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.open {
            Some((file, _)) => file.flush(),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some((file, _)) = self.open.as_mut().filter(|_| self.dirty) {
            file.flush()?;
            file.get_ref().sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_within_their_bound_and_keep_the_newest_lines() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = Rotating::new(dir.path(), AUDIT, 100, 3);
        for number in 0..40 {
            file.write(format!("line {number:04}").into_bytes())
                .expect("written");
        }
        file.sync().expect("synced");
        let read = |number| std::fs::read_to_string(file_path(dir.path(), AUDIT, number));
        let all: String = [2, 1, 0]
            .map(|number| read(number).expect("a file"))
            .concat();
        assert!((0..3).all(|number| read(number).expect("a file").len() <= 100));
        assert!(read(3).is_err(), "no fourth file");
        let expected: String = (10..40)
            .map(|n| format!("line {n:04}\n"))
            .collect::<String>();
        assert!(
            all.ends_with("line 0039\n") && expected.ends_with(&all),
            "{all}"
        );
    }

    #[test]
    fn a_full_queue_loses_records_and_counts_them() {
        let (queue, records) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let handle = Records { queue, lost };
        let record = AuditRecord {
            wall_ms: 1,
            boot_ms: 2,
            node: "a".to_owned(),
            epoch: 3,
            request_id: "r".to_owned(),
        };
        for _ in 0..5 {
            handle.audit(record.clone());
        }
        assert_eq!(handle.num_lost(), 4);
        assert_eq!(records.try_iter().count(), 1);
    }
}
