//! What a file says of its rotary embedding, said as in a `config.json`.
//!
//! Invariant: a scaling that llama.cpp would apply is applied or refused by name.

use serde_json::{Value, json};

use super::check::{ROPE_DIVISORS, ROPE_FACTORS};
use super::{GgufArchitecture, GgufFile};
use crate::ModelError;

impl GgufFile {
    /// `rope_scaling` of the config: null where there is none.
    pub(super) fn rope_scaling(
        &self,
        architecture: GgufArchitecture,
        num_pairs: usize,
    ) -> Result<Value, ModelError> {
        let key = |name: &str| format!("{}.rope.scaling.{name}", architecture.name());
        let number = |name: &str| self.f64(&key(name));
        let attention_factor = number("attn_factor")?.unwrap_or(1.0);
        if let Some(factors) = self.long_rope_factors(architecture, num_pairs)? {
            let original = number("original_context_length")?;
            let [short, long] = factors;
            return Ok(json!({
                "rope_type": "longrope", "short_factor": short, "long_factor": long,
                "original_max_position_embeddings": original,
                "attention_factor": attention_factor,
            }));
        }
        let factor = match number("factor")? {
            Some(factor) => Some(factor),
            None => self.f64(&format!("{}.rope.scale_linear", architecture.name()))?,
        };
        // llama.cpp writes a factor of 0 where it has none.
        let factor = factor.filter(|&factor| factor != 0.0);
        let kind = self.string(&key("type"))?;
        if kind != Some("yarn") && attention_factor != 1.0 {
            let reason = format!("= {attention_factor} is not supported");
            return Err(self.field_error(&key("attn_factor"), &reason));
        }
        if kind != Some("yarn") && number("yarn_attn_factor")?.is_some_and(|own| own != 1.0) {
            let reason = "is for a scaling of another type";
            return Err(self.field_error(&key("yarn_attn_factor"), reason));
        }
        match kind {
            Some("none") => Ok(Value::Null),
            None | Some("linear") => match factor {
                None if kind.is_some() => Err(self.field_error(&key("factor"), "is missing")),
                None => Ok(Value::Null),
                Some(factor) => Ok(json!({"rope_type": "linear", "factor": factor})),
            },
            Some("yarn") => {
                let Some(factor) = factor else {
                    return Err(self.field_error(&key("factor"), "is missing"));
                };
                self.yarn(architecture, factor, attention_factor)
            }
            Some("longrope") => {
                let reason = "= \"longrope\", but the tensors rope_factors_short.weight and \
                              rope_factors_long.weight are missing";
                Err(self.field_error(&key("type"), reason))
            }
            Some(other) => {
                let reason = format!(
                    "= {other:?} is not supported (supported: none, linear, yarn, longrope)"
                );
                Err(self.field_error(&key("type"), &reason))
            }
        }
    }

    fn yarn(
        &self,
        architecture: GgufArchitecture,
        factor: f64,
        attention_factor: f64,
    ) -> Result<Value, ModelError> {
        let number = |name: &str| {
            let key = format!("{}.rope.scaling.{name}", architecture.name());
            self.f64(&key)
        };
        let mut scaling = json!({"rope_type": "yarn", "factor": factor});
        for (field, key) in [
            (
                "original_max_position_embeddings",
                "original_context_length",
            ),
            ("beta_fast", "yarn_beta_fast"),
            ("beta_slow", "yarn_beta_slow"),
            ("attention_factor", "yarn_attn_factor"),
        ] {
            if let Some(value) = number(key)? {
                scaling[field] = value.into();
            }
        }
        if let Some(below) = number("yarn_log_multiplier")?.filter(|&below| below != 0.0) {
            if attention_factor != 1.0 || !scaling["attention_factor"].is_null() {
                let key = format!("{}.rope.scaling.yarn_log_multiplier", architecture.name());
                let reason = "is not supported beside attn_factor or yarn_attn_factor";
                return Err(self.field_error(&key, reason));
            }
            scaling["mscale"] = 1.0.into();
            scaling["mscale_all_dim"] = below.into();
        }
        // On top of YaRN's own factor.
        if attention_factor != 1.0 {
            let own = scaling["attention_factor"].as_f64();
            let own = own.unwrap_or(if factor > 1.0 {
                0.1 * factor.ln() + 1.0
            } else {
                1.0
            });
            scaling["attention_factor"] = (own * attention_factor).into();
        }
        Ok(scaling)
    }

    /// The two lists of LongRoPE, or `None` where the file has neither.
    fn long_rope_factors(
        &self,
        architecture: GgufArchitecture,
        num_pairs: usize,
    ) -> Result<Option<[Vec<f32>; 2]>, ModelError> {
        let [short, long] = ROPE_FACTORS.map(|name| self.tensor(name).is_some());
        if !short && !long {
            return Ok(None);
        }
        // llama.cpp reads them for these; with another architecture they mean nothing.
        if !matches!(
            architecture,
            GgufArchitecture::Phi3 | GgufArchitecture::Llama
        ) {
            let reason = "is a tensor that this architecture does not use here";
            return Err(self.field_error(ROPE_FACTORS[usize::from(!short)], reason));
        }
        let [short, long] = ROPE_FACTORS;
        let factors = |name| self.divisors(name, num_pairs);
        Ok(Some([factors(short)?, factors(long)?]))
    }

    /// The divisors of rotary frequencies, or none.
    pub(super) fn rope_divisors(
        &self,
        architecture: GgufArchitecture,
        num_pairs: usize,
    ) -> Result<Vec<f32>, ModelError> {
        if self.tensor(ROPE_DIVISORS).is_none() {
            return Ok(Vec::new());
        }
        if !matches!(
            architecture,
            GgufArchitecture::Llama | GgufArchitecture::Mistral3
        ) {
            let reason = "is a tensor that this architecture does not use here";
            return Err(self.field_error(ROPE_DIVISORS, reason));
        }
        self.divisors(ROPE_DIVISORS, num_pairs)
    }

    fn divisors(&self, name: &str, num_pairs: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name).ok_or_else(|| ModelError::MissingTensor {
            name: name.to_owned(),
        })?;
        let bytes = self.tensor_bytes(name);
        let (divisors, _) = bytes.unwrap_or_default().as_chunks::<4>();
        let is_usable = |d: &f32| d.is_finite() && *d > 0.0;
        let divisors = divisors.iter().map(|&bytes| f32::from_le_bytes(bytes));
        if tensor.dtype != "F32"
            || divisors.len() != num_pairs
            || !divisors.clone().all(|d| is_usable(&d))
        {
            let reason = format!("is not {num_pairs} positive numbers of type F32");
            return Err(self.field_error(name, &reason));
        }
        Ok(divisors.collect())
    }
}
