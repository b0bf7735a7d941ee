//! Philox4x32-10, a counter-based random number generator: a number for each (seed, position,
//! choice, draw).
//!
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Ten
//! rounds of two 32-bit multiplications; no state, so any token's number can be computed anywhere,
//! at any time.
//!
//! Invariant: the output is a function of key and counter alone, the same on every device.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const NUM_ROUNDS: usize = 10;

/// The four random words of `counter` under `key`.
pub fn philox4x32_10(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..NUM_ROUNDS {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (p1 >> 32) as u32 ^ c1 ^ k0,
            p1 as u32,
            (p0 >> 32) as u32 ^ c3 ^ k1,
            p0 as u32,
        );
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The four words for one draw: key = the seed's low and high half, counter = (position, choice,
/// draw, 0).
///
/// `position` is the index, in prompt and output together, of the token being drawn; `choice` tells
/// a request's `n` sequences apart; `draw` counts the numbers that one token needs.
pub fn words(seed: u64, position: u32, choice: u32, draw: u32) -> [u32; 4] {
    philox4x32_10(
        [seed as u32, (seed >> 32) as u32],
        [position, choice, draw, 0],
    )
}

/// A uniform number in [0, 1) with 53 random bits: from the draw's first word and the high bits of
/// the second.
pub fn uniform_f64(seed: u64, position: u32, choice: u32, draw: u32) -> f64 {
    let [high, low, ..] = words(seed, position, choice, draw);
    let bits = (u64::from(high) << 21) | u64::from(low >> 11);
    bits as f64 / (1u64 << 53) as f64
}

/// A uniform number in [0, 1) with 24 random bits: from the draw's first word.
pub fn uniform_f32(seed: u64, position: u32, choice: u32, draw: u32) -> f32 {
    let [high, ..] = words(seed, position, choice, draw);
    (high >> 8) as f32 / (1u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the Random123 distribution publishes for philox4x32-10.
    #[test]
    fn known_answers() {
        let zeros = philox4x32_10([0; 2], [0; 4]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32_10([!0; 2], [!0; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox4x32_10(
            [0xa409_3822, 0x299f_31d0],
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn every_part_of_the_counter_counts() {
        let base = words(1 << 40, 2, 3, 4);
        assert_ne!(base, words(1 << 41, 2, 3, 4));
        assert_ne!(base, words(1 << 40, 3, 3, 4));
        assert_ne!(base, words(1 << 40, 2, 4, 4));
        assert_ne!(base, words(1 << 40, 2, 3, 5));
        let [k0, k1] = [0, 1 << 8];
        assert_eq!(base, philox4x32_10([k0, k1], [2, 3, 4, 0]));
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        const NUM_BINS: usize = 64;
        const NUM_DRAWS: u32 = 64_000;
        let mut bins = [0u32; NUM_BINS];
        for position in 0..NUM_DRAWS {
            let u = uniform_f64(7, position, 0, 0);
            assert!((0.0..1.0).contains(&u));
            assert!((u - f64::from(uniform_f32(7, position, 0, 0))).abs() < 1e-7);
            bins[(u * NUM_BINS as f64) as usize] += 1;
        }
        let expected = f64::from(NUM_DRAWS) / NUM_BINS as f64;
        let chi_square: f64 = bins
            .iter()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        // 63 degrees of freedom: 99.9% of samples are below 103.
        assert!(chi_square < 103.0, "{chi_square}");
    }
}
