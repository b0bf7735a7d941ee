//! Two replicas over a channel that loses, doubles, reorders and is cut, with processes that start
//! again: in the end both hold the same, and nothing that was acknowledged is gone.

use proptest::prelude::*;

use super::*;

const MAX_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 200;

#[derive(Clone, Debug)]
enum Op {
    Set {
        node: usize,
        key: u8,
        value: Option<u8>,
    },
    Add {
        node: usize,
        key: u8,
        by: u8,
    },
    Send {
        node: usize,
    },
    /// Takes a message out of the channel, whichever.
    Deliver {
        pick: usize,
        keep: bool,
    },
    Lose {
        pick: usize,
    },
    Rewind {
        node: usize,
    },
    Restart {
        node: usize,
    },
    /// The role moves: the other node writes, in a new epoch.
    NewEpoch,
}

#[derive(Clone)]
enum Message {
    Batch(usize, Batch),
    Ack(usize, Ack),
}

struct World {
    replicas: [Replica; 2],
    seen: [Epoch; 2],
    writer: usize,
    channel: Vec<Message>,
    boots: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            replicas: [Replica::new(0, 1, MAX_BYTES), Replica::new(1, 2, MAX_BYTES)],
            seen: [Epoch::new(2); 2],
            writer: 0,
            channel: Vec::new(),
            boots: 2,
        };
        world.meet();
        world
    }

    fn meet(&mut self) {
        let boots = [self.replicas[0].boot, self.replicas[1].boot];
        self.replicas[0].meet(boots[1]);
        self.replicas[1].meet(boots[0]);
    }

    fn next_epoch(&self) -> Epoch {
        Epoch::new(self.seen[0].max(self.seen[1]).number() + 1)
    }

    fn send(&mut self, node: usize) {
        while let Some(batch) = self.replicas[node].next_batch(self.seen[node], BATCH_BYTES, 3) {
            self.channel.push(Message::Batch(1 - node, batch));
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Batch(to, batch) => {
                let ack = self.replicas[to].receive(batch, self.seen[to]);
                self.channel.push(Message::Ack(1 - to, ack));
            }
            Message::Ack(to, ack) => {
                self.replicas[to].acknowledged(&ack);
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Set { node, key, value } => {
                if node == self.writer {
                    let value = value.map(|value| vec![value; 20]);
                    let epoch = self.seen[node];
                    self.replicas[node]
                        .set(epoch, "map", &key.to_string(), value)
                        .expect("room");
                }
            }
            Op::Add { node, key, by } => {
                self.replicas[node]
                    .add("counter", &key.to_string(), u64::from(by))
                    .expect("room");
            }
            Op::Send { node } => self.send(node),
            Op::Deliver { pick, keep } => {
                if !self.channel.is_empty() {
                    let at = pick % self.channel.len();
                    let message = self.channel[at].clone();
                    if !keep {
                        self.channel.remove(at);
                    }
                    self.deliver(message);
                }
            }
            Op::Lose { pick } => {
                if !self.channel.is_empty() {
                    let at = pick % self.channel.len();
                    self.channel.remove(at);
                }
            }
            Op::Rewind { node } => self.replicas[node].rewind(),
            Op::Restart { node } => {
                self.boots += 1;
                let rank = u32::try_from(node).expect("small");
                self.replicas[node] = Replica::new(rank, self.boots, MAX_BYTES);
                self.meet();
                // A process serves in an epoch of its own.
                if node == self.writer {
                    self.seen[node] = self.next_epoch();
                }
            }
            Op::NewEpoch => {
                let node = 1 - self.writer;
                self.writer = node;
                // The other one learns of it later.
                self.seen[node] = self.next_epoch();
            }
        }
    }

    /// Nothing is lost any more, and heartbeats tell both which epoch serves.
    fn settle(&mut self) {
        self.seen = [self.seen[0].max(self.seen[1]); 2];
        for _ in 0..20 {
            for node in 0..2 {
                self.replicas[node].rewind();
                self.send(node);
            }
            while !self.channel.is_empty() {
                let message = self.channel.remove(0);
                self.deliver(message);
                for node in 0..2 {
                    self.send(node);
                }
            }
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0_usize..2;
    let pick = any::<usize>();
    prop_oneof![
        4 => (node.clone(), 0_u8..6, any::<Option<u8>>())
            .prop_map(|(node, key, value)| Op::Set { node, key, value }),
        4 => (node.clone(), 0_u8..3, 0_u8..5)
            .prop_map(|(node, key, by)| Op::Add { node, key, by }),
        4 => node.clone().prop_map(|node| Op::Send { node }),
        8 => (pick, prop::bool::weighted(0.2))
            .prop_map(|(pick, keep)| Op::Deliver { pick, keep }),
        2 => pick.prop_map(|pick| Op::Lose { pick }),
        2 => node.clone().prop_map(|node| Op::Rewind { node }),
        1 => node.prop_map(|node| Op::Restart { node }),
        1 => Just(Op::NewEpoch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn both_end_up_with_the_same(ops in prop::collection::vec(op(), 0..150)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            for node in 0..2 {
                let replica = &world.replicas[node];
                prop_assert!(replica.acked() <= replica.changes());
            }
        }
        world.settle();
        prop_assert_eq!(world.replicas[0].dump(), world.replicas[1].dump());
        for replica in &world.replicas {
            prop_assert_eq!(replica.acked(), replica.changes());
            prop_assert!(!replica.is_waiting());
        }
    }

    /// What the sender believes acknowledged, the receiver has, at any moment without a restart.
    #[test]
    fn what_is_acknowledged_is_there(ops in prop::collection::vec(op(), 0..150)) {
        let mut world = World::new();
        for op in ops {
            if !matches!(op, Op::Restart { .. }) {
                world.apply(op);
            }
            for node in 0..2 {
                let (one, two) = (&world.replicas[node], &world.replicas[1 - node]);
                for (key, item) in &one.items {
                    if item.changed <= one.acked() {
                        let other = two.items.get(key).map(|item| &item.value);
                        let there = other.is_some_and(|value| !item.value.beats(value));
                        prop_assert!(there, "{key:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_writer_wins_and_counters_add_up() {
    let mut world = World::new();
    let [a, b] = &mut world.replicas;
    a.set(Epoch::new(2), "keys", "k", Some(b"old".to_vec()))
        .expect("room");
    b.set(Epoch::new(3), "keys", "k", Some(b"new".to_vec()))
        .expect("room");
    a.set(Epoch::new(2), "keys", "k", Some(b"late".to_vec()))
        .expect("room");
    a.add("usage", "t", 5).expect("room");
    b.add("usage", "t", 7).expect("room");
    world.settle();
    for replica in &world.replicas {
        assert_eq!(replica.get("keys", "k"), Some(b"new".as_slice()));
        assert_eq!(replica.total("usage", "t"), 12);
        assert_eq!(replica.entries("keys").count(), 1);
        assert_eq!(replica.entries("key").count(), 0);
    }
}

#[test]
fn an_epoch_that_is_over_is_refused_until_its_sender_learns() {
    let mut world = World::new();
    world.replicas[0]
        .set(Epoch::new(2), "m", "k", Some(vec![1]))
        .expect("room");
    world.seen[1] = Epoch::new(3);
    let batch = world.replicas[0]
        .next_batch(world.seen[0], BATCH_BYTES, 1)
        .expect("something to say");
    let ack = world.replicas[1].receive(batch, world.seen[1]);
    assert_eq!((ack.stale, ack.up_to), (Some(Epoch::new(3)), 0));
    assert_eq!(world.replicas[1].get("m", "k"), None);
    world.settle();
    assert_eq!(world.replicas[1].get("m", "k"), Some([1].as_slice()));
}

#[test]
fn a_full_replica_says_so_and_acknowledges_nothing() {
    let mut small = Replica::new(1, 2, 200);
    let mut big = Replica::new(0, 1, MAX_BYTES);
    assert_eq!(
        small.set(Epoch::new(3), "m", "k", Some(vec![0; 500])),
        Err(Full)
    );
    assert_eq!(small.changes(), 0);
    big.meet(2);
    for key in 0..5 {
        big.set(Epoch::new(2), "m", &key.to_string(), Some(vec![0; 60]))
            .expect("room");
    }
    let batch = big.next_batch(Epoch::new(2), 4096, 1).expect("a batch");
    let ack = small.receive(batch, Epoch::new(2));
    assert_eq!(ack.up_to, 0);
    assert!(big.acknowledged(&ack) && big.acked() == 0);
}
