//! Which code of the fatbin a card runs.
//!
//! Machine code runs on cards of its generation from its own minor version on; any later card
//! compiles the PTX, and so do all under `CUDA_FORCE_PTX_JIT=1`.
//!
//! Invariant: cards that run other code, or code of another compiler, have other names in
//! `numerics_id`.

use std::fmt;

/// The machine code in the fatbin (kernels/build.sh), as (major, minor).
const MACHINE_CODE: [Capability; 5] = [
    Capability::new(8, 0),
    Capability::new(8, 6),
    Capability::new(8, 9),
    Capability::new(9, 0),
    Capability::new(12, 0),
];

/// Of the PTX, and of the oldest card.
const PTX: Capability = Capability::new(8, 0);

/// A card's compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// Its generation.
    pub major: u32,
    /// Its place in the generation.
    pub minor: u32,
}

/// What a card runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// nvcc's for this capability.
    Machine(Capability),
    /// What the driver makes of the PTX.
    Ptx,
}

impl Capability {
    /// Of `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// What the driver picks for such a card; `None` for cards older than the kernels.
    pub fn code(self, forces_ptx: bool) -> Option<Code> {
        if self < PTX {
            return None;
        }
        let runs = |code: &&Self| code.major == self.major && code.minor <= self.minor;
        match MACHINE_CODE.iter().rfind(runs) {
            Some(&code) if !forces_ptx => Some(Code::Machine(code)),
            _ => Some(Code::Ptx),
        }
    }

    /// As in `--gpu-architecture`: "sm_86".
    pub fn name(self) -> String {
        format!("sm_{self}")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.major, self.minor)
    }
}

impl Code {
    /// What of it enters the bits of results; the driver's compiler where it makes the code.
    pub fn numerics_id(self, card: Capability, cuda_version: u32, kernels_hash: &str) -> String {
        match self {
            Self::Machine(code) if code == card => format!("sm{card}-k{kernels_hash}"),
            Self::Machine(code) => format!("sm{card}-code{code}-k{kernels_hash}"),
            Self::Ptx => format!("sm{card}-ptx-cuda{cuda_version}-k{kernels_hash}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(major: u32, minor: u32) -> Option<Code> {
        Capability::new(major, minor).code(false)
    }

    fn machine(major: u32, minor: u32) -> Option<Code> {
        Some(Code::Machine(Capability::new(major, minor)))
    }

    #[test]
    fn every_card_runs_what_the_driver_would_pick() {
        assert_eq!(code(7, 5), None);
        for (major, minor) in [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)] {
            assert_eq!(code(major, minor), machine(major, minor));
        }
        assert_eq!(code(8, 7), machine(8, 6));
        assert_eq!(code(12, 1), machine(12, 0));
        assert_eq!(code(10, 0), Some(Code::Ptx));
        assert_eq!(code(13, 0), Some(Code::Ptx));
        assert_eq!(Capability::new(9, 0).code(true), Some(Code::Ptx));
        assert_eq!(Capability::new(7, 5).code(true), None);
    }

    #[test]
    fn what_computes_differently_has_another_name() {
        let of = |major, minor, forces_ptx, cuda| {
            let card = Capability::new(major, minor);
            let code = card.code(forces_ptx).unwrap();
            code.numerics_id(card, cuda, "ab12")
        };
        assert_eq!(of(8, 6, false, 13_000), "sm86-kab12");
        assert_eq!(of(8, 6, false, 13_010), "sm86-kab12");
        assert_eq!(of(8, 7, false, 13_000), "sm87-code86-kab12");
        assert_eq!(of(8, 6, true, 13_000), "sm86-ptx-cuda13000-kab12");
        assert_ne!(of(10, 0, false, 13_000), of(10, 0, false, 13_010));
    }
}
