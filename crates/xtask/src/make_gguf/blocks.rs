//! Random weights in every number format.
//!
//! Quantized elements are uniform over all values that a block's scale allows; scales are chosen so
//! that the elements have the deviation asked for and a mean of zero.
//!
//! Invariant: a generator's numbers depend on its seed and stream alone.

use std::io::{self, Write};

use half::{bf16, f16};
use hotspare_testkit::gguf::GgmlType;

/// Bytes made at once.
const CHUNK_BYTES: usize = 1 << 18;

/// SplitMix64 (Steele, Lea and Flood 2014): fast, and good enough for weights.
pub(super) struct Random(u64);

impl Random {
    /// The numbers of `seed`, of one of its streams.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes `num_elements` (whole blocks) of `kind`.
pub(super) fn write(
    random: &mut Random,
    kind: GgmlType,
    num_elements: u64,
    deviation: f32,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut num_blocks = num_elements / kind.block_len() as u64;
    let blocks_per_chunk = (CHUNK_BYTES / kind.block_bytes()) as u64;
    let mut chunk = Vec::new();
    while num_blocks > 0 {
        let now = num_blocks.min(blocks_per_chunk);
        chunk.resize(now as usize * kind.block_bytes(), 0);
        random.fill(&mut chunk);
        for block in chunk.chunks_exact_mut(kind.block_bytes()) {
            shape_block(kind, block, deviation);
        }
        out.write_all(&chunk)?;
        num_blocks -= now;
    }
    Ok(())
}

/// Deviation of a whole number that is uniform over `num` neighbours.
fn uniform_deviation(num: f32) -> f32 {
    ((num * num - 1.0) / 12.0).sqrt()
}

/// Makes a block of random bytes one of the deviation asked for: sets its scales.
fn shape_block(kind: GgmlType, block: &mut [u8], deviation: f32) {
    let half = |block: &mut [u8], at: usize, value: f32| {
        block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
    };
    // A number between -1 and 1, times what makes a uniform one have the deviation.
    let number =
        |bytes: [u8; 2]| f32::from(i16::from_le_bytes(bytes)) / 32768.0 * 3f32.sqrt() * deviation;
    let step = |num: f32| deviation / uniform_deviation(num);
    match kind {
        GgmlType::F32 => {
            let value = number([block[0], block[1]]);
            block.copy_from_slice(&value.to_le_bytes());
        }
        GgmlType::F16 => {
            let value = number([block[0], block[1]]);
            block.copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
        GgmlType::Bf16 => {
            let value = number([block[0], block[1]]);
            block.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
        }
        GgmlType::Q4_0 => half(block, 0, step(16.0)),
        GgmlType::Q5_0 => half(block, 0, step(32.0)),
        GgmlType::Q8_0 => half(block, 0, step(256.0)),
        GgmlType::Q4_1 => {
            half(block, 0, step(16.0));
            half(block, 2, -7.5 * step(16.0));
        }
        GgmlType::Q5_1 => {
            half(block, 0, step(32.0));
            half(block, 2, -15.5 * step(32.0));
        }
        GgmlType::Q2K => {
            // Scale 8, minimum 12: elements are 8 q - 12.
            block[..16].fill(8 | 12 << 4);
            half(block, 80, step(4.0) / 8.0);
            half(block, 82, step(4.0) / 8.0);
        }
        GgmlType::Q3K => {
            // Scales 16 or -16, by the upper bit of each pair: 48 or 16 less the offset of 32.
            block[96..104].fill(0);
            block[104..108].iter_mut().for_each(|byte| *byte |= 0x55);
            half(block, 108, step(8.0) / 16.0);
        }
        GgmlType::Q4K => {
            // All scales 32 and minimums 60, six bits each, of which the upper two lie apart.
            block[4..8].fill(0xA0);
            block[8..12].fill(0xFC);
            block[12..16].fill(0xC0);
            half(block, 0, step(16.0) / 32.0);
            half(block, 2, step(16.0) / 32.0 * 4.0);
        }
        GgmlType::Q5K => {
            // Scales 32, minimums 62.
            block[4..8].fill(0xA0);
            block[8..12].fill(0xFE);
            block[12..16].fill(0xE0);
            half(block, 0, step(32.0) / 32.0);
            half(block, 2, step(32.0) / 32.0 * 8.0);
        }
        GgmlType::Q6K => {
            let scales = block[192..208].iter_mut();
            scales.for_each(|scale| *scale = if *scale & 1 == 0 { 8 } else { 0xF8 });
            half(block, 208, step(64.0) / 8.0);
        }
    }
}
