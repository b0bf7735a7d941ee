//! The options of `make-gguf`.
//!
//! A shape is a `config.json`, or flags, or a `config.json` with flags in place of some fields.
//!
//! Invariant: an option that is not known, or whose value is wrong, is an error that names it.

use std::path::PathBuf;

use hotspare_testkit::gguf::{GgmlType, GgufModel};
use serde_json::{Map, Value, json};

/// What `--help` says.
pub(crate) const HELP: &str = "usage: cargo xtask make-gguf [OPTIONS] --type TYPE OUT

Writes a GGUF file with random weights and a made-up vocabulary, which `hotspare serve OUT` and
llama.cpp load: for measurements and tests without a download. The text it makes is noise; its
speed and memory are those of a real model of that shape. Weights are written as they are made, so
that a file of many gigabytes takes a few megabytes of memory. The same options give the same file.

  --type TYPE            format of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k
                         q4_k q5_k q6_k. One whose rows are no whole blocks (of 256 elements for
                         the _k types, else 32) is written in q8_0, else f16
  --output-type TYPE     format of the embedding and the output matrix [that of --type]
  --seed N               another seed, other weights [0]

The shape, from a file, from flags, or from a file with flags in place of some of its fields:
  --config FILE          a config.json of transformers, such as those in models/shapes
  --arch NAME            llama, mixtral, qwen2, qwen3, qwen3moe, phi3, gemma2, gemma3 or smollm3;
                         or transformers' class [llama]
  --hidden N             width of the residual stream [256]
  --layers N             [2]
  --heads N              query heads [hidden / 64]
  --kv-heads N           key and value heads [as --heads]
  --head-dim N           width of a head [hidden / heads]
  --intermediate N       width of the feed-forward layer [3 * hidden]
  --vocab N              tokens, 259 at least [4096]
  --context N            context length [4096]
  --theta N              base of the rotary embedding [10000]
  --window N             sliding window, for mixtral, phi3, gemma2 and gemma3
  --experts N            experts of a layer, for mixtral and qwen3moe [8]
  --experts-per-token N  [2]
  --expert-intermediate N  width of an expert, for qwen3moe [intermediate]
  --tied                 the output matrix is the embedding
  --untied               it is a matrix of its own

Examples:
  cargo xtask make-gguf --config models/shapes/qwen3-0.6b/config.json --type q4_k q.gguf
  cargo xtask make-gguf --arch qwen3 --hidden 1024 --layers 28 --heads 16 --kv-heads 8 \\
      --head-dim 128 --intermediate 3072 --vocab 151936 --tied --type q8_0 q.gguf";

/// Flags with a number, and the config's field.
const NUMBERS: [(&str, &str); 14] = [
    ("--hidden", "hidden_size"),
    ("--layers", "num_hidden_layers"),
    ("--heads", "num_attention_heads"),
    ("--kv-heads", "num_key_value_heads"),
    ("--head-dim", "head_dim"),
    ("--intermediate", "intermediate_size"),
    ("--vocab", "vocab_size"),
    ("--context", "max_position_embeddings"),
    ("--theta", "rope_theta"),
    ("--window", "sliding_window"),
    ("--experts", "num_local_experts"),
    ("--experts-per-token", "num_experts_per_tok"),
    ("--expert-intermediate", "moe_intermediate_size"),
    ("--seed", ""),
];

/// What to make.
pub(crate) struct Options {
    /// The shape.
    pub(crate) model: GgufModel,
    /// Format of the matrices.
    pub(crate) kind: GgmlType,
    /// Format of the embedding and the output matrix.
    pub(crate) vocabulary_kind: GgmlType,
    /// Seed of the weights.
    pub(crate) seed: u64,
    /// The file.
    pub(crate) path: PathBuf,
}

impl Options {
    /// Reads the arguments after the command's name.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut flags = Map::new();
        let (mut config, mut kind, mut vocabulary_kind, mut path) = (None, None, None, None);
        let mut seed = 0;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next();
                value.ok_or_else(|| format!("{arg} needs a value; see --help"))
            };
            match arg.as_str() {
                "--help" | "-h" => return Err(HELP.to_owned()),
                "--tied" => drop(flags.insert("tie_word_embeddings".to_owned(), true.into())),
                "--untied" => drop(flags.insert("tie_word_embeddings".to_owned(), false.into())),
                "--config" => config = Some(read_config(value()?)?),
                "--type" => kind = Some(parse_kind(arg, value()?)?),
                "--output-type" => vocabulary_kind = Some(parse_kind(arg, value()?)?),
                "--arch" => {
                    let class = parse_class(value()?)?;
                    flags.insert("architectures".to_owned(), json!([class]));
                }
                _ if arg.starts_with('-') => {
                    let known = NUMBERS.iter().find(|(flag, _)| flag == arg);
                    let (_, field) =
                        known.ok_or_else(|| format!("{arg} is not known; see --help"))?;
                    let value = value()?;
                    let number: u64 = value
                        .parse()
                        .map_err(|_| format!("{arg} {value} is not a whole number"))?;
                    match *field {
                        "" => seed = number,
                        field => drop(flags.insert(field.to_owned(), number.into())),
                    }
                }
                _ if path.is_none() => path = Some(PathBuf::from(arg)),
                _ => {
                    return Err(format!(
                        "{arg}: there is a file to write already; see --help"
                    ));
                }
            }
        }
        let kind = kind.ok_or("--type is missing; see --help")?;
        Ok(Self {
            model: GgufModel::new(merge(config, flags))?,
            kind,
            vocabulary_kind: vocabulary_kind.unwrap_or(kind),
            seed,
            path: path.ok_or("the file to write is missing; see --help")?,
        })
    }
}

fn read_config(path: &str) -> Result<Map<String, Value>, String> {
    let json = std::fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    match serde_json::from_slice(&json) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(format!("{path} is not an object")),
        Err(e) => Err(format!("{path}: {e}")),
    }
}

fn parse_kind(flag: &str, name: &str) -> Result<GgmlType, String> {
    GgmlType::from_name(name).ok_or_else(|| {
        let known: Vec<_> = GgmlType::all().map(GgmlType::name).collect();
        format!("{flag} {name} is not one of {}", known.join(", "))
    })
}

fn parse_class(name: &str) -> Result<&'static str, String> {
    let class = match name {
        "mixtral" => Some("MixtralForCausalLM"),
        "mistral" => Some("MistralForCausalLM"),
        _ => GgufModel::class_of(name),
    };
    class.ok_or_else(|| format!("--arch {name} is not known; see --help"))
}

/// The config, with flags in place of its fields; without a config, defaults.
fn merge(config: Option<Map<String, Value>>, flags: Map<String, Value>) -> Value {
    let is_new = config.is_none();
    let mut config = config.unwrap_or_default();
    if flags.contains_key("rope_theta")
        && let Some(Value::Object(rope)) = config.get_mut("rope_parameters")
    {
        rope.remove("rope_theta");
    }
    config.extend(flags);
    let mut config = Value::Object(config);
    if !is_new {
        return config;
    }
    let number = |config: &Value, name: &str| config[name].as_u64();
    let hidden = number(&config, "hidden_size").unwrap_or(256);
    let heads = number(&config, "num_attention_heads").unwrap_or((hidden / 64).max(1));
    let width = number(&config, "intermediate_size").unwrap_or(3 * hidden);
    for (name, value) in [
        ("architectures", json!(["LlamaForCausalLM"])),
        ("hidden_size", hidden.into()),
        ("num_hidden_layers", 2.into()),
        ("num_attention_heads", heads.into()),
        ("intermediate_size", width.into()),
        ("vocab_size", 4096.into()),
        ("max_position_embeddings", 4096.into()),
        ("rms_norm_eps", 1e-6.into()),
        ("rope_theta", 10_000.into()),
        ("num_local_experts", 8.into()),
        ("num_experts_per_tok", 2.into()),
        ("moe_intermediate_size", width.into()),
    ] {
        if config[name].is_null() {
            config[name] = value;
        }
    }
    config
}
