//! A made-up vocabulary of any size, with a tokenizer that works.
//!
//! Byte-level pairs: the 256 bytes, then pairs of small letters, words of three and of four, and
//! three marks for turns at the end. Any text can be tokenized; what is left over is unused.
//!
//! Invariant: every token is there once, and every merge makes a token of two others.

use hotspare_testkit::gguf::GgufWriter;

/// The marks, which have the last ids.
const MARKS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// ChatML.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + \
    '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\n' }}{% endif %}";

/// Types of tokens, as files number them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// Adds the tokenizer's fields.
///
/// # Errors
/// Fewer tokens than bytes and marks.
pub(super) fn write(writer: &mut GgufWriter, num_tokens: usize) -> Result<(), String> {
    let Some(num_words) = num_tokens
        .checked_sub(MARKS.len())
        .filter(|&num| num >= 256)
    else {
        return Err(format!(
            "a vocabulary of {num_tokens} is too small: 256 bytes and {} marks are needed",
            MARKS.len()
        ));
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    let mut merges = Vec::new();
    for (left, right) in pairs().take(num_words - 256) {
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let mut types = vec![NORMAL; tokens.len()];
    for index in tokens.len()..num_words {
        tokens.push(format!("<|unused_{index}|>"));
        types.push(UNUSED);
    }
    tokens.extend(MARKS.map(str::to_owned));
    types.extend([CONTROL; MARKS.len()]);
    let mark = |index: usize| (num_words + index) as u32;
    writer.string("tokenizer.ggml.model", "gpt2");
    writer.string("tokenizer.ggml.pre", "qwen2");
    writer.strings("tokenizer.ggml.tokens", &tokens);
    writer.i32s("tokenizer.ggml.token_type", &types);
    writer.strings("tokenizer.ggml.merges", &merges);
    writer.u32("tokenizer.ggml.padding_token_id", mark(0));
    writer.u32("tokenizer.ggml.bos_token_id", mark(0));
    writer.u32("tokenizer.ggml.eos_token_id", mark(2));
    writer.bool("tokenizer.ggml.add_bos_token", false);
    writer.string("tokenizer.chat_template", CHAT_TEMPLATE);
    Ok(())
}

/// How byte-level tokenizers write a byte: itself where it can be seen, else a letter from 256 on.
fn byte_char(byte: u8) -> char {
    let is_seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_seen(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|&other| !is_seen(other)).count();
    u8::try_from(place)
        .ok()
        .and_then(|place| char::from_u32(256 + u32::from(place)))
        .unwrap_or('?')
}

/// Merges: each makes a token that no other makes, of two that are there before it.
fn pairs() -> impl Iterator<Item = (String, String)> {
    let letters = || (b'a'..=b'z').map(char::from);
    let word = move |letters: &[char]| letters.iter().collect::<String>();
    let twos = move || letters().flat_map(move |a| letters().map(move |b| [a, b]));
    let space = letters().map(move |a| ("\u{120}".to_owned(), word(&[a])));
    let of_two = twos().map(move |[a, b]| (word(&[a]), word(&[b])));
    let space_two = twos().map(move |[a, b]| (word(&['\u{120}', a]), word(&[b])));
    let of_three = twos().flat_map(move |pair| letters().map(move |c| (word(&pair), word(&[c]))));
    let of_four = twos().flat_map(move |pair| twos().map(move |other| (word(&pair), word(&other))));
    space
        .chain(of_two)
        .chain(space_two)
        .chain(of_three)
        .chain(of_four)
}
