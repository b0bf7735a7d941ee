//! Texts of single tokens for log-probabilities.
//!
//! Invariant: without a tokenizer, tokens are named by id.

use std::borrow::Cow;

use hotspare_batch::TokenId;
use hotspare_protocol::{LogprobFormat, TokenTexts};
use hotspare_text::TextModel;

/// A tokenizer as `protocol` asks for it.
pub(crate) struct Texts<'a>(pub(crate) &'a TextModel);

impl TokenTexts for Texts<'_> {
    fn text(&self, token: TokenId) -> Cow<'_, str> {
        Cow::Owned(self.0.token_text(token))
    }

    fn bytes(&self, token: TokenId) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.token_bytes(token))
    }
}

/// Calls `use_format` with the format of this request's log-probabilities.
pub(crate) fn with_format<T>(
    text: Option<&TextModel>,
    as_token_ids: bool,
    use_format: impl FnOnce(LogprobFormat<'_>) -> T,
) -> T {
    let texts = text.map(Texts);
    use_format(LogprobFormat {
        texts: texts.as_ref().map(|texts| texts as &dyn TokenTexts),
        as_token_ids,
    })
}
