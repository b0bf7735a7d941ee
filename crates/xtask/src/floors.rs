//! `cargo xtask floors`: the least time that each kernel, and whole steps, of the 8B shape can take
//! on a card, from bytes and operations, written into docs/PERFORMANCE.md.
//!
//! A kernel moves its bytes through the memory at most at the card's bandwidth and multiplies at
//! most at its rate; the floor is the longer of the two, as if each byte were moved once and
//! nothing else cost time. A step is the sum of its kernels: they run one after the other.
//!
//! Invariant: every number of the table comes from the formulas here and the shape's config.json.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

const SHAPE: &str = "Llama-3.1-8B";
const BEGIN: &str = "<!-- begin floors: cargo xtask floors -->";
const END: &str = "<!-- end floors -->";
const FILE: &str = "docs/PERFORMANCE.md";
/// Bytes of an activation, and of a key's or value's element.
const ELEMENT: f64 = 2.0;
const LOGIT: f64 = 4.0;

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

/// A model's sizes.
struct Shape {
    layers: f64,
    hidden: f64,
    ffn: f64,
    heads: f64,
    kv_heads: f64,
    head_dim: f64,
    vocab: f64,
}

/// A step: rows in it, the keys that they see in sum, those that are read, and rows with logits.
struct Step {
    name: &'static str,
    rows: f64,
    seen_keys: f64,
    read_keys: f64,
    logits: f64,
}

/// What a kernel needs in a step, all layers together.
struct Work {
    kernel: &'static str,
    bytes: f64,
    operations: f64,
}

impl Card {
    /// Seconds.
    fn floor(&self, work: &Work) -> f64 {
        (work.bytes / self.bandwidth).max(work.operations / self.rate)
    }

    fn step_floor(&self, works: &[Work]) -> f64 {
        works.iter().map(|work| self.floor(work)).sum()
    }
}

impl Shape {
    fn read(root: &Path) -> Result<Self, String> {
        let path = root.join("models/shapes").join(SHAPE).join("config.json");
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let config: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let get = |key: &str| {
            config[key]
                .as_f64()
                .ok_or_else(|| format!("{SHAPE}: no {key}"))
        };
        Ok(Self {
            layers: get("num_hidden_layers")?,
            hidden: get("hidden_size")?,
            ffn: get("intermediate_size")?,
            heads: get("num_attention_heads")?,
            kv_heads: get("num_key_value_heads")?,
            head_dim: get("head_dim")?,
            vocab: get("vocab_size")?,
        })
    }

    fn qkv(&self) -> f64 {
        (self.heads + 2.0 * self.kv_heads) * self.head_dim
    }

    /// Elements of all linear layers.
    fn num_linear(&self) -> f64 {
        let attention = self.qkv() * self.hidden + self.heads * self.head_dim * self.hidden;
        self.layers * (attention + 3.0 * self.ffn * self.hidden) + self.vocab * self.hidden
    }

    /// What a step does, kernel by kernel, with weights of `bits`.
    fn works(&self, step: &Step, bits: f64) -> Vec<Work> {
        let (rows, layers, hidden) = (step.rows, self.layers, self.hidden);
        let q = self.heads * self.head_dim;
        let linear = |kernel, times: f64, rows: f64, [out, input]: [f64; 2], out_bytes: f64| Work {
            kernel,
            bytes: times * (out * input * bits / 8.0 + rows * (input * ELEMENT + out * out_bytes)),
            operations: times * 2.0 * rows * out * input,
        };
        let moved = |kernel, bytes: f64| Work {
            kernel,
            bytes,
            operations: 0.0,
        };
        let kv_row = 2.0 * self.kv_heads * self.head_dim * ELEMENT;
        let attention = Work {
            kernel: "attention",
            bytes: layers * (step.read_keys * kv_row + 2.0 * rows * q * ELEMENT),
            operations: layers * 4.0 * q * step.seen_keys,
        };
        vec![
            moved("embed", 2.0 * rows * hidden * ELEMENT),
            // x and the residual in, the residual and the result out.
            moved(
                "rms_norm",
                (2.0 * layers + 1.0) * 4.0 * rows * hidden * ELEMENT,
            ),
            linear(
                "linear q, k, v",
                layers,
                rows,
                [self.qkv(), hidden],
                ELEMENT,
            ),
            // q, k in and out, v in; k and v to the cache.
            moved(
                "rope_kv_write",
                layers * rows * (2.0 * self.qkv() * ELEMENT + kv_row),
            ),
            attention,
            linear("linear o", layers, rows, [hidden, q], ELEMENT),
            linear(
                "linear gate, up",
                layers,
                rows,
                [2.0 * self.ffn, hidden],
                ELEMENT,
            ),
            moved("silu_mul", layers * rows * 3.0 * self.ffn * ELEMENT),
            linear("linear down", layers, rows, [hidden, self.ffn], ELEMENT),
            linear(
                "linear vocabulary",
                1.0,
                step.logits,
                [self.vocab, hidden],
                LOGIT,
            ),
            moved("sample", step.logits * self.vocab * LOGIT),
        ]
    }
}

/// Context of decode steps, as in kernels/verify.sh's benchmark.
const CONTEXT: f64 = 256.0;
const PREFILL: f64 = 4096.0;

fn steps() -> [Step; 4] {
    let decode = |name, streams: f64| Step {
        name,
        rows: streams,
        seen_keys: streams * CONTEXT,
        read_keys: streams * CONTEXT,
        logits: streams,
    };
    [
        decode("decode, 1 stream", 1.0),
        decode("decode, 16 streams", 16.0),
        decode("decode, 64 streams", 64.0),
        Step {
            name: "prefill, 4,096 tokens",
            rows: PREFILL,
            seen_keys: PREFILL * (PREFILL + 1.0) / 2.0,
            read_keys: PREFILL,
            logits: 1.0,
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

fn tables(shape: &Shape) -> String {
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
            let works = shape.works(&step, bits);
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
        for work in shape.works(&step, FORMATS[0].1) {
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
    let shape = Shape::read(root)?;
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
        let shape = Shape::read(&crate::workspace_root()).unwrap();
        // The published 8.03 billion, without the embedding that no step multiplies with.
        assert!((shape.num_linear() / 1e9 - 7.504).abs() < 0.01);
        let [decode, .., prefill] = steps();
        let works = shape.works(&decode, 16.0);
        let h200 = &CARDS[3];
        // Fifteen gigabytes at 4.8 TB/s, and a little for everything else.
        let floor = h200.step_floor(&works);
        assert!(
            floor > 15.0e9 / 4.8e12 && floor < 1.03 * 15.0e9 / 4.8e12,
            "{floor}"
        );
        // Two operations an element and token, and attention's on top, at 989 TFLOP/s.
        let works = shape.works(&prefill, 16.0);
        let products = 2.0 * 4096.0 * (shape.num_linear() - shape.vocab * shape.hidden);
        let floor = h200.step_floor(&works);
        assert!(
            floor > products / 989e12 && floor < 1.3 * products / 989e12,
            "{floor}"
        );
        assert_eq!(time(0.0123), "12.3 ms");
        assert_eq!(time(4.2e-6), "4.20 us");
    }
}
