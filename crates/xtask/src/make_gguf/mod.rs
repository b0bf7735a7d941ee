//! `cargo xtask make-gguf`: a GGUF file of any shape and number format, with random weights.
//!
//! For measuring and testing without a download: what a product costs depends on shapes and
//! formats, not on what the numbers say. Weights are written as they are made.
//!
//! Invariant: the same options and seed give the same bytes.

mod blocks;
mod options;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use hotspare_testkit::gguf::{GgmlType, GgufLayout, GgufTensor, GgufWriter, Source, TensorPlan};

use blocks::Random;
use options::Options;

/// Bytes that the file is written in.
const BUFFER_BYTES: usize = 1 << 20;

/// Runs the command with the arguments after its name.
///
/// # Errors
/// The help text, or what is wrong with an option, or why the file cannot be written.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    let path = options.path.clone();
    let summary = make(&options)?;
    println!("{}: {summary}", path.display());
    Ok(())
}

/// Writes the file; says what it is.
pub(crate) fn make(options: &Options) -> Result<String, String> {
    let layout = GgufLayout::new(&options.model)?;
    let mut writer = layout.writer;
    writer.string("general.name", "random weights");
    writer.u32("general.file_type", options.kind.file_type());
    writer.u32("general.quantization_version", 2);
    vocabulary::write(&mut writer, options.model.usize("vocab_size")?)?;
    let mut plans = layout.tensors;
    let mut num_replaced = 0;
    for plan in &mut plans {
        let wanted = wanted_kind(plan, options);
        plan.tensor.kind = fitting_kind(&plan.tensor, wanted);
        num_replaced += usize::from(plan.tensor.kind != wanted);
    }
    writer.tensors = plans.iter().map(|plan| plan.tensor.clone()).collect();
    write_file(&options.path, &writer, &plans, options.seed)
        .map_err(|e| format!("cannot write {}: {e}", options.path.display()))?;
    let num_elements: u64 = writer.tensors.iter().map(GgufTensor::num_elements).sum();
    let mut summary = format!(
        "{} of {:.3} billion weights in {}, {} MiB",
        options.model.architecture,
        num_elements as f64 / 1e9,
        options.kind.name(),
        writer.num_bytes() >> 20,
    );
    if num_replaced > 0 {
        let note = format!(
            "; {num_replaced} tensors whose rows are no whole blocks of it are in q8_0 or f16"
        );
        summary.push_str(&note);
    }
    Ok(summary)
}

/// The format a tensor should have: matrices as asked, the rest in single precision, as llama.cpp
/// has it.
fn wanted_kind(plan: &TensorPlan, options: &Options) -> GgmlType {
    let TensorPlan { tensor, source } = plan;
    let is_plain = tensor.shape.len() == 1
        || tensor.name.contains("ffn_gate_inp")
        || matches!(source, Source::Values(_));
    let is_vocabulary = matches!(&*tensor.name, "token_embd.weight" | "output.weight");
    match (is_plain, is_vocabulary) {
        (true, _) => GgmlType::F32,
        (false, true) => options.vocabulary_kind,
        (false, false) => options.kind,
    }
}

/// `wanted`, or what a row can be cut into.
fn fitting_kind(tensor: &GgufTensor, wanted: GgmlType) -> GgmlType {
    let width = tensor.shape.last().copied().unwrap_or(1);
    let fits = |kind: &GgmlType| width.is_multiple_of(kind.block_len() as u64);
    let kinds = [wanted, GgmlType::Q8_0, GgmlType::F16];
    kinds.into_iter().find(fits).unwrap_or(GgmlType::F32)
}

/// Writes beside the file and renames, so that an interrupted run leaves no half file.
fn write_file(path: &Path, writer: &GgufWriter, plans: &[TensorPlan], seed: u64) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = File::create(&part).and_then(|file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let fill = |index: usize, tensor: &GgufTensor, out: &mut dyn Write| {
            // Each tensor has its own stream of numbers: the order does not matter.
            let mut random = Random::new(seed, index as u64);
            fill_tensor(&mut random, tensor, &plans[index].source, out)
        };
        writer.write(&mut out, fill)?;
        out.flush()
    });
    match written {
        Ok(()) => fs::rename(&part, path),
        Err(e) => {
            // The first error says more than one of cleaning up.
            let _ = fs::remove_file(&part);
            Err(e)
        }
    }
}

/// Norms are 1, so that activations keep their size; a matrix's weights have the variance that
/// keeps it too.
fn fill_tensor(
    random: &mut Random,
    tensor: &GgufTensor,
    source: &Source,
    out: &mut dyn Write,
) -> io::Result<()> {
    let width = tensor.shape.last().copied().unwrap_or(1);
    match source {
        Source::Values(values) => values
            .iter()
            .try_for_each(|value| out.write_all(&value.to_le_bytes())),
        _ if tensor.name.ends_with("norm.weight") => {
            (0..width).try_for_each(|_| out.write_all(&1f32.to_le_bytes()))
        }
        _ if tensor.shape.len() == 1 => blocks::write(random, GgmlType::F32, width, 0.02, out),
        _ => {
            let deviation = (1.0 / (width as f64).sqrt()) as f32;
            blocks::write(random, tensor.kind, tensor.num_elements(), deviation, out)
        }
    }
}
