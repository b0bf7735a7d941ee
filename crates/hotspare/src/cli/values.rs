//! Values of options that are more than a number or a word.
//!
//! Invariant: a value that parses is in range; a secret never shows in `Debug`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ValueEnum;
use hotspare_front::ShadowMode;

/// A secret from the command line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("it is empty".to_owned()),
            key => Ok(Self(key.to_owned())),
        }
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which waiting request runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// In order of arrival.
    Fcfs,
    /// By the request's `priority`, lower first.
    Priority,
}

/// What a result may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Numerics {
    /// On its own inputs alone.
    Invariant,
    /// On what a library chooses for the step.
    Fast,
}

/// A share: above 0, at most 1.
pub(crate) fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("it must be a number above 0 and at most 1".to_owned()),
    }
}

/// What a spare engine reads along of running streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SpareShadow {
    /// Nothing.
    Off,
    /// Their prompts.
    Prompts,
    /// Prompts and answers.
    Full,
    /// As the device needs it.
    Auto,
}

impl From<SpareShadow> for ShadowMode {
    fn from(shadow: SpareShadow) -> Self {
        match shadow {
            SpareShadow::Off => Self::Off,
            SpareShadow::Prompts => Self::Prompts,
            SpareShadow::Full => Self::Full,
            SpareShadow::Auto => Self::Auto,
        }
    }
}

/// A context length: a number, or `auto` for the model's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContextLen {
    Auto,
    Tokens(u32),
}

impl FromStr for ContextLen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "auto" | "-1") {
            return Ok(Self::Auto);
        }
        match u32::try_from(parse_count(text)?) {
            Ok(0) => Err("it must be at least 1".to_owned()),
            Ok(tokens) => Ok(Self::Tokens(tokens)),
            Err(_) => Err(format!("it must be at most {}", u32::MAX)),
        }
    }
}

/// A whole number with vLLM's suffixes: k, m, g, t for powers of 1000 (then also `1.5k`), K, M, G,
/// T for powers of 1024.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let malformed = || format!("`{text}` is not a whole number, with or without one of kKmMgGtT");
    let number = text.trim_end_matches(|c: char| "kKmMgGtT".contains(c));
    let unit = match &text[number.len()..] {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return Err(malformed()),
    };
    let Some((whole, fraction)) = number.split_once('.') else {
        let number: u64 = number.parse().map_err(|_| malformed())?;
        return number
            .checked_mul(unit)
            .ok_or_else(|| format!("`{text}` is too large"));
    };
    let is_decimal_unit = unit >= 1_000 && !unit.is_power_of_two();
    let is_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !is_decimal_unit || !is_digits(whole) || !is_digits(fraction) || whole.len() > 9 {
        return Err(malformed());
    }
    let value: f64 = number.parse().map_err(|_| malformed())?;
    Ok((value * unit as f64) as u64)
}

/// [`parse_count`] for sizes in memory.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    match usize::try_from(parse_count(text)?) {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(size) => Ok(size),
        Err(_) => Err(format!("`{text}` is too large")),
    }
}

/// [`parse_size`] where 0 means something.
pub(crate) fn parse_size_or_zero(text: &str) -> Result<usize, String> {
    usize::try_from(parse_count(text)?).map_err(|_| format!("`{text}` is too large"))
}

fn parse_within(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let value = parse_size_or_zero(text)?;
    match range.contains(&value) {
        true => Ok(value),
        false => Err(format!(
            "it must be from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Bytes of a body; the budget of bodies counts in 32 bits.
pub(crate) fn parse_body_size(text: &str) -> Result<usize, String> {
    parse_within(text, 1..=u32::MAX as usize)
}

/// Bytes of a request's head; less than 8 KiB the HTTP library does not take.
pub(crate) fn parse_head_size(text: &str) -> Result<usize, String> {
    parse_within(text, 8 << 10..=16 << 20)
}

/// Bytes of a message between front and engine.
pub(crate) fn parse_frame_size(text: &str) -> Result<usize, String> {
    parse_within(text, 64 << 10..=1 << 30)
}

/// Engines beside the one that serves.
pub(crate) fn parse_spare_engines(text: &str) -> Result<u32, String> {
    Ok(parse_within(text, 0..=16)? as u32)
}

/// Threads.
pub(crate) fn parse_num_threads(text: &str) -> Result<usize, String> {
    parse_within(text, 1..=1024)
}

/// A name: some text.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// Connections; each is a file descriptor.
pub(crate) fn parse_num_connections(text: &str) -> Result<usize, String> {
    parse_within(text, 1..=1 << 20)
}

/// Seconds of processor time, at most an hour.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, String> {
    Ok(parse_within(text, 1..=3_600)? as u64)
}

/// Milliseconds of a wait that has to end, at most a day.
pub(crate) fn parse_timeout_ms(text: &str) -> Result<u64, String> {
    Ok(parse_within(text, 1..=86_400_000)? as u64)
}

/// Seconds, with or without a fraction, as milliseconds.
pub(crate) fn parse_interval_ms(text: &str) -> Result<u64, String> {
    const MAX_SECONDS: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok((seconds * 1000.0).round() as u64)
        }
        _ => Err(format!(
            "`{text}` is not a number of seconds from 0 to 86400"
        )),
    }
}

/// A share, from 1 to 100 percent.
pub(crate) fn parse_percent(text: &str) -> Result<u32, String> {
    Ok(parse_within(text, 1..=100)? as u32)
}

/// At least 1.
pub(crate) fn parse_positive(text: &str) -> Result<usize, String> {
    parse_size(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_suffixes() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("32k", 32_000),
            ("32K", 32_768),
            ("1.5k", 1_500),
            ("2m", 2_000_000),
            ("2M", 2 << 20),
            ("1G", 1 << 30),
            ("1t", 1_000_000_000_000),
        ] {
            assert_eq!(parse_count(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "k",
            "1kk",
            "1.5K",
            "1.5",
            "-1",
            "1e3",
            "1 k",
            ".5k",
            "99999999999999T",
        ] {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_kept_and_named() {
        let cases = [
            ("--max-header-bytes", parse_head_size("8191")),
            ("--max-num-text-threads", parse_num_threads("1025")),
            ("--max-num-connections", parse_num_connections("9T")),
            ("--max-frame-bytes", parse_frame_size("1")),
            ("--max-body-bytes", parse_body_size("4G")),
            (
                "--body-timeout-ms",
                parse_timeout_ms("0").map(|ms| ms as usize),
            ),
        ];
        for (name, outcome) in cases {
            let error = outcome.expect_err(name);
            assert!(error.starts_with("it must be from "), "{name}: {error}");
        }
        assert_eq!(parse_head_size("8K"), Ok(8192));
        assert_eq!(parse_timeout_ms("86400000"), Ok(86_400_000));
        assert_eq!(parse_size_or_zero("0"), Ok(0));
    }

    #[test]
    fn a_context_length_may_be_automatic() {
        assert_eq!("auto".parse(), Ok(ContextLen::Auto));
        assert_eq!("-1".parse(), Ok(ContextLen::Auto));
        assert_eq!("2k".parse(), Ok(ContextLen::Tokens(2000)));
        assert!("0".parse::<ContextLen>().is_err());
        assert!("5G".parse::<ContextLen>().is_err());
    }

    #[test]
    fn a_secret_does_not_show() {
        let secret: Secret = "sk-very-secret".parse().unwrap();
        assert!(!format!("{secret:?}").contains("very"));
        assert_eq!(secret.reveal(), "sk-very-secret");
        assert!(" ".parse::<Secret>().is_err());
    }
}
