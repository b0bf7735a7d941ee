//! The emulator catches each mistake that it is for, and passes what is right.
//!
//! Invariant: every planted mistake is found whatever the order of execution, that is, for every
//! seed.

#[cfg(emulator)]
mod with_compiler {
    use bytemuck::{Pod, Zeroable};

    use crate::{Address, Emulator, Launch, Launcher};

    const THREADS: usize = 64;

    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Args {
        x: Address,
        out: Address,
    }

    /// Runs one block of a kernel of mistakes.cu; its output, or what the emulator said.
    fn run(kernel: &str, shared_bytes: u32, seed: u64) -> Result<Vec<f32>, String> {
        run_blocks(kernel, 1, shared_bytes, seed)
    }

    fn run_blocks(
        kernel: &str,
        num_blocks: u32,
        shared_bytes: u32,
        seed: u64,
    ) -> Result<Vec<f32>, String> {
        let mut emulator = Emulator::new(seed);
        let x: Vec<f32> = (0..THREADS).map(|i| i as f32).collect();
        let mut out = vec![0.0f32; THREADS];
        let mut launch = || -> Result<(), crate::LaunchError> {
            let args = Args {
                x: emulator.alloc(4 * THREADS)?,
                out: emulator.alloc(4 * THREADS)?,
            };
            emulator.write(args.x, bytemuck::cast_slice(&x))?;
            emulator.protect(args.x);
            emulator.launch(&Launch {
                kernel,
                grid: [num_blocks, 1, 1],
                num_threads: THREADS as u32,
                shared_bytes,
                args: bytemuck::bytes_of(&args),
            })?;
            emulator.read(args.out, bytemuck::cast_slice_mut(&mut out))
        };
        match launch() {
            Ok(()) => Ok(out),
            Err(error) => Err(error.to_string()),
        }
    }

    #[track_caller]
    fn caught(kernel: &str, message: &str) {
        for seed in 0..32 {
            let error = run(kernel, 256, seed).expect_err("a planted mistake");
            assert!(error.contains(message), "{kernel}: {error}");
        }
    }

    /// As `caught`, of two blocks; one alone is right.
    #[track_caller]
    fn caught_between_blocks(kernel: &str, message: &str) {
        for seed in 0..32 {
            let error = run_blocks(kernel, 2, 0, seed).expect_err("a planted mistake");
            assert!(error.contains(message), "{kernel}: {error}");
        }
    }

    #[test]
    fn what_is_right_passes() {
        for seed in 0..32 {
            for kernel in ["mistake_none", "mistake_none_async"] {
                let out = run(kernel, 256, seed).unwrap();
                assert!(
                    out.iter()
                        .enumerate()
                        .all(|(i, &x)| x == (THREADS - 1 - i) as f32)
                );
            }
            let out = run("mistake_none_atomic", 0, seed).unwrap();
            assert!(out.iter().enumerate().all(|(i, &x)| x == 2016.0 + i as f32));
        }
    }

    #[test]
    fn matrices_multiply_as_by_hand() {
        let out = run("mistake_none_matrices", 0, 3).unwrap();
        let a = |i: usize| (i % 7) as f32 - 3.0;
        let b = |i: usize| (i % 5) as f32 - 2.0;
        for m in 0..8 {
            for n in 0..8 {
                let sum: f32 = (0..16).map(|k| a(m * 16 + k) * b(n * 16 + k)).sum();
                assert_eq!(out[m * 8 + n], sum + 1.0, "{m} {n}");
            }
        }
    }

    #[test]
    fn missing_barriers_are_caught() {
        caught("mistake_missing_barrier", "shared memory at offset");
        caught("mistake_narrow_barrier", "shared memory at offset");
        caught("mistake_write_after_read", "data race");
        caught("mistake_atomic_without_barrier", "data race");
    }

    #[test]
    fn races_of_threads_on_global_memory_are_caught() {
        for seed in 0..32 {
            for kernel in ["mistake_none_in_place", "mistake_none_copied"] {
                let out = run(kernel, 256, seed).unwrap();
                let mut numbered = out.iter().enumerate();
                assert!(numbered.all(|(i, &x)| x == (THREADS - 1 - i) as f32));
            }
            let out = run("mistake_none_in_warp", 0, seed).unwrap();
            assert!(out.iter().enumerate().all(|(i, &x)| x == (i ^ 1) as f32));
        }
        for kernel in ["read_early", "narrow_barrier", "in_warp", "copied_early"] {
            let kernel = format!("mistake_global_{kernel}");
            caught(&kernel, "data race on global memory at ");
            caught(&kernel, "by another thread since the last barrier");
        }
        caught("mistake_global_write_early", "by another thread since");
        caught("mistake_global_overwritten_early", "by another thread");
    }

    #[test]
    fn races_of_blocks_are_caught() {
        caught_between_blocks("mistake_blocks_write", "written by another block");
        caught_between_blocks("mistake_block_reads_other", "by another block");
        caught_between_blocks("mistake_last_block_writes", "by another block");
        caught_between_blocks("mistake_count_read_early", "by another");
        for seed in 0..32 {
            assert!(run("mistake_blocks_write", 0, seed).is_ok());
            assert!(run_blocks("mistake_none_blocks_write_the_same", 3, 0, seed).is_ok());
            assert!(run_blocks("mistake_none_blocks_write_apart", 2, 0, seed).is_ok());
            // Added to poison: minus one and one after the other.
            let out = run_blocks("mistake_none_count_globally", 5, 0, seed).unwrap();
            assert_eq!(out[0].to_bits(), 5 * (THREADS as u32 - 1) - 1);
        }
    }

    #[test]
    fn copies_that_nobody_waits_for_are_caught() {
        caught("mistake_missing_wait", "cp.async");
        caught("mistake_missing_commit", "cp.async");
        caught("mistake_wait_without_barrier", "shared memory at offset");
    }

    #[test]
    fn accesses_out_of_bounds_are_caught() {
        caught(
            "mistake_read_out_of_bounds",
            "out of bounds: at 256 of a buffer of 256",
        );
        caught("mistake_write_out_of_bounds", "out of bounds");
        caught("mistake_write_to_input", "write of 4 bytes to an input");
        caught(
            "mistake_shared_out_of_bounds",
            "element 64 of an array of 64",
        );
    }

    #[test]
    fn misaligned_accesses_are_caught() {
        caught("mistake_misaligned_pack", "misaligned global read");
        caught("mistake_misaligned_shared_pack", "misaligned shared access");
    }

    #[test]
    fn divergence_is_caught() {
        caught("mistake_divergent_shuffle", "divergent warp");
        caught("mistake_unlike_shuffles", "divergent warp");
        caught("mistake_divergent_barriers", "divergent block");
        caught("mistake_leaves_before_barrier", "before the barrier");
    }

    #[test]
    fn shared_memory_that_nobody_wrote_is_caught() {
        caught("mistake_unwritten_shared", "before anything is written");
    }

    #[test]
    fn more_shared_memory_than_a_card_has_is_caught() {
        caught(
            "mistake_too_much_static",
            "too much shared memory for sm_86",
        );
        let full = run("mistake_none", 99 * 1024 + 1, 0).unwrap_err();
        assert!(full.contains("too much shared memory for sm_86"), "{full}");
        let beside = run("mistake_static_beside_dynamic", 96 * 1024, 0).unwrap_err();
        assert!(
            beside.contains("too much shared memory for sm_86"),
            "{beside}"
        );
        assert!(run("mistake_static_beside_dynamic", 95 * 1024, 0).is_ok());
    }

    #[test]
    fn launches_that_no_card_takes_are_refused() {
        assert!(
            run("no_such_kernel", 0, 0)
                .unwrap_err()
                .contains("no such kernel")
        );
        let mut emulator = Emulator::new(0);
        let launch = |emulator: &mut Emulator, num_threads, grid, args: &[u8]| {
            let launch = Launch {
                kernel: "mistake_none",
                grid,
                num_threads,
                shared_bytes: 0,
                args,
            };
            emulator.launch(&launch).unwrap_err().to_string()
        };
        assert!(launch(&mut emulator, 40, [1, 1, 1], &[0; 16]).contains("threads"));
        assert!(launch(&mut emulator, 96, [1, 1, 1], &[0; 16]).contains("threads"));
        assert!(launch(&mut emulator, 64, [1, 0, 1], &[0; 16]).contains("grid"));
        assert!(launch(&mut emulator, 64, [1, 1, 1], &[0; 8]).contains("arguments"));
        let null = launch(&mut emulator, 64, [1, 1, 1], &[0; 16]);
        assert!(null.contains("out of bounds"), "{null}");
    }

    #[test]
    fn an_emulator_goes_on_after_a_mistake() {
        for seed in 0..20 {
            caught("mistake_missing_wait", "cp.async");
            assert!(run("mistake_none_async", 256, seed).is_ok());
        }
    }
}

/// Without a compiler nothing above was built: said loudly, and a failure in CI.
#[cfg(not(emulator))]
#[test]
#[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
fn kernels_need_a_compiler() {
    eprintln!("SKIPPED kernels under the emulator: no C++ compiler");
    assert!(std::env::var_os("CI").is_none(), "CI has a C++ compiler");
}
