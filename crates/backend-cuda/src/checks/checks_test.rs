//! All checks on the emulator.
//!
//! Invariant: every check of the list is run, for several seeds.

#[cfg(emulator)]
mod on_emulator {
    use crate::checks::{ALL, dense_products};
    use crate::{Device as _, EmulatedFault, Emulator};

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
    fn products_of_a_library_agree_with_the_cpu() {
        for seed in 0..NUM_SEEDS {
            let mut emulator = Emulator::new(seed);
            emulator.library.is_present = true;
            assert!(emulator.open_products().is_ok_and(|name| name.is_some()));
            dense_products(&mut emulator, seed).unwrap_or_else(|e| panic!("{e}"));
            assert!(emulator.library.products.len() >= 12);
        }
        let mut emulator = Emulator::new(0);
        emulator.library.is_present = true;
        emulator.library.fault = Some(EmulatedFault::NoPlan);
        assert!(dense_products(&mut emulator, 0).is_err());
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
