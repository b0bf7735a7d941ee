//! Configs of well-known models, part of the binary: what `--load-format dummy` and `inspect` know
//! by name.
//!
//! Invariant: each parses without an unknown field and has the published number of parameters.

/// A well-known model's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    name: &'static str,
    config_json: &'static [u8],
}

macro_rules! shapes {
    ($($name:literal),+ $(,)?) => {
        [$(Shape {
            name: $name,
            config_json: include_bytes!(
                concat!("../../../models/shapes/", $name, "/config.json")
            ),
        }),+]
    };
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 10] = shapes![
        "Gemma-3-4B",
        "Llama-3.1-8B",
        "Llama-3.2-1B",
        "Mistral-7B-v0.3",
        "Phi-4-mini",
        "Qwen2.5-0.5B",
        "Qwen2.5-7B",
        "Qwen3-0.6B",
        "Qwen3-4B",
        "Qwen3-8B",
    ];

    /// The one called `name`, in any case.
    pub fn find(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|shape| shape.name.eq_ignore_ascii_case(name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Its `config.json`.
    pub fn config_json(self) -> &'static [u8] {
        self.config_json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    #[test]
    fn every_shape_parses_and_has_the_published_number_of_parameters() {
        let published = [
            ("Gemma-3-4B", 3_880_263_168),
            ("Llama-3.1-8B", 8_030_261_248),
            ("Llama-3.2-1B", 1_235_814_400),
            ("Mistral-7B-v0.3", 7_248_023_552),
            ("Phi-4-mini", 3_836_021_760),
            ("Qwen2.5-0.5B", 494_032_768),
            ("Qwen2.5-7B", 7_615_616_512),
            ("Qwen3-0.6B", 596_049_920),
            ("Qwen3-4B", 4_022_468_096),
            ("Qwen3-8B", 8_190_735_360),
        ];
        assert_eq!(published.len(), Shape::ALL.len());
        for (name, num_parameters) in published {
            let shape = Shape::find(&name.to_uppercase()).unwrap();
            assert_eq!(shape.name(), name);
            let config = ModelConfig::parse(shape.config_json()).unwrap();
            assert_eq!(config.num_parameters(), num_parameters, "{name}");
            assert_eq!(config.unknown_fields, Vec::<String>::new(), "{name}");
            assert_eq!(config.dtype.as_deref(), Some("bfloat16"), "{name}");
        }
        assert_eq!(Shape::find("Llama-5"), None);
    }

    #[test]
    fn every_directory_of_shapes_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/shapes");
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, Shape::ALL.map(Shape::name));
    }

    #[test]
    fn contexts_are_those_of_the_models() {
        for (name, context) in [
            ("Gemma-3-4B", 131_072),
            ("Llama-3.1-8B", 131_072),
            ("Phi-4-mini", 131_072),
            ("Qwen3-0.6B", 40_960),
            ("Mistral-7B-v0.3", 32_768),
        ] {
            let config = ModelConfig::parse(Shape::find(name).unwrap().config_json()).unwrap();
            assert_eq!(config.max_context_len(), context, "{name}");
        }
    }
}
