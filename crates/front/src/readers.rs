//! Which engine reads along what runs: the one on which this front's streams would go on, should
//! the engine that they run on be lost.
//!
//! While this node serves that is its first spare, or the peer's engine; while it stands by, its
//! streams run on the peer's engine and would come home to its own.
//!
//! Invariant: a reader serves no client of this front at the moment; which one it is is asked anew
//! for each round.

use std::sync::Arc;

use crate::client::EngineClient;
use crate::slot::EngineSlot;
use crate::{FrontConfig, Pairing, ShadowMode};

/// See the module.
pub(crate) struct Readers {
    slot: Arc<EngineSlot>,
    pairing: Option<Arc<dyn Pairing>>,
    of_spare: ShadowMode,
    of_pair: ShadowMode,
}

/// An engine that reads along.
pub(crate) struct Reader {
    pub(crate) client: Arc<EngineClient>,
    /// Its device is that of the engine that serves, which needs it more.
    pub(crate) shares_device: bool,
}

impl Readers {
    pub(crate) fn new(
        config: &FrontConfig,
        slot: Arc<EngineSlot>,
        pairing: Option<Arc<dyn Pairing>>,
    ) -> Self {
        Self {
            slot,
            of_spare: match config.spare_shadow {
                _ if config.num_spare_engines == 0 => ShadowMode::Off,
                ShadowMode::Auto if !config.has_kv_mirror => ShadowMode::Full,
                mode => mode,
            },
            of_pair: match (&pairing, config.peer_shadow) {
                (None, _) => ShadowMode::Off,
                // Blocks do not cross between machines.
                (Some(_), ShadowMode::Auto) => ShadowMode::Full,
                (Some(_), mode) => mode,
            },
            pairing,
        }
    }

    /// What is recorded for readers; the more where a spare and the other node differ.
    pub(crate) fn mode(&self) -> ShadowMode {
        self.of_spare.max(self.of_pair)
    }

    /// Whether the reader may change without a change of engines.
    pub(crate) fn depends_on_role(&self) -> bool {
        self.of_pair != ShadowMode::Off
    }

    /// The engine that reads along now.
    pub(crate) fn reader(&self) -> Option<Reader> {
        let pairing = self.pairing.as_ref();
        let pairing = pairing.filter(|_| self.of_pair != ShadowMode::Off);
        let serves = pairing.is_none_or(|pairing| pairing.view().role.serves());
        if !serves {
            // Without the peer's engine whatever runs does so here.
            let hash = self.slot.peer_hello()?.model_hash;
            let own = self.slot.target(None);
            let client = own.filter(|own| own.hello().model_hash == hash)?;
            return Some(Reader {
                client,
                shares_device: false,
            });
        }
        let spare = self.slot.next_main();
        let spare = spare.filter(|spare| self.of_spare.reads(spare.hello()));
        if let Some(client) = spare {
            return Some(Reader {
                client,
                shares_device: true,
            });
        }
        let hash = pairing.and_then(|_| self.slot.hello())?.model_hash;
        let client = self.slot.peer_target(&hash)?;
        Some(Reader {
            client,
            shares_device: false,
        })
    }
}
