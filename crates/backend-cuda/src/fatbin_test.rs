//! What nvcc makes of the kernels: every card's code, and within every card's limits.
//!
//! Needs nvcc: from CUDA_HOME, from PATH, or installed before by kernels/toolkit.sh (which CI runs
//! first); without one the suite says so and passes, but for CI.
//!
//! Invariant: the limits are those of the smallest card of each architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fatbin::{Image, ImageKind, images};

const ARCHITECTURES: [u32; 5] = [80, 86, 89, 90, 120];
/// Registers of a multiprocessor, and of a thread at most.
const MAX_REGISTERS: u32 = 65_536;
const MAX_THREAD_REGISTERS: u32 = 255;
/// Shared memory that a kernel may declare.
const MAX_STATIC_BYTES: u32 = 48 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether there is a compiler already: a test does not install one.
fn has_nvcc() -> bool {
    let installed = root().join("target/cuda-toolkit/nvidia/cu13/bin/nvcc");
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    installed.exists()
        || home.is_some_and(|nvcc| nvcc.exists())
        || Command::new("nvcc").arg("--version").output().is_ok()
}

/// The fatbin and the log of its making.
#[allow(clippy::print_stderr, reason = "a suite that is skipped says so")]
fn build() -> Option<(Vec<u8>, String)> {
    if !has_nvcc() {
        eprintln!(
            "SKIPPED what nvcc makes of the kernels: no nvcc; kernels/toolkit.sh installs it"
        );
        assert!(std::env::var_os("CI").is_none(), "CI leaves nothing out");
        return None;
    }
    let output = Command::new(root().join("kernels/build.sh"))
        .output()
        .expect("bash is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kernels/build.sh: {errors}");
    let folder = root().join("target/kernels");
    let fatbin = std::fs::read(folder.join("kernels.fatbin")).expect("the build made it");
    let packed = std::fs::read(folder.join("kernels.packed.fatbin")).expect("the build made it");
    check_images(&images(&packed).expect("nvcc's container"));
    // The binary with everything in it is to stay below 40 MB.
    assert!(packed.len() < 8 << 20, "{} bytes", packed.len());
    let log = std::fs::read_to_string(folder.join("ptxas.log")).expect("the build made it");
    Some((fatbin, log))
}

/// What ptxas says of one kernel on one card.
#[derive(Debug, Default)]
struct Usage {
    spill_bytes: u32,
    registers: u32,
    shared_bytes: u32,
}

/// The number before `word` in `line`.
fn number_before(line: &str, word: &str) -> Option<u32> {
    let before = &line[..line.find(word)?];
    before.split_whitespace().last()?.parse().ok()
}

/// By kernel and architecture.
fn usages(log: &str) -> BTreeMap<(String, String), Usage> {
    let mut usages = BTreeMap::new();
    let mut key = None;
    for line in log.lines() {
        if line.contains("Compiling entry function") {
            let mut names = line.split('\'').skip(1).step_by(2).map(str::to_owned);
            key = names.next().zip(names.next());
        }
        let Some(key) = &key else {
            continue;
        };
        // ptxas runs for several cards at once, and its lines may come in each other's way: then
        // another kernel's number is taken for this one's, but none is lost.
        let usage: &mut Usage = usages.entry(key.clone()).or_default();
        let mut raise = |to: fn(&mut Usage) -> &mut u32, word: &str| {
            let value = to(usage);
            *value = (*value).max(number_before(line, word).unwrap_or(0));
        };
        raise(|usage| &mut usage.spill_bytes, " bytes spill stores");
        raise(|usage| &mut usage.spill_bytes, " bytes spill loads");
        raise(|usage| &mut usage.registers, " registers");
        raise(|usage| &mut usage.shared_bytes, " bytes smem");
    }
    usages
}

#[test]
fn a_spill_is_seen_where_lines_interleave() {
    let log = "ptxas info    : Compiling entry function 'a' for 'sm_80'\n\
               ptxas info    : Compiling entry function 'b' for 'sm_86'\n\
               ptxas info    : Function properties for a\n\
               \t16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n\
               ptxas info    : Used 200 registers, used 1 barriers, 64 bytes smem\n\
               \t0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
               ptxas info    : Used 32 registers\n";
    let usages = usages(log);
    let usage = &usages[&("b".to_owned(), "sm_86".to_owned())];
    assert_eq!((usage.spill_bytes, usage.registers), (20, 200));
    assert_eq!(usage.shared_bytes, 64);
}

#[test]
fn the_fatbin_holds_every_card_and_ptx() {
    let Some((fatbin, _)) = build() else {
        return;
    };
    check_images(&images(&fatbin).expect("nvcc's container"));
}

/// That they are every card's code and the PTX.
fn check_images(images: &[Image<'_>]) {
    let kinds = |kind| {
        let of_kind = images.iter().filter(move |image| image.kind == kind);
        let mut found: Vec<u32> = of_kind.map(|image| image.architecture).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(kinds(ImageKind::Elf), ARCHITECTURES);
    assert_eq!(kinds(ImageKind::Ptx), [80]);
}

/// The text of the fatbin's PTX.
fn ptx(fatbin: &[u8]) -> String {
    let images = images(fatbin).expect("nvcc's container");
    let mut ptx = images.iter().filter(|image| image.kind == ImageKind::Ptx);
    String::from_utf8_lossy(ptx.next().expect("it holds PTX").bytes).into_owned()
}

/// Name and text of every kernel in `ptx`.
fn entries(ptx: &str) -> impl Iterator<Item = (&str, &str)> {
    let entries = ptx.split(".entry ").skip(1);
    entries.map(|entry| (entry.split('(').next().unwrap_or_default().trim(), entry))
}

/// The number behind `word` in the head of a kernel's `entry`.
fn number_after(entry: &str, word: &str) -> Option<u32> {
    let head = entry.split('{').next()?;
    let rest = head[head.find(word)? + word.len()..].trim_start();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// What runs in the emulator and is not in the fatbin would be missed on the first card alone, and
/// so would arguments that are laid out in another way.
#[cfg(emulator)]
#[test]
fn the_fatbin_holds_the_kernels_that_were_tested_and_no_others() {
    let Some((fatbin, _)) = build() else {
        return;
    };
    let text = ptx(&fatbin);
    let args_len = |(name, entry)| {
        let len = number_after(entry, "_param_0[");
        (name, len.expect("a kernel takes one struct") as usize)
    };
    let in_fatbin: BTreeMap<&str, usize> = entries(&text).map(args_len).collect();
    let tested: BTreeMap<&str, usize> = crate::Emulator::kernels()
        .filter(|(name, _)| !name.starts_with("mistake_"))
        .collect();
    assert_eq!(in_fatbin, tested);
}

#[test]
fn products_and_attention_use_matrix_units_and_asynchronous_copies() {
    let Some((fatbin, _)) = build() else {
        return;
    };
    let text = ptx(&fatbin);
    let mut num_checked = 0;
    for (name, entry) in entries(&text) {
        let is_product = name.starts_with("linear_skinny") || name.starts_with("linear_tile");
        let is_attention = name.starts_with("attention_") && name != "attention_merge";
        if is_product || is_attention {
            assert!(
                entry.contains("mma.sync.aligned.m16n8k16"),
                "{name}: no mma.sync"
            );
            assert!(
                entry.contains("cp.async.cg.shared.global"),
                "{name}: no cp.async"
            );
            num_checked += 1;
        }
    }
    assert_eq!(num_checked, 12 + 2 + 24, "every kernel of the two");
}

#[test]
fn kernels_fit_every_card() {
    let Some((fatbin, log)) = build() else {
        return;
    };
    let text = ptx(&fatbin);
    // `__launch_bounds__`, which makes ptxas keep to the registers that so many threads may have.
    let bound = |(name, entry)| {
        let threads = number_after(entry, ".maxntid");
        (name, threads.expect("a kernel has a bound"))
    };
    let max_threads: BTreeMap<&str, u32> = entries(&text).map(bound).collect();
    assert_eq!(max_threads.get("moe_plan"), Some(&1024));
    assert_eq!(max_threads.get("sample"), Some(&512));
    let usages = usages(&log);
    let kernels: std::collections::BTreeSet<&str> =
        usages.keys().map(|(kernel, _)| kernel.as_str()).collect();
    assert!(kernels.len() > 60, "{} kernels", kernels.len());
    assert_eq!(usages.len(), kernels.len() * ARCHITECTURES.len());
    for ((kernel, card), usage) in &usages {
        let what = format!("{kernel} on {card}: {usage:?}");
        assert_eq!(usage.spill_bytes, 0, "{what}");
        assert!(
            usage.registers > 0 && usage.registers <= MAX_THREAD_REGISTERS,
            "{what}"
        );
        assert!(usage.shared_bytes <= MAX_STATIC_BYTES, "{what}");
        let num_threads = max_threads[kernel.as_str()];
        assert!(
            usage.registers.next_multiple_of(8) * num_threads <= MAX_REGISTERS,
            "{what}, {num_threads} threads"
        );
    }
}
