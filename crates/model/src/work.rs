//! What a step of a decoder needs at least, kernel by kernel: bytes and operations.
//!
//! A kernel moves each byte once, and nothing else costs anything: what a card can do at best
//! follows from its bandwidth and its rate of products. Activations and the KV cache have sixteen
//! bits.
//!
//! Invariant: every number comes from the formulas here and the model's config; families with
//! other kernels (experts) have none.

use crate::ModelConfig;

/// Bytes of an activation, and of a key's or value's element.
const ELEMENT: f64 = 2.0;
const LOGIT: f64 = 4.0;

/// The sizes that the formulas take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkShape {
    layers: f64,
    hidden: f64,
    ffn: f64,
    heads: f64,
    kv_heads: f64,
    head_dim: f64,
    vocab: f64,
}

/// A step: rows in it, the keys that they see in sum, those that are read, and rows with logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepWork {
    /// Tokens.
    pub rows: f64,
    /// Keys that all rows together multiply with.
    pub seen_keys: f64,
    /// Keys that are read from the cache once.
    pub read_keys: f64,
    /// Rows whose logits are computed.
    pub logits: f64,
}

/// What a kernel needs in a step, all layers together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelWork {
    /// As in docs/PERFORMANCE.md.
    pub kernel: &'static str,
    /// Read and written.
    pub bytes: f64,
    /// Multiplications and additions.
    pub operations: f64,
}

impl KernelWork {
    /// Seconds at so many bytes a second and so many operations a second.
    pub fn floor_s(&self, bandwidth: f64, rate: f64) -> f64 {
        (self.bytes / bandwidth).max(self.operations / rate)
    }
}

impl StepWork {
    /// A token each of `streams` sequences of `context` tokens.
    pub fn decode(streams: usize, context: usize) -> Self {
        let (streams, context) = (streams as f64, context as f64);
        Self {
            rows: streams,
            seen_keys: streams * context,
            read_keys: streams * context,
            logits: streams,
        }
    }

    /// A prompt of `tokens` in one step.
    pub fn prefill(tokens: usize) -> Self {
        let tokens = tokens as f64;
        Self {
            rows: tokens,
            seen_keys: tokens * (tokens + 1.0) / 2.0,
            read_keys: tokens,
            logits: 1.0,
        }
    }
}

impl WorkShape {
    /// Of a dense model; `None` where layers have experts.
    pub fn of(config: &ModelConfig) -> Option<Self> {
        let size = |x: usize| x as f64;
        config.moe.is_none().then(|| Self {
            layers: size(config.num_hidden_layers),
            hidden: size(config.hidden_size),
            ffn: size(config.intermediate_size),
            heads: size(config.num_attention_heads),
            kv_heads: size(config.num_key_value_heads),
            head_dim: size(config.head_dim),
            vocab: size(config.vocab_size),
        })
    }

    /// The name of the product of weights `[num_outputs, num_inputs]`, as [`KernelWork::kernel`]
    /// has it.
    pub fn product_name(&self, [num_outputs, num_inputs]: [usize; 2]) -> Option<&'static str> {
        let shape = [num_outputs as f64, num_inputs as f64];
        let found = self
            .products()
            .into_iter()
            .find(|(_, known)| *known == shape);
        found.map(|(name, _)| name)
    }

    /// Outputs and inputs of each product.
    fn products(&self) -> [(&'static str, [f64; 2]); 5] {
        let hidden = self.hidden;
        [
            ("linear q, k, v", [self.qkv(), hidden]),
            ("linear o", [hidden, self.heads * self.head_dim]),
            ("linear gate, up", [2.0 * self.ffn, hidden]),
            ("linear down", [hidden, self.ffn]),
            ("linear vocabulary", [self.vocab, hidden]),
        ]
    }

    fn qkv(&self) -> f64 {
        (self.heads + 2.0 * self.kv_heads) * self.head_dim
    }

    /// Elements of all linear layers that a step multiplies with.
    pub fn num_linear(&self) -> f64 {
        let attention = self.qkv() * self.hidden + self.heads * self.head_dim * self.hidden;
        self.layers * (attention + 3.0 * self.ffn * self.hidden) + self.vocab * self.hidden
    }

    /// What a step does, kernel by kernel, with weights of `bits`.
    pub fn kernels(&self, step: &StepWork, bits: f64) -> Vec<KernelWork> {
        let (rows, layers, hidden) = (step.rows, self.layers, self.hidden);
        let q = self.heads * self.head_dim;
        let linear =
            |kernel, times: f64, rows: f64, [out, input]: [f64; 2], out_bytes: f64| KernelWork {
                kernel,
                bytes: times
                    * (out * input * bits / 8.0 + rows * (input * ELEMENT + out * out_bytes)),
                operations: times * 2.0 * rows * out * input,
            };
        let moved = |kernel, bytes: f64| KernelWork {
            kernel,
            bytes,
            operations: 0.0,
        };
        let kv_row = 2.0 * self.kv_heads * self.head_dim * ELEMENT;
        let attention = KernelWork {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> WorkShape {
        WorkShape {
            layers: 2.0,
            hidden: 64.0,
            ffn: 128.0,
            heads: 4.0,
            kv_heads: 2.0,
            head_dim: 16.0,
            vocab: 1000.0,
        }
    }

    #[test]
    fn every_product_has_its_name() {
        for (shape_of, name) in [
            ([128, 64], Some("linear q, k, v")),
            ([64, 64], Some("linear o")),
            ([256, 64], Some("linear gate, up")),
            ([64, 128], Some("linear down")),
            ([1000, 64], Some("linear vocabulary")),
            ([999, 64], None),
        ] {
            assert_eq!(shape().product_name(shape_of), name);
        }
        let kernels = shape().kernels(&StepWork::decode(1, 1), 16.0);
        for (name, _) in shape().products() {
            assert_eq!(kernels.iter().filter(|work| work.kernel == name).count(), 1);
        }
    }

    #[test]
    fn bytes_and_operations_are_what_one_counts_by_hand() {
        let kernels = shape().kernels(&StepWork::decode(3, 10), 8.5);
        let down = kernels.iter().find(|work| work.kernel == "linear down");
        let down = down.expect("there is one");
        // Weights of 8.5 bits, three rows in and out of 16.
        let bytes = 64.0 * 128.0 * 8.5 / 8.0 + 3.0 * 2.0 * (128.0 + 64.0);
        assert_eq!(down.bytes, 2.0 * bytes);
        assert_eq!(down.operations, 2.0 * 2.0 * 3.0 * 64.0 * 128.0);
        assert_eq!(down.floor_s(1e3, 1e9), down.bytes / 1e3);
        assert_eq!(down.floor_s(1e9, 1.0), down.operations);
        let prefill = StepWork::prefill(4);
        assert_eq!((prefill.seen_keys, prefill.logits), (10.0, 1.0));
    }
}
