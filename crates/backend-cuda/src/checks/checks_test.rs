//! All checks on the emulator.
//!
//! Invariant: every check of the list is run, for several seeds.

#[cfg(emulator)]
mod on_emulator {
    use crate::Emulator;
    use crate::checks::ALL;

    const NUM_SEEDS: u64 = 9;

    /// Runs the checks whose place in the list is `nth` modulo 4, so that threads share them.
    fn run_quarter(nth: usize) {
        for (name, check) in ALL.iter().skip(nth).step_by(4) {
            for seed in 0..NUM_SEEDS {
                let mut emulator = Emulator::new(seed);
                if let Err(error) = check(&mut emulator, seed) {
                    panic!("{name}, seed {seed}: {error}");
                }
            }
        }
    }

    #[test]
    fn kernels_agree_with_the_cpu_a() {
        run_quarter(0);
    }

    #[test]
    fn kernels_agree_with_the_cpu_b() {
        run_quarter(1);
    }

    #[test]
    fn kernels_agree_with_the_cpu_c() {
        run_quarter(2);
    }

    #[test]
    fn kernels_agree_with_the_cpu_d() {
        run_quarter(3);
    }
}
