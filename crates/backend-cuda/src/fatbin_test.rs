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
        let usage: &mut Usage = usages.entry(key.clone()).or_default();
        if let Some(stores) = number_before(line, " bytes spill stores") {
            usage.spill_bytes = stores + number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = number_before(line, " registers") {
            usage.registers = registers;
            usage.shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    usages
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

/// What runs in the emulator and is not in the fatbin would be missed on the first card alone.
#[cfg(emulator)]
#[test]
fn the_fatbin_holds_the_kernels_that_were_tested_and_no_others() {
    use std::collections::BTreeSet;

    let Some((fatbin, _)) = build() else {
        return;
    };
    let text = ptx(&fatbin);
    let in_fatbin: BTreeSet<&str> = entries(&text).map(|(name, _)| name).collect();
    let tested: BTreeSet<&str> = crate::Emulator::kernel_names()
        .filter(|name| !name.starts_with("mistake_"))
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
    let Some((_, log)) = build() else {
        return;
    };
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
        // `__launch_bounds__` makes ptxas keep to this; 1024 threads are the largest block.
        let num_threads = if kernel == "moe_plan" { 1024 } else { 256 };
        assert!(
            usage.registers.next_multiple_of(8) * num_threads <= MAX_REGISTERS,
            "{what}"
        );
    }
}
