//! Every check of whole models, one after the other: what a machine with a card runs.
//!
//! Invariant: each check has a name and a result; one that fails does not stop the others.

use std::path::Path;

use super::{
    CheckError, FAMILIES, Report, Settings, check_family, check_gguf, check_long_context,
    check_lookahead, check_refusals, check_sampling,
};
use crate::{Device, Dtype, LaunchError};

/// Greedy tokens of each prompt.
const NUM_NEW: usize = 24;

/// Quantized files: model, type in the file's name, type in the golden file.
const GGUF: [[&str; 3]; 10] = [
    ["llama-tiny", "f16", "F16"],
    ["llama-tiny", "q8_0", "Q8_0"],
    ["llama-tiny", "q4_0", "Q4_0"],
    ["llama-tiny", "q4_k_m", "Q4_K_M"],
    ["llama-tiny", "q5_k_m", "Q5_K_M"],
    ["llama-tiny", "q6_k", "Q6_K"],
    ["qwen2-tiny", "q8_0", "Q8_0"],
    ["qwen2-tiny", "q4_k_m", "Q4_K_M"],
    ["qwen3-tiny", "q8_0", "Q8_0"],
    ["qwen3-tiny", "q4_k_m", "Q4_K_M"],
];

/// Runs the checks whose name contains `only` on devices that `new_device` opens, with the test
/// data in `assets`; `each` gets every check's name and, where it passed, what it compared.
///
/// # Errors
/// What `new_device` says.
pub fn run_all<D: Device>(
    mut new_device: impl FnMut() -> Result<D, LaunchError>,
    assets: &Path,
    only: &str,
    each: &mut dyn FnMut(&str, Result<Report, CheckError>),
) -> Result<(), LaunchError> {
    let mut run = |name: String, check: &mut dyn FnMut(D) -> Result<Report, CheckError>| {
        if name.contains(only) {
            each(&name, check(new_device()?));
        }
        Ok(())
    };
    for family in FAMILIES {
        let path = assets.join("tiny").join(family);
        for dtype in Dtype::ALL {
            let settings = Settings::new(dtype);
            run(format!("{family} in {}", dtype.suffix()), &mut |device| {
                check_family(device, &path, settings, NUM_NEW)
            })?;
        }
    }
    let folder = assets.join("gguf");
    for names in GGUF {
        for dtype in Dtype::HALVES {
            let [model, file, _] = names;
            run(
                format!("{model}.{file} in {}", dtype.suffix()),
                &mut |device| check_gguf(device, &folder, names, Settings::new(dtype), NUM_NEW),
            )?;
        }
    }
    let path = assets.join("tiny/llama");
    for dtype in Dtype::ALL {
        let settings = Settings {
            max_num_seqs: 4,
            ..Settings::new(dtype)
        };
        let name = |what: &str| format!("{what} in {}", dtype.suffix());
        run(name("sampling"), &mut |device| {
            let num_held = check_sampling(device, &path, settings, NUM_NEW)?;
            Ok(Report {
                num_held,
                ..Report::default()
            })
        })?;
        run(name("a long context"), &mut |device| {
            check_long_context(device, &path, settings).map(|()| Report::default())
        })?;
        run(name("refusals"), &mut |device| {
            check_refusals(device, &path, settings).map(|()| Report::default())
        })?;
    }
    for dtype in Dtype::ALL {
        let settings = Settings {
            max_num_seqs: 4,
            ..Settings::new(dtype)
        };
        let name = format!("look-ahead and graphs in {}", dtype.suffix());
        if name.contains(only) {
            let devices = [new_device()?, new_device()?, new_device()?];
            let checked = check_lookahead(devices, &path, settings, NUM_NEW, |_| {});
            each(&name, checked.map(|()| Report::default()));
        }
    }
    Ok(())
}
