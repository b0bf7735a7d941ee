//! What checks share: random values, rows on the device, comparison.
//!
//! Invariant: everything is a function of the seed; memory between rows is poison before, and still
//! is after.

use crate::{Address, Dtype, LaunchError, Launcher};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// For check `name`, so that checks of one seed see different numbers.
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        let name = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(name ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From `start` to `end`, both included.
    pub(crate) fn within(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end + 1 - start)
    }

    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// In -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// In -1..1, rounded to `dtype`.
    pub(crate) fn floats(&mut self, dtype: Dtype, len: usize) -> Vec<f32> {
        (0..len).map(|_| dtype.round(self.float())).collect()
    }

    /// A permutation of `0..len`.
    pub(crate) fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// Rows of activations on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) at: Address,
    pub(crate) dtype: Dtype,
    pub(crate) num_rows: usize,
    pub(crate) width: usize,
}

impl Rows {
    pub(crate) fn stride(&self) -> usize {
        self.dtype.stride(self.width)
    }

    fn num_bytes(&self) -> usize {
        self.num_rows * self.stride() * self.dtype.size()
    }

    /// Rows that hold NaN.
    pub(crate) fn poisoned(
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        num_rows: usize,
        width: usize,
    ) -> Result<Self, LaunchError> {
        let mut rows = Self {
            at: Address::NULL,
            dtype,
            num_rows,
            width,
        };
        rows.at = poisoned(launcher, rows.num_bytes())?;
        Ok(rows)
    }

    /// Rows that hold `values`; what lies between rows is NaN.
    pub(crate) fn new(
        launcher: &mut dyn Launcher,
        dtype: Dtype,
        width: usize,
        values: &[f32],
    ) -> Result<Self, LaunchError> {
        let rows = Self::poisoned(launcher, dtype, values.len() / width, width)?;
        let row_bytes = rows.stride() * dtype.size();
        for (i, row) in values.chunks_exact(width).enumerate() {
            launcher.write(rows.at.offset(i * row_bytes), &dtype.encode(row))?;
        }
        Ok(rows)
    }

    /// What they hold now; an error where something was written between them.
    pub(crate) fn read(&self, launcher: &mut dyn Launcher) -> Result<Vec<f32>, LaunchError> {
        let bytes = self.read_bytes(launcher)?;
        let rows = bytes.chunks_exact(self.stride() * self.dtype.size());
        let width_bytes = self.width * self.dtype.size();
        for (i, row) in rows.clone().enumerate() {
            if row[width_bytes..].iter().any(|&byte| byte != POISON) {
                return Err(wrong(format!(
                    "row {i} of {} by {} {:?}: {:x?} was written behind it",
                    self.num_rows,
                    self.width,
                    self.dtype,
                    &row[width_bytes..]
                )));
            }
        }
        let values = rows.flat_map(|row| self.dtype.decode(&row[..width_bytes]));
        Ok(values.collect())
    }

    /// What they hold now, and what lies between them.
    pub(crate) fn read_with_padding(
        &self,
        launcher: &mut dyn Launcher,
    ) -> Result<Vec<f32>, LaunchError> {
        Ok(self.dtype.decode(&self.read_bytes(launcher)?))
    }

    fn read_bytes(&self, launcher: &mut dyn Launcher) -> Result<Vec<u8>, LaunchError> {
        let mut bytes = vec![0; self.num_bytes()];
        launcher.read(self.at, &mut bytes)?;
        Ok(bytes)
    }
}

/// NaN in every float format.
const POISON: u8 = 0xFF;

/// Memory of `num_bytes` that holds poison: a card hands out what an earlier check left behind,
/// which may be the right answer.
pub(crate) fn poisoned(
    launcher: &mut dyn Launcher,
    num_bytes: usize,
) -> Result<Address, LaunchError> {
    let at = launcher.alloc(num_bytes)?;
    if num_bytes > 0 {
        launcher.write(at, &vec![POISON; num_bytes])?;
    }
    Ok(at)
}

/// Memory that holds `values`.
pub(crate) fn upload<T: bytemuck::Pod>(
    launcher: &mut dyn Launcher,
    values: &[T],
) -> Result<Address, LaunchError> {
    let at = launcher.alloc(size_of_val(values))?;
    launcher.write(at, bytemuck::cast_slice(values))?;
    Ok(at)
}

/// How far a result may be from the oracle's: `absolute + relative * |oracle|`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f32,
    pub(crate) relative: f32,
}

impl Tolerance {
    /// For what is only moved.
    pub(crate) const EXACT: Self = Self {
        absolute: 0.0,
        relative: 0.0,
    };

    /// For results of `dtype` that are computed in f32 and rounded once.
    pub(crate) fn rounded(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self {
                absolute: 2e-6,
                relative: 2e-5,
            },
            Dtype::F16 => Self {
                absolute: 1e-5,
                relative: 1.1e-3,
            },
            Dtype::Bf16 => Self {
                absolute: 1e-5,
                relative: 8.5e-3,
            },
        }
    }

    pub(crate) fn times(self, factor: f32) -> Self {
        Self {
            absolute: self.absolute * factor,
            relative: self.relative * factor,
        }
    }
}

/// Compares every element; `what` names the case.
pub(crate) fn compare(
    what: &str,
    found: &[f32],
    expected: &[f32],
    tolerance: Tolerance,
) -> Result<(), LaunchError> {
    if found.len() != expected.len() {
        return Err(wrong(format!(
            "{what}: {} of {}",
            found.len(),
            expected.len()
        )));
    }
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let is_close = (x - y).abs() <= tolerance.absolute + tolerance.relative * y.abs();
        if !(is_close || (x.is_nan() && y.is_nan()) || x == y) {
            return Err(wrong(format!("{what}: element {i} is {x}, the CPU's {y}")));
        }
    }
    Ok(())
}

/// Compares the bits of every element.
pub(crate) fn same_bits(what: &str, found: &[f32], expected: &[f32]) -> Result<(), LaunchError> {
    let differs = |(x, y): (&f32, &f32)| x.to_bits() != y.to_bits();
    match found.iter().zip(expected).position(differs) {
        Some(i) => Err(wrong(format!(
            "{what}: element {i} is {}, not {}",
            found[i], expected[i]
        ))),
        None if found.len() != expected.len() => Err(wrong(format!("{what}: lengths"))),
        None => Ok(()),
    }
}

pub(crate) fn wrong(what: String) -> LaunchError {
    LaunchError::Wrong(what)
}
