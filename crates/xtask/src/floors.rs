//! `cargo xtask floors`: the least time that each kernel, and whole steps, of the 8B shape can take
//! on a card, from bytes and operations, written into docs/PERFORMANCE.md.
//!
//! A kernel moves its bytes through the memory at most at the card's bandwidth and multiplies at
//! most at its rate; the floor is the longer of the two, as if each byte were moved once and
//! nothing else cost time. A step is the sum of its kernels: they run one after the other.
//!
//! Invariant: every number of the table comes from the formulas of `hotspare_model::WorkShape`, the
//! shape's config.json and the cards' published limits here.

use std::fmt::Write as _;
use std::path::Path;

use hotspare_model::{KernelWork, ModelConfig, StepWork, WorkShape};

const SHAPE: &str = "Llama-3.1-8B";
const BEGIN: &str = "<!-- begin floors: cargo xtask floors -->";
const END: &str = "<!-- end floors -->";
const FILE: &str = "docs/PERFORMANCE.md";

/// A card's published limits.
struct Card {
    name: &'static str,
    /// Bytes a second.
    bandwidth: f64,
    /// Dense bf16 products with sums in f32, operations a second.
    rate: f64,
    memory_gb: f64,
}

const CARDS: [Card; 4] = [
    Card {
        name: "RTX 3050",
        bandwidth: 224e9,
        rate: 18.2e12,
        memory_gb: 8.0,
    },
    Card {
        name: "RTX 4090",
        bandwidth: 1008e9,
        rate: 165.2e12,
        memory_gb: 24.0,
    },
    Card {
        name: "RTX 5090",
        bandwidth: 1792e9,
        rate: 209.5e12,
        memory_gb: 32.0,
    },
    Card {
        name: "H200",
        bandwidth: 4800e9,
        rate: 989e12,
        memory_gb: 141.0,
    },
];

/// How linear weights are stored: name and bits an element, scales included.
const FORMATS: [(&str, f64); 3] = [("bf16", 16.0), ("Q8_0", 8.5), ("Q4_K", 4.5)];

/// A step by its name in the tables.
struct Step {
    name: &'static str,
    work: StepWork,
}

impl Card {
    /// Seconds.
    fn floor(&self, work: &KernelWork) -> f64 {
        work.floor_s(self.bandwidth, self.rate)
    }

    fn step_floor(&self, works: &[KernelWork]) -> f64 {
        works.iter().map(|work| self.floor(work)).sum()
    }
}

/// The shape's sizes.
fn read_shape(root: &Path) -> Result<WorkShape, String> {
    let path = root.join("models/shapes").join(SHAPE).join("config.json");
    let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let json = std::fs::read(&path).map_err(|error| failed(&error))?;
    let config = ModelConfig::parse(&json).map_err(|error| failed(&error))?;
    WorkShape::of(&config).ok_or_else(|| failed(&"it has experts"))
}

/// Context of decode steps, as in kernels/verify.sh's benchmark.
const CONTEXT: usize = 256;
const PREFILL: usize = 4096;

fn steps() -> [Step; 4] {
    let decode = |name, streams| Step {
        name,
        work: StepWork::decode(streams, CONTEXT),
    };
    [
        decode("decode, 1 stream", 1),
        decode("decode, 16 streams", 16),
        decode("decode, 64 streams", 64),
        Step {
            name: "prefill, 4,096 tokens",
            work: StepWork::prefill(PREFILL),
        },
    ]
}

/// Seconds in the unit in which they are read easily.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1e-2 => format!("{:.1} ms", s * 1e3),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s if s >= 1e-5 => format!("{:.0} us", s * 1e6),
        s => format!("{:.2} us", s * 1e6),
    }
}

fn tables(shape: &WorkShape) -> String {
    let mut text = String::new();
    let head = |text: &mut String, first: &str| {
        let names: Vec<String> = CARDS
            .iter()
            .map(|card| format!("{} | measured", card.name))
            .collect();
        let _ = writeln!(text, "| {first} | {} |", names.join(" | "));
        let _ = writeln!(text, "|---|{}", "---:|---|".repeat(CARDS.len()));
    };
    text.push_str("\n### Whole steps\n\n");
    head(&mut text, "step, weights");
    for (format, bits) in FORMATS {
        let fits = |card: &Card| shape.num_linear() * bits / 8.0 < card.memory_gb * 1e9;
        for step in steps() {
            let works = shape.kernels(&step.work, bits);
            let cells: Vec<String> = CARDS
                .iter()
                .map(|card| match fits(card) {
                    true => format!("{} | not yet run", time(card.step_floor(&works))),
                    false => "does not fit | –".to_owned(),
                })
                .collect();
            let _ = writeln!(text, "| {}, {format} | {} |", step.name, cells.join(" | "));
        }
    }
    for step in steps() {
        let _ = write!(
            text,
            "\n### {}, bf16: each kernel, all layers\n\n",
            step.name
        );
        head(&mut text, "kernel");
        for work in shape.kernels(&step.work, FORMATS[0].1) {
            let cells: Vec<String> = CARDS
                .iter()
                .map(|card| format!("{} | not yet run", time(card.floor(&work))))
                .collect();
            let _ = writeln!(text, "| {} | {} |", work.kernel, cells.join(" | "));
        }
    }
    text
}

/// The document with fresh tables.
fn updated(root: &Path) -> Result<(String, String), String> {
    let path = root.join(FILE);
    let old = std::fs::read_to_string(&path);
    let old = old.map_err(|error| format!("{}: {error}", path.display()))?;
    let begin = old
        .find(BEGIN)
        .ok_or_else(|| format!("{FILE} has no {BEGIN}"))?;
    let end = old
        .find(END)
        .ok_or_else(|| format!("{FILE} has no {END}"))?;
    let shape = read_shape(root)?;
    let [before, after] = [&old[..begin + BEGIN.len()], &old[end..]];
    let new = format!("{before}\n{}\n{after}", tables(&shape));
    Ok((old, new))
}

/// Writes the tables.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let (_, new) = updated(root)?;
    std::fs::write(root.join(FILE), new).map_err(|error| format!("{FILE}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_tables_that_the_formulas_give() {
        let (old, new) = updated(&crate::workspace_root()).unwrap();
        assert_eq!(old, new, "run `cargo xtask floors`");
    }

    #[test]
    fn floors_are_what_one_computes_by_hand() {
        let shape = read_shape(&crate::workspace_root()).unwrap();
        // The published 8.03 billion, without the embedding that no step multiplies with.
        assert!((shape.num_linear() / 1e9 - 7.504).abs() < 0.01);
        let [decode, .., prefill] = steps();
        let works = shape.kernels(&decode.work, 16.0);
        let h200 = &CARDS[3];
        // Fifteen gigabytes at 4.8 TB/s, and a little for everything else.
        let floor = h200.step_floor(&works);
        assert!(
            floor > 15.0e9 / 4.8e12 && floor < 1.03 * 15.0e9 / 4.8e12,
            "{floor}"
        );
        // Two operations an element and token, and attention's on top, at 989 TFLOP/s.
        let works = shape.kernels(&prefill.work, 16.0);
        let products = 2.0 * 4096.0 * (shape.num_linear() - 128_256.0 * 4096.0);
        let floor = h200.step_floor(&works);
        assert!(
            floor > products / 989e12 && floor < 1.3 * products / 989e12,
            "{floor}"
        );
        assert_eq!(time(0.0123), "12.3 ms");
        assert_eq!(time(4.2e-6), "4.20 us");
    }
}
