//! What is replicated, pure: maps where the last writer wins, counters that only grow.
//!
//! A write has a version of epoch, number and rank, and the higher one stays: in an epoch one node
//! writes, so versions never tie. A counter is a sum of parts, one a process, each of which only
//! its process raises. Messages carry the sender's epoch and are refused where a higher one has
//! served; the sender learns of it and says it again.
//!
//! Invariant: merging is commutative, associative and idempotent, so two replicas that have heard
//! all of each other are equal, whatever was lost, doubled or overtaken. Only what is acknowledged
//! up to a change is known to be with the peer.

use std::collections::BTreeMap;

use hotspare_failover::Epoch;
use serde::{Deserialize, Serialize};

/// When a value was written; the higher one stays.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct Version {
    epoch: Epoch,
    seq: u64,
    rank: u32,
}

/// What an item is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ItemKey {
    Entry {
        map: String,
        key: String,
    },
    Part {
        counter: String,
        key: String,
        owner: (u32, u64),
    },
}

/// Its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ItemValue {
    /// `None`: removed.
    Entry(Version, Option<Vec<u8>>),
    Part(u64),
}

/// Some of the sender's items: those changed after `after`, up to `up_to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) boot: u64,
    /// The process it is for: what that one has already is left out.
    pub(crate) to: u64,
    pub(crate) epoch: Epoch,
    pub(crate) after: u64,
    pub(crate) up_to: u64,
    pub(crate) items: Vec<(ItemKey, ItemValue)>,
}

/// How far the receiver has the sender's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ack {
    /// Of this process's changes.
    pub(crate) of: u64,
    /// The answering process.
    pub(crate) by: u64,
    pub(crate) up_to: u64,
    /// The batch was refused: this epoch has served.
    pub(crate) stale: Option<Epoch>,
    /// What was sent before the batch is missing: go back to `up_to`.
    pub(crate) gap: bool,
}

struct Item {
    value: ItemValue,
    changed: u64,
    /// The process of the peer that it was learned from, and that has it.
    from: Option<u64>,
}

/// One node's copy.
pub(crate) struct Replica {
    rank: u32,
    boot: u64,
    max_bytes: usize,
    num_bytes: usize,
    items: BTreeMap<ItemKey, Item>,
    by_change: BTreeMap<u64, ItemKey>,
    changes: u64,
    seq: u64,
    /// The peer's process, how far it was sent to and how far it acknowledged.
    peer: u64,
    sent: u64,
    acked: u64,
    in_flight: Vec<u64>,
    /// The peer's process that was heard, and how far its changes are here.
    heard: u64,
    applied: u64,
}

/// More than the replica may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl ItemKey {
    fn num_bytes(&self) -> usize {
        match self {
            Self::Entry { map, key } => map.len() + key.len() + 32,
            Self::Part { counter, key, .. } => counter.len() + key.len() + 40,
        }
    }
}

impl ItemValue {
    fn num_bytes(&self) -> usize {
        match self {
            Self::Entry(_, value) => value.as_ref().map_or(0, Vec::len) + 16,
            Self::Part(_) => 8,
        }
    }

    /// Whether it stays against `other`.
    fn beats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Entry(mine, _), Self::Entry(theirs, _)) => mine > theirs,
            (Self::Part(mine), Self::Part(theirs)) => mine > theirs,
            _ => false,
        }
    }
}

impl Replica {
    pub(crate) fn new(rank: u32, boot: u64, max_bytes: usize) -> Self {
        Self {
            rank,
            boot,
            max_bytes,
            num_bytes: 0,
            items: BTreeMap::new(),
            by_change: BTreeMap::new(),
            changes: 0,
            seq: 0,
            peer: 0,
            sent: 0,
            acked: 0,
            in_flight: Vec::new(),
            heard: 0,
            applied: 0,
        }
    }

    /// Counts changes of this copy, own and learned.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How far the peer's process has this copy.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    pub(crate) fn set(
        &mut self,
        epoch: Epoch,
        map: &str,
        key: &str,
        value: Option<Vec<u8>>,
    ) -> Result<u64, Full> {
        let version = Version {
            epoch,
            seq: self.seq + 1,
            rank: self.rank,
        };
        let key = ItemKey::Entry {
            map: map.to_owned(),
            key: key.to_owned(),
        };
        self.put(key, ItemValue::Entry(version, value), None)?;
        self.seq += 1;
        Ok(self.changes)
    }

    pub(crate) fn get(&self, map: &str, key: &str) -> Option<&[u8]> {
        let key = ItemKey::Entry {
            map: map.to_owned(),
            key: key.to_owned(),
        };
        match &self.items.get(&key)?.value {
            ItemValue::Entry(_, value) => value.as_deref(),
            ItemValue::Part(_) => None,
        }
    }

    /// The entries of a map, in the order of their keys.
    pub(crate) fn entries<'a>(
        &'a self,
        map: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> + 'a {
        let first = ItemKey::Entry {
            map: map.to_owned(),
            key: String::new(),
        };
        self.items
            .range(first..)
            .map_while(move |(key, item)| match (key, &item.value) {
                (ItemKey::Entry { map: of, key }, ItemValue::Entry(_, value)) if of == map => {
                    Some(value.as_deref().map(|value| (key.as_str(), value)))
                }
                _ => None,
            })
            .flatten()
    }

    pub(crate) fn add(&mut self, counter: &str, key: &str, by: u64) -> Result<u64, Full> {
        let owner = (self.rank, self.boot);
        let key = ItemKey::Part {
            counter: counter.to_owned(),
            key: key.to_owned(),
            owner,
        };
        let before = match self.items.get(&key).map(|item| &item.value) {
            Some(&ItemValue::Part(value)) => value,
            _ => 0,
        };
        if by > 0 {
            self.put(key, ItemValue::Part(before.saturating_add(by)), None)?;
        }
        Ok(self.changes)
    }

    /// The sum of all parts.
    pub(crate) fn total(&self, counter: &str, key: &str) -> u64 {
        let first = ItemKey::Part {
            counter: counter.to_owned(),
            key: key.to_owned(),
            owner: (0, 0),
        };
        self.items
            .range(first..)
            .map_while(|(of, item)| match (of, &item.value) {
                (
                    ItemKey::Part {
                        counter: c, key: k, ..
                    },
                    &ItemValue::Part(value),
                ) if c == counter && k == key => Some(value),
                _ => None,
            })
            .fold(0, u64::saturating_add)
    }

    /// Forgets the keys of a counter that `keep` does not want. A peer that still has them sends
    /// them again until it has forgotten them, too.
    pub(crate) fn retain(&mut self, counter: &str, mut keep: impl FnMut(&str) -> bool) {
        let gone: Vec<ItemKey> = self
            .items
            .keys()
            .filter(|of| {
                matches!(of, ItemKey::Part { counter: c, key, .. } if c == counter && !keep(key))
            })
            .cloned()
            .collect();
        for key in gone {
            self.take(&key);
        }
    }

    fn take(&mut self, key: &ItemKey) {
        if let Some(item) = self.items.remove(key) {
            self.num_bytes -= key.num_bytes() + item.value.num_bytes();
            self.by_change.remove(&item.changed);
        }
    }

    fn put(&mut self, key: ItemKey, value: ItemValue, from: Option<u64>) -> Result<(), Full> {
        let before = self.items.get(&key);
        let held = before.map_or(0, |item| key.num_bytes() + item.value.num_bytes());
        let num_bytes = self.num_bytes - held + key.num_bytes() + value.num_bytes();
        if num_bytes > self.max_bytes {
            return Err(Full);
        }
        if let Some(item) = before {
            self.by_change.remove(&item.changed);
        }
        self.num_bytes = num_bytes;
        self.changes += 1;
        let changed = self.changes;
        self.by_change.insert(changed, key.clone());
        let item = Item {
            value,
            changed,
            from,
        };
        self.items.insert(key, item);
        Ok(())
    }

    /// The peer's process is this one: another one has nothing of what was sent before.
    pub(crate) fn meet(&mut self, boot: u64) {
        if self.peer != boot {
            self.peer = boot;
            self.acked = 0;
            self.rewind();
        }
    }

    /// What was sent and not acknowledged goes out again.
    pub(crate) fn rewind(&mut self) {
        self.sent = self.acked;
        self.in_flight.clear();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The next message, where there is something to say and room on the way.
    pub(crate) fn next_batch(
        &mut self,
        epoch: Epoch,
        max_bytes: usize,
        max_in_flight: usize,
    ) -> Option<Batch> {
        if self.peer == 0 || self.sent >= self.changes || self.in_flight.len() >= max_in_flight {
            return None;
        }
        let (after, mut num_bytes, mut items) = (self.sent, 0, Vec::new());
        let mut up_to = self.changes;
        for (&change, key) in self.by_change.range(after + 1..) {
            let Some(item) = self.items.get(key) else {
                continue;
            };
            if item.from == Some(self.peer) {
                continue;
            }
            let len = key.num_bytes() + item.value.num_bytes();
            if !items.is_empty() && num_bytes + len > max_bytes {
                up_to = change - 1;
                break;
            }
            num_bytes += len;
            items.push((key.clone(), item.value.clone()));
        }
        self.sent = up_to;
        self.in_flight.push(up_to);
        Some(Batch {
            boot: self.boot,
            to: self.peer,
            epoch,
            after,
            up_to,
            items,
        })
    }

    /// Merges what the peer sent. `seen`: the highest epoch that has served, as this node knows.
    pub(crate) fn receive(&mut self, batch: Batch, seen: Epoch) -> Ack {
        if self.heard != batch.boot {
            self.heard = batch.boot;
            self.applied = 0;
        }
        let mut ack = Ack {
            of: batch.boot,
            by: self.boot,
            up_to: self.applied,
            stale: None,
            gap: false,
        };
        if batch.to != self.boot {
            return ack;
        }
        if batch.epoch < seen {
            ack.stale = Some(seen);
            return ack;
        }
        for (key, value) in batch.items {
            if let ItemValue::Entry(version, _) = &value {
                self.seq = self.seq.max(version.seq);
            }
            let news = match self.items.get(&key) {
                None => true,
                Some(item) => value.beats(&item.value),
            };
            if news && self.put(key, value, Some(batch.boot)).is_err() {
                return ack;
            }
        }
        // A gap before it: merged, and not yet acknowledged.
        ack.gap = batch.after > self.applied;
        if !ack.gap {
            self.applied = self.applied.max(batch.up_to);
        }
        ack.up_to = self.applied;
        ack
    }

    /// Takes an acknowledgement; whether it was for this process, of the peer's that was met.
    pub(crate) fn acknowledged(&mut self, ack: &Ack) -> bool {
        if ack.of != self.boot || ack.by != self.peer {
            return false;
        }
        if ack.gap {
            self.acked = self.acked.min(ack.up_to);
            self.rewind();
        }
        self.acked = self.acked.max(ack.up_to.min(self.changes));
        self.sent = self.sent.max(self.acked);
        let acked = self.acked;
        self.in_flight.retain(|&up_to| up_to > acked);
        if ack.stale.is_some() {
            self.rewind();
        }
        true
    }

    /// Everything, for comparison.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<(ItemKey, ItemValue)> {
        self.items
            .iter()
            .map(|(key, item)| (key.clone(), item.value.clone()))
            .collect()
    }
}

#[cfg(test)]
#[path = "replica_test.rs"]
mod tests;
