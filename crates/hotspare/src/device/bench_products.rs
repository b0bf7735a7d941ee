//! The dense products of a large model on a card: own kernels beside cuBLASLt, where it is found.
//!
//! Invariant: a card with too little memory for a shape is no failure.

use super::report::Report;

/// Nothing to compare on the CPU.
#[cfg(not(feature = "cuda"))]
#[allow(clippy::unnecessary_wraps, reason = "as in the build with CUDA")]
pub(super) fn run(_report: &mut Report) -> Result<(), String> {
    Ok(())
}

/// Outputs and inputs of Llama-3.1-8B's products: q, k, v; o; gate, up; down.
#[cfg(feature = "cuda")]
const WEIGHTS: [[usize; 2]; 4] = [[6144, 4096], [4096, 4096], [28_672, 4096], [4096, 14_336]];

/// Rows of a full step of prompts, of a short one, and of decode steps.
#[cfg(feature = "cuda")]
const ROWS: [usize; 5] = [2048, 256, 64, 16, 1];

#[cfg(feature = "cuda")]
pub(super) fn run(report: &mut Report) -> Result<(), String> {
    use hotspare_backend_cuda::bench::time_product;
    use hotspare_backend_cuda::card::{Card, FaultCell};
    use hotspare_backend_cuda::{Device as _, LaunchError, Launcher as _};
    use serde_json::json;

    let Some((driver, ordinal)) = report.machine.driver else {
        return Ok(());
    };
    let card = Card::open(driver, ordinal, FaultCell::default());
    let mut card = card.map_err(|error| error.to_string())?;
    let shapes = ROWS
        .iter()
        .flat_map(|&rows| WEIGHTS.map(|[outputs, inputs]| [rows, outputs, inputs]));
    for shape @ [num_rows, num_outputs, num_inputs] in shapes {
        let library = card.open_products();
        let time = time_product(&mut card, shape, library.is_ok());
        card.free_all();
        let name = format!("product {num_rows}x{num_outputs}x{num_inputs}");
        let mut more = json!({"kind": "product", "rows": num_rows, "outputs": num_outputs,
            "inputs": num_inputs});
        let time = match time {
            Ok(time) => time,
            Err(LaunchError::OutOfMemory { .. }) => {
                report.result(true, &name, "does not fit", more);
                continue;
            }
            Err(error) => return Err(format!("{name}: {error}")),
        };
        let operations = 2.0 * (num_rows * num_outputs * num_inputs) as f64;
        let tflops = |us: f64| operations / us * 1e-6;
        let mut note = format!(
            "own {:8.1} us, {:6.1} TFLOP/s",
            time.own_us,
            tflops(time.own_us)
        );
        more["own_us"] = time.own_us.into();
        match (time.library_us, library) {
            (Some(us), Ok(Some(library))) => {
                let ratio = time.own_us / us;
                note += &format!(
                    "; {library} {us:8.1} us, {:6.1}; ratio {ratio:.2}",
                    tflops(us)
                );
                more["library"] = library.into();
                more["library_us"] = us.into();
                more["own_to_library"] = ratio.into();
            }
            (_, Err(reason)) => note += &format!("; cuBLASLt not found: {reason}"),
            _ => note += "; the library has no way for it",
        }
        report.result(true, &name, &note, more);
    }
    Ok(())
}
