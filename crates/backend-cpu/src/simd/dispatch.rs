//! Which instruction set runs the kernels, chosen once, and how a generic kernel is compiled for
//! each.
//!
//! Invariant: a variant of [`Isa`] exists only where the CPU has its instructions.

use super::Scalar;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Isa {
    /// Portable code; what the compiler's target baseline gives.
    Scalar(Scalar),
    /// AVX2, FMA and F16C: x86-64 since 2013.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    /// The best one of this CPU.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All of this CPU, best first. All compute the same bits.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::with_capacity(3);
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(Avx512::detect().map(Self::Avx512));
            found.extend(Avx2::detect().map(Self::Avx2));
        }
        found.push(Self::Scalar(Scalar));
        found
    }

    /// Its name, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }
}

/// Defines `fn name(isa: Isa, args…)`, which runs `kernel(token, args…)` compiled for `isa`. The
/// kernel is an `#[inline(always)]` function generic over [`super::Simd`].
macro_rules! isa_entry {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:expr) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) {
            match isa {
                $crate::simd::Isa::Scalar(s) => $kernel(s, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx2(s) => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn entry(s: $crate::simd::Avx2, $($arg: $ty),*) {
                        $kernel(s, $($arg),*);
                    }
                    // SAFETY: the token exists only where the CPU has these features.
                    unsafe { entry(s, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx512(s) => {
                    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                    fn entry(s: $crate::simd::Avx512, $($arg: $ty),*) {
                        $kernel(s, $($arg),*);
                    }
                    // SAFETY: the token exists only where the CPU has these features.
                    unsafe { entry(s, $($arg),*) }
                }
            }
        }
    };
}
pub(crate) use isa_entry;

/// `#[inline(always)]` methods of a token, of which the whole body is intrinsics without memory
/// operands.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: `self` proves that the CPU has the instructions; no memory is touched.
            unsafe { $body }
        }
    )*};
}
pub(crate) use intrinsics;
