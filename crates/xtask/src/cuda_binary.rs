//! `cargo xtask cuda-binary`: builds the release binary with the feature `cuda` and checks that it
//! is what a user may expect of it on a machine without a card.
//!
//! It is linked to no library of NVIDIA's, is below 40 MB without its symbols, holds the kernels
//! for all five architectures and the PTX, serves on the CPU with a warning, and says what is
//! missing where a card is asked for.
//!
//! Invariant: each check looks at the very file that was built.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hotspare_testkit::{Server, ServerOptions};
use serde_json::json;

/// The kernels' container; one source with the crate that has the kernels.
#[path = "../../backend-cuda/src/fatbin.rs"]
#[allow(unreachable_pub, reason = "public in its own crate")]
mod fatbin;

use fatbin::ImageKind;

const MAX_STRIPPED_BYTES: u64 = 40_000_000;
const ARCHITECTURES: [u32; 5] = [80, 86, 89, 90, 120];
const MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
/// Present where the kernel has NVIDIA's module.
const DRIVER_DEVICE: &str = "/dev/nvidiactl";

/// Builds the binary and checks it.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let start = Instant::now();
    let build = [
        "build",
        "--release",
        "--package",
        "hotspare",
        "--features",
        "cuda",
    ];
    crate::verify::cargo(root, &build, &[])?;
    println!("built in {:.0} s", start.elapsed().as_secs_f64());
    let binary = root.join("target/release/hotspare");
    check_links(&binary)?;
    check_size(root, &binary)?;
    let bytes = std::fs::read(&binary).map_err(|e| format!("{}: {e}", binary.display()))?;
    println!("kernels: {}", check_kernels(&bytes)?);
    check_serving(&binary)?;
    if Path::new(DRIVER_DEVICE).exists() {
        println!("there is a driver here: what is said without one is not checked");
        return Ok(());
    }
    check_refusal(&binary)
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output();
    let output = output.map_err(|e| format!("{command:?}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Libraries that `readelf -d` names as needed.
fn needed(dynamic: &str) -> Vec<&str> {
    let lines = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    lines
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .collect()
}

fn check_links(binary: &Path) -> Result<(), String> {
    let dynamic = output(Command::new("readelf").arg("-d").arg(binary))?;
    let needed = needed(&dynamic);
    println!("linked to {}", needed.join(", "));
    if !needed.iter().any(|name| name.starts_with("libc.so")) {
        return Err("readelf names no libc: its output was not understood".to_owned());
    }
    let of_nvidia = |name: &&&str| {
        ["cuda", "cublas", "nv"]
            .iter()
            .any(|part| name.contains(part))
    };
    match needed.iter().find(of_nvidia) {
        Some(name) => Err(format!("the binary is linked to {name}")),
        None => Ok(()),
    }
}

fn check_size(root: &Path, binary: &Path) -> Result<(), String> {
    let stripped = root.join("target/release/hotspare.stripped");
    output(Command::new("strip").arg("-o").arg(&stripped).arg(binary))?;
    let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len());
    let size = size(&stripped).map_err(|e| e.to_string())?;
    println!("{:.1} MB without symbols", size as f64 / 1e6);
    match size < MAX_STRIPPED_BYTES {
        true => Ok(()),
        false => Err(format!("{size} bytes; at most {MAX_STRIPPED_BYTES}")),
    }
}

/// Finds the one container that holds all images, and says how long it is.
fn check_kernels(binary: &[u8]) -> Result<String, String> {
    let starts = binary.windows(MAGIC.len()).enumerate();
    let starts = starts
        .filter(|(_, window)| *window == MAGIC)
        .map(|(at, _)| at);
    for start in starts {
        // The container says where it ends; what follows is the rest of the binary.
        let Some(images) = fatbin::images(&binary[start..]) else {
            continue;
        };
        let of_kind = |kind| {
            let images = images.iter().filter(move |image| image.kind == kind);
            let mut found: Vec<u32> = images.map(|image| image.architecture).collect();
            found.sort_unstable();
            found
        };
        let [elf, ptx] = [of_kind(ImageKind::Elf), of_kind(ImageKind::Ptx)];
        if elf == ARCHITECTURES && ptx == [80] {
            let num_bytes: usize = images.iter().map(|image| image.bytes.len()).sum();
            let megabytes = num_bytes as f64 / 1e6;
            return Ok(format!("sm_{elf:?} and compute_{ptx:?}, {megabytes:.1} MB"));
        }
    }
    Err("the binary has no container with all five architectures and the PTX".to_owned())
}

/// Serves on whatever is there; without a card on the CPU, and says so.
fn check_serving(binary: &Path) -> Result<(), String> {
    let server = Server::start(
        binary,
        &ServerOptions::new("spark-mini", &["--device", "auto"]),
    );
    let body = json!({"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0});
    let answer = server.client().post("/v1/completions", &body).json();
    let num_tokens = answer["usage"]["completion_tokens"].as_u64();
    if num_tokens.is_none_or(|n| n == 0) {
        return Err(format!("it does not answer: {answer}"));
    }
    let engine = server.main_engine();
    let device = engine["device"].as_str().unwrap_or("none");
    println!("serves on {device} under --device auto");
    let warns = server
        .log_lines()
        .iter()
        .any(|line| line.contains("no GPU can be used"));
    let has_card = device.starts_with("cuda");
    match warns != has_card && (has_card || device == "cpu") {
        true => Ok(()),
        false => Err(format!("on {device}, and a warning: {warns}")),
    }
}

/// Ends by itself, without success and with the reason, where a card is asked for.
fn check_refusal(binary: &Path) -> Result<(), String> {
    let mut child = Command::new(binary)
        .args(["serve", "spark-mini", "--port", "0", "--device", "cuda:0"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() > end => {
                drop(child.kill());
                return Err("--device cuda:0 without a card does not end".to_owned());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let log = String::from_utf8_lossy(&output.stderr);
    let says_why = log.contains("--device cuda:0") && log.contains("NVIDIA driver");
    match !status.success() && says_why && !log.contains("panicked") {
        true => {
            println!("--device cuda:0 without a card: {status}, and the reason");
            Ok(())
        }
        false => Err(format!("--device cuda:0 without a card: {status}: {log}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_readelf_prints() {
        let dynamic = "Dynamic section at offset 0x1 contains 2 entries:\n \
            0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]\n \
            0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n \
            0x000000000000000c (INIT)               0x1000\n";
        assert_eq!(needed(dynamic), ["libgcc_s.so.1", "libc.so.6"]);
    }

    #[test]
    fn a_binary_without_the_kernels_is_found_out() {
        assert!(check_kernels(b"no kernels here").is_err());
        let mut cut = vec![0; 100];
        cut.extend(MAGIC);
        cut.extend([1, 0, 16, 0, 9]);
        assert!(check_kernels(&cut).is_err());
    }
}
