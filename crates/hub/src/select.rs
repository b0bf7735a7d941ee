//! Which files of a repository a server needs.
//!
//! Invariant: weights in other frameworks' formats, and second copies of the weights, are left
//! where they are.

use serde_json::Value;

use crate::api::RepoFile;
use crate::glob::matches;
use crate::reference::is_file_name;
use crate::{HubError, ModelRef};

/// Weights in one file.
pub(crate) const SINGLE_FILE: &str = "model.safetensors";
/// The list of shards, where they are in several.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";

/// Everything small that says how to use the weights.
const SMALL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Names in a message, at most.
const MAX_NUM_LISTED: usize = 40;

/// What of a repository is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) model: &'a ModelRef,
    /// Patterns that replace the choice made here.
    pub(crate) include: &'a [String],
    /// Without weights: for random ones.
    pub(crate) has_weights: bool,
}

/// The files to fetch first. Where [`INDEX_FILE`] is among them it names further ones.
pub(crate) fn first_files<'a>(
    files: &'a [RepoFile],
    choice: &Choice<'_>,
) -> Result<Vec<&'a RepoFile>, HubError> {
    let repo = &choice.model.repo;
    if !choice.include.is_empty() {
        let is_included = |file: &&RepoFile| choice.include.iter().any(|p| matches(p, &file.name));
        let included: Vec<_> = files.iter().filter(is_included).collect();
        return match included.is_empty() {
            false => Ok(included),
            true => Err(not_found(repo, &choice.include.join(" "), files)),
        };
    }
    let find = |name: &str| files.iter().find(|file| file.name == name);
    if let Some(name) = &choice.model.file {
        let names = |name: &str| files.iter().any(|file| file.name == *name);
        let found = named_files(name, files.iter().map(|file| file.name.as_str()), names);
        let found = found.ok_or_else(|| not_found(repo, name, files))?;
        let each = found
            .iter()
            .map(|part| find(part).ok_or_else(|| not_found(repo, part, files)));
        return each.collect();
    }
    let mut chosen: Vec<_> = SMALL_FILES.into_iter().filter_map(find).collect();
    let weights = find(SINGLE_FILE).or_else(|| find(INDEX_FILE));
    match weights {
        _ if !choice.has_weights => {}
        Some(weights) => chosen.push(weights),
        None => return Err(no_weights(repo, files)),
    }
    match find("config.json") {
        Some(_) => Ok(chosen),
        None => Err(HubError::NoWeights {
            repo: repo.clone(),
            reason: "it has no config.json".to_owned(),
        }),
    }
}

/// The files that `name` stands for, in order: that file, with or without its ending; where it is
/// one of a GGUF model's several files (`NAME-00001-of-00003.gguf`), or what is common to their
/// names, all of these. `None` where there is nothing of that name among `all`.
pub(crate) fn named_files<'a>(
    name: &str,
    mut all: impl Iterator<Item = &'a str>,
    is_there: impl Fn(&str) -> bool,
) -> Option<Vec<String>> {
    let with_ending = format!("{name}.gguf");
    let whole = [name, &with_ending].into_iter().find(|name| is_there(name));
    if let Some(whole) = whole {
        return Some(gguf_shards(whole).unwrap_or_else(|| vec![whole.to_owned()]));
    }
    let stem = name.strip_suffix(".gguf").unwrap_or(name);
    all.find_map(|file| {
        let shards = gguf_shards(file)?;
        let common = shards[0].rsplit_once("-00001-of-")?.0;
        (common == stem).then_some(shards)
    })
}

/// The files of a GGUF model in several, one of which is `name`; `None` where that is another name.
fn gguf_shards(name: &str) -> Option<Vec<String>> {
    const MAX_NUM_SHARDS: usize = 1024;
    let (stem, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let parse = |digits: &str| {
        let is_number = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| digits.parse::<usize>().ok()).flatten()
    };
    let (number, count) = (parse(number)?, parse(count)?);
    let is_usable = (1..=MAX_NUM_SHARDS).contains(&count) && (1..=count).contains(&number);
    let of = |number| format!("{stem}-{number:05}-of-{count:05}.gguf");
    is_usable.then(|| (1..=count).map(of).collect())
}

/// The shards that an index names, each once, sorted.
pub(crate) fn shards(index: &[u8]) -> Option<Vec<String>> {
    let index: Value = serde_json::from_slice(index).ok()?;
    let map = index.get("weight_map")?.as_object()?;
    let names = map
        .values()
        .map(|name| name.as_str().filter(|name| is_file_name(name)));
    let mut names: Vec<String> = names
        .map(|name| name.map(str::to_owned))
        .collect::<Option<_>>()?;
    names.sort();
    names.dedup();
    (!names.is_empty()).then_some(names)
}

fn no_weights(repo: &str, files: &[RepoFile]) -> HubError {
    let ending = |ending: &str| {
        let names = files.iter().map(|file| file.name.as_str());
        names
            .filter(|name| name.ends_with(ending))
            .collect::<Vec<_>>()
    };
    let gguf = ending(".gguf");
    if !gguf.is_empty() {
        return HubError::ChooseFile {
            repo: repo.to_owned(),
            files: list(&gguf),
        };
    }
    let torch = [ending(".bin"), ending(".pth"), ending(".pt")].concat();
    let reason = match torch.first() {
        Some(name) => format!(
            "its weights are in PyTorch's format ({name}), which can run code and is not read; \
             look for a copy in safetensors"
        ),
        None => format!("it has neither {SINGLE_FILE} nor {INDEX_FILE} nor a .gguf file"),
    };
    HubError::NoWeights {
        repo: repo.to_owned(),
        reason,
    }
}

/// `file` is not among `files`; says which are.
pub(crate) fn not_found(repo: &str, file: &str, files: &[RepoFile]) -> HubError {
    let all = || files.iter().map(|file| file.name.as_str());
    let gguf: Vec<_> = all().filter(|name| name.ends_with(".gguf")).collect();
    let names = match gguf.is_empty() {
        true => all().collect(),
        false => gguf,
    };
    HubError::FileNotFound {
        repo: repo.to_owned(),
        file: file.to_owned(),
        available: format!("there are: {}", list(&names)),
    }
}

pub(crate) fn list(names: &[&str]) -> String {
    let mut text = names[..names.len().min(MAX_NUM_LISTED)].join(", ");
    if names.len() > MAX_NUM_LISTED {
        text.push_str(&format!(" and {} more", names.len() - MAX_NUM_LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<RepoFile> {
        let file = |name: &&str| RepoFile {
            name: (*name).to_owned(),
            num_bytes: None,
        };
        names.iter().map(file).collect()
    }

    fn choose(model: &str, include: &[&str], names: &[&str]) -> Result<Vec<String>, String> {
        let model: ModelRef = model.parse().unwrap();
        let include: Vec<String> = include.iter().map(|&p| p.to_owned()).collect();
        let choice = Choice {
            model: &model,
            include: &include,
            has_weights: true,
        };
        let files = files(names);
        let chosen = first_files(&files, &choice).map_err(|e| e.to_string())?;
        Ok(chosen.into_iter().map(|file| file.name.clone()).collect())
    }

    #[test]
    fn what_a_server_needs_is_chosen() {
        let llama = [
            ".gitattributes",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let expected = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            INDEX_FILE,
        ];
        assert_eq!(choose("a/b", &[], &llama).unwrap(), expected);
        let single = ["config.json", "model.safetensors", INDEX_FILE];
        assert_eq!(
            choose("a/b", &[], &single).unwrap(),
            ["config.json", SINGLE_FILE]
        );
        let readme = choose("a/b", &["*.md", "onnx/*"], &llama).unwrap();
        assert_eq!(readme, ["README.md", "onnx/model.onnx"]);
    }

    #[test]
    fn a_gguf_file_must_be_named() {
        let names = ["README.md", "m-Q4_K_M.gguf", "m-Q8_0.gguf"];
        assert_eq!(
            choose("a/b:m-Q8_0.gguf", &[], &names).unwrap(),
            ["m-Q8_0.gguf"]
        );
        assert_eq!(choose("a/b:m-Q8_0", &[], &names).unwrap(), ["m-Q8_0.gguf"]);
        let error = choose("a/b", &[], &names).unwrap_err();
        assert!(error.contains("a/b:FILE") && error.contains("m-Q4_K_M.gguf, m-Q8_0.gguf"));
        let error = choose("a/b:x.gguf", &[], &names).unwrap_err();
        assert!(
            error.contains("x.gguf") && error.contains("m-Q8_0.gguf"),
            "{error}"
        );
    }

    #[test]
    fn all_files_of_a_gguf_model_are_fetched() {
        let part = |number| format!("q/m-Q4_K_M-0000{number}-of-00003.gguf");
        let parts = [part(1), part(2), part(3)];
        let names: Vec<&str> = parts.iter().map(String::as_str).collect();
        for name in [&*part(1), &*part(3), "q/m-Q4_K_M", "q/m-Q4_K_M.gguf"] {
            let chosen = choose(&format!("a/b:{name}"), &[], &names).unwrap();
            assert_eq!(chosen, parts, "{name}");
        }
        let error = choose("a/b:q/m-Q4_K_M", &[], &names[..2]).unwrap_err();
        assert!(
            error.contains("no file `q/m-Q4_K_M-00003-of-00003.gguf`"),
            "{error}"
        );
        assert!(choose("a/b:q/m", &[], &names).is_err());
        let odd = ["m-00004-of-00003.gguf"];
        assert_eq!(choose("a/b:m-00004-of-00003", &[], &odd).unwrap(), odd);
    }

    #[test]
    fn what_cannot_be_served_is_explained() {
        let error = choose("a/b", &[], &["config.json", "pytorch_model.bin"]).unwrap_err();
        assert!(error.contains("PyTorch"), "{error}");
        let error = choose("a/b", &[], &["model.safetensors"]).unwrap_err();
        assert!(error.contains("config.json"), "{error}");
        let error = choose("a/b", &[], &["README.md"]).unwrap_err();
        assert!(error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn an_index_names_shards() {
        let index = br#"{"weight_map": {"x": "b.safetensors", "y": "a.safetensors",
            "z": "b.safetensors"}}"#;
        assert_eq!(shards(index).unwrap(), ["a.safetensors", "b.safetensors"]);
        for bad in [
            &br#"{"weight_map": {"x": "../a"}}"#[..],
            br#"{"weight_map": {"x": 1}}"#,
            br#"{"weight_map": {}}"#,
            b"{}",
            b"",
        ] {
            assert_eq!(shards(bad), None);
        }
    }
}
