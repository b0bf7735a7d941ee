//! Small answers: the list of models, `/tokenize`, `/detokenize`.
//!
//! Invariant: one card for each served name; the first is the name that answers carry.

use serde::Serialize;

use super::to_json;

/// What a model's card shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard<'a> {
    /// The name it is served by.
    pub id: &'a str,
    /// Where it comes from.
    pub root: &'a str,
    /// Start of the server, Unix seconds.
    pub created: u64,
    /// Tokens in a sequence at most.
    pub max_model_len: u32,
    /// Hash of weights, tokenizer, template and defaults; `None` until an engine has said.
    pub model_hash: Option<&'a str>,
}

#[derive(Serialize)]
struct Card<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: &'a str,
    parent: (),
    max_model_len: u32,
    /// Ours: equal hashes are equal models.
    model_hash: Option<&'a str>,
    permission: [Permission; 1],
}

#[derive(Serialize)]
struct Permission {
    id: String,
    object: &'static str,
    created: u64,
    allow_create_engine: bool,
    allow_sampling: bool,
    allow_logprobs: bool,
    allow_search_indices: bool,
    allow_view: bool,
    allow_fine_tuning: bool,
    organization: &'static str,
    group: (),
    is_blocking: bool,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Card<'a>>,
}

fn card<'a>(card: &ModelCard<'a>) -> Card<'a> {
    Card {
        id: card.id,
        object: "model",
        created: card.created,
        owned_by: "hotspare",
        root: card.root,
        parent: (),
        max_model_len: card.max_model_len,
        model_hash: card.model_hash,
        permission: [Permission {
            id: format!("modelperm-{}", card.id),
            object: "model_permission",
            created: card.created,
            allow_create_engine: false,
            allow_sampling: true,
            allow_logprobs: true,
            allow_search_indices: false,
            allow_view: true,
            allow_fine_tuning: false,
            organization: "*",
            group: (),
            is_blocking: false,
        }],
    }
}

/// The body of `/v1/models`.
pub fn models_json(cards: &[ModelCard<'_>]) -> Vec<u8> {
    to_json(&List {
        object: "list",
        data: cards.iter().map(card).collect(),
    })
}

/// The body of `/v1/models/{id}`.
pub fn model_json(model: &ModelCard<'_>) -> Vec<u8> {
    to_json(&card(model))
}
