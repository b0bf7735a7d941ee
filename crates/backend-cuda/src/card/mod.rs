//! The card: what runs kernels where there is one.
//!
//! cudarc gives the driver's functions, loaded at run time; nothing here is linked, so the binary
//! starts where no driver is. cudarc panics where a library is missing, therefore [`Driver::load`]
//! looks for it first and everything else needs a [`Driver`]. Its safe layer makes two events an
//! allocation; ours makes none but those that are waited for.
//!
//! Invariant: one context, the card's primary one, and one stream, used by one thread at a time.

mod capability;
mod cublaslt;
mod device;
mod driver;
mod error;
mod fault;
mod functions;
mod products;
mod profile;
mod staging;

pub use capability::{Capability, Code};
pub use device::Card;
pub use driver::{CardInfo, Driver};
pub use error::CardError;
pub use fault::{CardFault, FaultCell};

/// The kernels of every supported card, as nvcc packed them.
pub static FATBIN: &[u8] = &ALIGNED.0;

/// What the kernels' sources and their compiler hash to.
pub const KERNELS_HASH: &str = env!("HOTSPARE_KERNELS_HASH");

/// The driver reads words of it.
#[repr(C, align(64))]
struct Aligned<const LEN: usize>([u8; LEN]);

static ALIGNED: Aligned<{ include_bytes!(env!("HOTSPARE_FATBIN")).len() }> =
    Aligned(*include_bytes!(env!("HOTSPARE_FATBIN")));
