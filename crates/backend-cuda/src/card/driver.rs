//! Finding the driver and its cards, without touching any.
//!
//! Invariant: no function of the driver is called before its library was found, and none that only
//! a newer driver has before its version was looked at: cudarc panics at either.

use std::ffi::c_int;
use std::panic::catch_unwind;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::capability::{Capability, Code};
use super::error::CardError;

/// CUDA 13.0, as the driver counts: driver 580.
const MIN_CUDA_VERSION: u32 = 13_000;

/// Where the kernel module says which it is.
const DRIVER_VERSION_FILE: &str = "/proc/driver/nvidia/version";

/// An NVIDIA driver that is new enough, set up.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The CUDA version that it offers: 1000 times major plus 10 times minor.
    pub cuda_version: u32,
}

/// A card, as the driver describes it.
#[derive(Clone, Debug)]
pub struct CardInfo {
    /// N of `cuda:N`.
    pub ordinal: usize,
    /// "NVIDIA GeForce RTX 3050".
    pub name: String,
    /// "GPU-…", as nvidia-smi writes it.
    pub uuid: String,
    /// Its compute capability.
    pub capability: Capability,
    /// Memory of the card.
    pub total_bytes: usize,
    /// Multiprocessors.
    pub num_multiprocessors: u32,
    /// Highest clock of the multiprocessors, MHz.
    pub clock_mhz: u32,
    /// Highest clock of the memory, MHz.
    pub memory_clock_mhz: u32,
    /// Width of the memory's bus, bits.
    pub bus_bits: u32,
    pub(super) device: sys::CUdevice,
}

impl Driver {
    /// Finds the driver and sets it up.
    ///
    /// # Errors
    /// None is installed, it is too old, or it finds no card.
    pub fn load() -> Result<Self, CardError> {
        // SAFETY: opening libcuda runs its constructors, which are made for it.
        let is_present = catch_unwind(|| unsafe { sys::is_culib_present() });
        if !is_present.unwrap_or(false) {
            return Err(CardError::NoDriver);
        }
        let mut version: c_int = 0;
        // SAFETY: the pointer is to a local; every version has the function.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }
            .result()
            .map_err(CardError::call("cuDriverGetVersion"))?;
        let cuda_version = u32::try_from(version).unwrap_or(0);
        if cuda_version < MIN_CUDA_VERSION {
            return Err(CardError::OldDriver {
                cuda_version,
                installed: installed_version(),
            });
        }
        match result::init() {
            Ok(()) => Ok(Self { cuda_version }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
                Err(CardError::NoCard("none is visible".to_owned()))
            }
            Err(error) => Err(CardError::NoCard(super::fault::name_of(error))),
        }
    }

    /// "580.65.06", where the kernel module says so.
    pub fn installed_version(self) -> Option<String> {
        installed_version()
    }

    /// How many cards there are.
    ///
    /// # Errors
    /// What the driver says.
    pub fn num_cards(self) -> Result<usize, CardError> {
        let count = result::device::get_count().map_err(CardError::call("cuDeviceGetCount"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The card `cuda:ordinal`; supported or not.
    ///
    /// # Errors
    /// There is no such card; what the driver says.
    pub fn card(self, ordinal: usize) -> Result<CardInfo, CardError> {
        let num_cards = self.num_cards()?;
        let number = c_int::try_from(ordinal)
            .ok()
            .filter(|_| ordinal < num_cards);
        let Some(number) = number else {
            return Err(CardError::NoSuchCard { ordinal, num_cards });
        };
        let device = result::device::get(number).map_err(CardError::call("cuDeviceGet"))?;
        let get = |attribute| {
            // SAFETY: the device is the driver's own.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            let value = value.map_err(CardError::call("cuDeviceGetAttribute"))?;
            Ok::<u32, CardError>(u32::try_from(value).unwrap_or(0))
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let uuid = result::device::get_uuid(device).map_err(CardError::call("cuDeviceGetUuid"))?;
        // SAFETY: as above.
        let total_bytes = unsafe { result::device::total_mem(device) };
        Ok(CardInfo {
            ordinal,
            name: result::device::get_name(device).map_err(CardError::call("cuDeviceGetName"))?,
            uuid: format_uuid(uuid.bytes.map(|byte| byte as u8)),
            capability: Capability::new(
                get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            total_bytes: total_bytes.map_err(CardError::call("cuDeviceTotalMem"))?,
            num_multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            clock_mhz: get(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
            memory_clock_mhz: get(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)? / 1000,
            bus_bits: get(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?,
            device,
        })
    }
}

impl CardInfo {
    /// What of the fatbin it runs.
    ///
    /// # Errors
    /// It is older than the kernels.
    pub fn code(&self) -> Result<Code, CardError> {
        let forces_ptx = std::env::var_os("CUDA_FORCE_PTX_JIT").is_some_and(|value| value == "1");
        let unsupported = || CardError::Unsupported {
            name: self.name.clone(),
            capability: self.capability,
        };
        self.capability.code(forces_ptx).ok_or_else(unsupported)
    }
}

/// The version in the kernel module's first line.
fn installed_version() -> Option<String> {
    parse_version(&std::fs::read_to_string(DRIVER_VERSION_FILE).ok()?)
}

/// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …".
fn parse_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        parts.len() >= 2 && parts.iter().all(is_number)
    };
    let words = text.lines().next()?.split_whitespace();
    words.into_iter().find(is_version).map(str::to_owned)
}

/// As nvidia-smi writes it.
fn format_uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, e] = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    format!("GPU-{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_modules_line() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release \
                    Build  (dvs-builder@U22)  Sun Jul 27 06:54:38 UTC 2025\nGCC version:  12.2.0\n";
        assert_eq!(parse_version(text).as_deref(), Some("580.65.06"));
        assert_eq!(parse_version("no driver here"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn uuids_look_like_nvidia_smis() {
        let bytes: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        let uuid = "GPU-00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(format_uuid(bytes), uuid);
    }

    #[test]
    fn where_there_is_no_driver_that_is_what_it_says() {
        // On a machine with a card this finds it instead; either way nothing panics.
        match Driver::load() {
            Ok(driver) => assert!(driver.cuda_version >= MIN_CUDA_VERSION),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
