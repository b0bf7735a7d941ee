//! What `kernels/verify.sh` runs on a machine with a card: tests of kernels, of models and of the
//! whole server, and the benchmark. All but the first also run on the CPU.
//!
//! Each result is printed and written when it is known, so that a run that is cut keeps what it
//! found.
//!
//! Invariant: status 0 only where everything was run and passed; 3 where there is no card to run
//! on, 1 where something failed.

mod args;
mod bench;
mod bench_products;
mod bench_profile;
mod engine_client;
mod kernel_tests;
mod model_tests;
mod report;
mod server_process;
mod server_tests;

use std::process::ExitCode;

pub(crate) use args::{BenchArgs, KernelTestsArgs, ModelTestsArgs, ServerTestsArgs};

use report::{Machine, Report};

/// The device that was asked for is not there.
const EXIT_NO_DEVICE: u8 = 3;

/// `hotspare kernel-tests`.
pub(crate) fn kernel_tests(args: &KernelTestsArgs) -> ExitCode {
    run(&args.common, |report| kernel_tests::run(args, report))
}

/// `hotspare model-tests`.
pub(crate) fn model_tests(args: &ModelTestsArgs) -> ExitCode {
    run(&args.common, |report| model_tests::run(args, report))
}

/// `hotspare server-tests`.
pub(crate) fn server_tests(args: &ServerTestsArgs) -> ExitCode {
    run(&args.common, |report| server_tests::run(args, report))
}

/// `hotspare bench`.
pub(crate) fn bench(args: &BenchArgs) -> ExitCode {
    run(&args.common, |report| bench::run(args, report))
}

fn run(
    common: &args::CommonArgs,
    work: impl FnOnce(&mut Report) -> Result<(), String>,
) -> ExitCode {
    if let Err(message) = crate::logging::init("warn", crate::cli::LogFormat::Human, None) {
        return crate::fail(&message);
    }
    let machine = match Machine::find(&common.device) {
        Ok(machine) => machine,
        Err(message) => {
            tracing::error!("{message}");
            return ExitCode::from(EXIT_NO_DEVICE);
        }
    };
    let mut report = match Report::new(common.json.as_deref(), machine) {
        Ok(report) => report,
        Err(message) => return crate::fail(&message),
    };
    if let Err(message) = work(&mut report) {
        report.result(false, "the run itself", &message, serde_json::json!({}));
    }
    report.end()
}
