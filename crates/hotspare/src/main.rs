//! The `hotspare` binary: command line, configuration, wiring.
//!
//! `hotspare serve` is the front; it starts `hotspare engine` as a child process, which is this
//! same program.
//!
//! Invariant: the front never loads weights nor touches a device, and the engine never opens a
//! port.
#![forbid(unsafe_code)]

mod cli;
mod demo;
mod demo_end;
mod demo_nodes;
mod demo_wire;
mod device;
mod engine_command;
mod ha_command;
mod hub;
mod hub_progress;
mod inspect;
mod inspect_report;
mod limits;
mod loader;
mod logging;
mod onlooking;
mod pairing;
mod progress;
mod pull;
mod references;
mod reload;
mod render_command;
mod serve;
mod signals;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = match std::env::args_os().map(|arg| arg.into_string()).collect() {
        Ok(args) => args,
        Err(arg) => return fail(&format!("the argument {} is not UTF-8", arg.display())),
    };
    match cli::parse(&args, &cli::Environment::new(std::env::vars_os())) {
        Ok(cli::Command::Serve(settings)) => match settings.ha.check() {
            Ok(()) => serve::run(*settings),
            Err(message) => fail(&message),
        },
        Ok(cli::Command::Pull(args, hub)) => pull::run(args, &hub),
        Ok(cli::Command::Inspect(args)) => inspect::run(args),
        Ok(cli::Command::Reload(args)) => reload::run(&args),
        Ok(cli::Command::Ha(args)) => ha_command::run(&args),
        Ok(cli::Command::Demo(args)) => demo::run(&args),
        Ok(cli::Command::Engine(args)) => engine_command::run(args),
        Ok(cli::Command::Render(args)) => render_command::run(&args),
        Ok(cli::Command::KernelTests(args)) => device::kernel_tests(&args),
        Ok(cli::Command::ModelTests(args)) => device::model_tests(&args),
        Ok(cli::Command::ServerTests(args)) => device::server_tests(&args),
        Ok(cli::Command::Bench(args)) => device::bench(&args),
        Err(cli::CliError::Clap(error)) => error.exit(),
        Err(cli::CliError::Message(message)) => fail(&message),
    }
}

/// Ends with the status of a usage error. The log is not set up yet.
/// Writes what a command was asked for to standard output.
fn print_result(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fail(message: &str) -> ExitCode {
    // Where nobody reads it, the status says enough.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::from(2)
}
