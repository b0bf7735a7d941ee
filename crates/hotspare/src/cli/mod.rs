//! The command line, the environment and the configuration file, merged into settings.
//!
//! One definition of each option serves all three: values from the environment and the file are
//! parsed by the same parser as arguments. Precedence: argument, environment, file, default.
//!
//! Invariant: nothing is ignored silently. Unknown is an error, known to vLLM but without effect
//! here is a warning, and what would change what is served or how safely is an error too.

/// Takes each field from the first that has it. Names every field, or it does not compile.
macro_rules! first_of {
    ($name:ident, $upper:expr, $lower:expr, $($field:ident),+ $(,)?) => {
        $name { $($field: $upper.$field.or($lower.$field)),+ }
    };
}

/// Writes the options that are set over fields of the same names.
macro_rules! set {
    ($from:expr => $to:expr; $($field:ident),+ $(,)?) => {
        $(if let Some(value) = $from.$field { $to.$field = value; })+
    };
}

mod args;
mod environment;
mod ha_args;
mod ha_limit_args;
mod ha_timer_args;
mod ha_tools;
mod hub_args;
mod layers;
mod limit_args;
mod normalize;
mod replay_args;
mod settings;
mod tools;
mod values;
mod vllm_flags;

use clap::{Parser, Subcommand};

pub(crate) use args::{EngineCommandArgs, RenderCommandArgs};
pub(crate) use environment::Environment;
pub(crate) use ha_args::HaSettings;
pub(crate) use ha_tools::{AskArgs, DemoArgs, DemoScenario, HaAction, HaCommandArgs};
pub(crate) use settings::Settings;
pub(crate) use tools::{InspectArgs, PullArgs, ReloadArgs};
pub(crate) use values::LogFormat;

use crate::device::{BenchArgs, KernelTestsArgs, ModelTestsArgs, ServerTestsArgs};
use crate::hub::HubOptions;

/// The subcommand that renders chat templates of requests.
pub(crate) const RENDER_COMMAND: &str = "render-template";

/// What to do.
pub(crate) enum Command {
    /// Serve a model.
    Serve(Box<Settings>),
    /// Fetch a model.
    Pull(PullArgs, HubOptions),
    /// Say what a model is.
    Inspect(InspectArgs),
    /// Let a server serve another model.
    Reload(ReloadArgs),
    /// Ask a node of a pair.
    Ha(HaCommandArgs),
    /// Show a pair.
    Demo(DemoArgs),
    /// Be an engine.
    Engine(EngineCommandArgs),
    /// Render a chat template.
    Render(RenderCommandArgs),
    /// Test the kernels on a card.
    KernelTests(KernelTestsArgs),
    /// Test tiny models on a device.
    ModelTests(ModelTestsArgs),
    /// Test a server on a device.
    ServerTests(ServerTestsArgs),
    /// Measure an engine.
    Bench(BenchArgs),
}

/// Why the command line does not say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Clap's own: usage errors, and the texts of `--help` and `--version`.
    #[error("{0}")]
    Clap(#[from] clap::Error),
    /// Ours.
    #[error("{0}")]
    Message(String),
}

#[derive(Parser)]
#[command(
    name = "hotspare",
    version,
    about = "An LLM server in one binary, with the OpenAI API.",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Serve a model over the OpenAI API.
    #[command(
        after_help = args::SERVE_AFTER_HELP,
        args_override_self = true,
        max_term_width = 100
    )]
    Serve(Box<args::ServeArgs>),
    /// Fetch a model from the hub, so that serving it needs no network.
    #[command(after_help = tools::PULL_AFTER_HELP, max_term_width = 100)]
    Pull(PullArgs),
    /// Say what a model is, how much memory it needs, and whether it can be served here.
    #[command(max_term_width = 100)]
    Inspect(InspectArgs),
    /// Let a running server serve another model, or its own afresh, without losing a stream.
    #[command(max_term_width = 100)]
    Reload(ReloadArgs),
    /// Ask a node of a pair how it stands, or to hand over, take over, pause.
    #[command(after_help = ha_tools::HA_AFTER_HELP, max_term_width = 100)]
    Ha(HaCommandArgs),
    /// Two nodes on this machine, a stream, kill -9, and the stream goes on.
    #[command(max_term_width = 100)]
    Demo(DemoArgs),
    /// Run one engine; started by `hotspare serve`.
    #[command(hide = true)]
    Engine(EngineCommandArgs),
    /// Render one chat template; started by `hotspare serve`.
    #[command(hide = true, name = RENDER_COMMAND)]
    Render(RenderCommandArgs),
    /// Compare every kernel with the CPU, on a card; part of kernels/verify.sh.
    #[command(hide = true, max_term_width = 100)]
    KernelTests(KernelTestsArgs),
    /// Compare tiny models of all families with golden files; part of kernels/verify.sh.
    #[command(hide = true, max_term_width = 100)]
    ModelTests(ModelTestsArgs),
    /// Try a whole server on a device; part of kernels/verify.sh.
    #[command(hide = true, max_term_width = 100)]
    ServerTests(ServerTestsArgs),
    /// Measure what an engine does in a second, without HTTP: decoding, reading a prompt, starting.
    #[command(max_term_width = 100)]
    Bench(BenchArgs),
}

/// Reads what to do from the arguments (the program's name first) and the environment.
pub(crate) fn parse(args: &[String], env: &Environment) -> Result<Command, CliError> {
    let is_serve = args.get(1).is_some_and(|arg| arg == "serve");
    let mut warnings = Vec::new();
    let args = match is_serve {
        true => normalize::normalize(args, &layers::serve_command(), &mut warnings)?,
        false => args.to_vec(),
    };
    let from_args = match Cli::try_parse_from(args)?.command {
        Subcommands::Serve(args) => *args,
        Subcommands::Pull(args) => {
            let hub = hub_args::hub_options(&env.options_of("hub-", &mut warnings)?);
            return Ok(Command::Pull(args, hub));
        }
        Subcommands::Inspect(args) => return Ok(Command::Inspect(args)),
        Subcommands::Reload(args) => return Ok(Command::Reload(args)),
        Subcommands::Ha(args) => return Ok(Command::Ha(args)),
        Subcommands::Demo(args) => return Ok(Command::Demo(args)),
        Subcommands::Engine(args) => return Ok(Command::Engine(args)),
        Subcommands::Render(args) => return Ok(Command::Render(args)),
        Subcommands::KernelTests(args) => return Ok(Command::KernelTests(args)),
        Subcommands::ModelTests(args) => return Ok(Command::ModelTests(args)),
        Subcommands::ServerTests(args) => return Ok(Command::ServerTests(args)),
        Subcommands::Bench(args) => return Ok(Command::Bench(args)),
    };
    let from_env = env.options(&mut warnings)?;
    let upper = from_args.or(from_env);
    let merged = match &upper.config {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|e| {
                CliError::Message(format!("cannot read --config {}: {e}", path.display()))
            })?;
            let from_file = layers::from_toml(&text, &path.display().to_string())?;
            upper.or(from_file)
        }
        None => upper,
    };
    let settings = Settings::resolve(merged, warnings)?;
    Ok(Command::Serve(Box::new(settings)))
}

impl CliError {
    fn usage(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;

#[cfg(test)]
#[path = "settings_test.rs"]
mod settings_test;

#[cfg(test)]
#[path = "ha_test.rs"]
mod ha_test;
