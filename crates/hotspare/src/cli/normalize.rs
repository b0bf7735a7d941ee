//! Rewrites the arguments of `serve` from vLLM's habits to ours, before clap sees them.
//!
//! Underscores become dashes, `--no-x` becomes `--x=false`, and flags that only vLLM has leave with
//! their values and a warning.
//!
//! Invariant: what this does not understand is passed on as it is, for clap to refuse.

use clap::Command;

use super::CliError;
use super::vllm_flags::{Arity, Known, lookup, lookup_short};

/// Rewrites `args` (program and subcommand first) for `command`; adds to `warnings`.
pub(crate) fn normalize(
    args: &[String],
    command: &Command,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, CliError> {
    let mut out = Vec::with_capacity(args.len());
    let mut rest = args.iter().peekable();
    out.extend(rest.by_ref().take(2).cloned());
    while let Some(arg) = rest.next() {
        if arg == "--" {
            out.push(arg.clone());
            out.extend(rest.by_ref().cloned());
            break;
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (arg.as_str(), None),
        };
        let known = match flag.strip_prefix("--") {
            Some(name) => {
                let name = name.replace('_', "-");
                if let Some(ours) = rewrite_ours(&name, value, command) {
                    out.push(ours);
                    continue;
                }
                lookup(&name)
            }
            None if arg.starts_with('-') => lookup_short(arg),
            None => None,
        };
        let arity = match known {
            None => {
                out.push(arg.clone());
                continue;
            }
            Some(Known::RefusedUnless { accepted, why }) => {
                let value = value.or_else(|| rest.peek().map(|arg| arg.as_str()));
                if accepted.is_empty() || value != Some(accepted) {
                    return Err(CliError::usage(format!("{flag}: {why}")));
                }
                Arity::Value
            }
            Some(Known::Ignored(arity)) => arity,
        };
        warnings.push(format!(
            "{flag} is a flag of vLLM's that has no effect in this build."
        ));
        if value.is_some() {
            continue;
        }
        let num_values = match arity {
            Arity::Switch => 0,
            Arity::Value => 1,
            Arity::List => usize::MAX,
        };
        for _ in 0..num_values {
            let is_value = |arg: &&String| !arg.starts_with('-') || is_number(arg);
            if rest.next_if(is_value).is_none() {
                break;
            }
        }
    }
    Ok(out)
}

/// An argument for one of our options in our spelling, or `None` where it is not ours.
fn rewrite_ours(name: &str, value: Option<&str>, command: &Command) -> Option<String> {
    let find = |name: &str| {
        let mut options = command.get_arguments();
        options.find(|option| option.get_long() == Some(name))
    };
    if find(name).is_some() || matches!(name, "help" | "version") {
        return Some(match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    let positive = name.strip_prefix("no-")?;
    let is_switch = find(positive).is_some_and(is_switch);
    (is_switch && value.is_none()).then(|| format!("--{positive}=false"))
}

/// Whether an option is true when it has no value.
pub(crate) fn is_switch(option: &clap::Arg) -> bool {
    let num_values = option.get_num_args();
    num_values.is_some_and(|range| range.min_values() == 0)
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}
