//! A device that fails in the middle of a step.
//!
//! Invariant: a failure ends the step with the kernel's name, never the process by itself; after a
//! device's own failure nothing runs any more; memory that runs out ends no engine.

use hotspare_batch::{Batch, Executor, ExecutorError, RowError, StepOutput};
use hotspare_model::PipelinedRunner;

use super::CudaOps;
use super::failing_device::{Failing, Failure, model};
use crate::Dtype;
use crate::model_checks::Settings;
use crate::model_checks::requests::Loop;

type Runner = PipelinedRunner<CudaOps<Failing>>;

fn settings() -> Settings {
    Settings {
        uses_graphs: true,
        max_num_seqs: 2,
        ..Settings::new(Dtype::F32)
    }
}

/// The prompts of all tests here.
fn prompts() -> Loop {
    Loop::new(&[&[1, 40, 77], &[9]], 8)
}

fn step(runner: &mut Runner, batch: Batch) -> Result<StepOutput, ExecutorError> {
    runner.submit(batch)?;
    runner.wait()
}

/// Lets calls of the device fail from now on.
fn fail(runner: Runner, nth: usize, num_fails: usize) -> Runner {
    let mut inner = runner.into_runner();
    inner.ops_mut().device.fail_at(nth, num_fails);
    PipelinedRunner::new(inner)
}

/// Runs so many steps; then one whose call number 5 or, of a replayed step, 2 fails for good, and
/// one more.
fn run(
    mut runner: Runner,
    num_steps: usize,
    num_fails: usize,
) -> ([Result<(), ExecutorError>; 2], Runner) {
    let mut steps = prompts();
    for _ in 0..num_steps {
        step(&mut runner, steps.batch()).expect("nothing fails yet");
    }
    let nth = if num_steps == 0 { 5 } else { 2 };
    let mut runner = fail(runner, nth, num_fails);
    let batch = steps.batch();
    let failed = runner.submit(batch.clone());
    let next = runner.submit(batch).and_then(|()| runner.wait().map(drop));
    ([failed, next], runner)
}

fn message(result: &Result<(), ExecutorError>) -> String {
    match result {
        Err(ExecutorError::Device(what)) => what.clone(),
        other => panic!("no failure of the device: {other:?}"),
    }
}

#[test]
fn a_failure_of_the_device_is_for_ever() {
    // As single launches, and replayed.
    for num_steps in [0, 2] {
        let Some(runner) = model(Failing::new(Failure::Kernel), settings()) else {
            return;
        };
        let ([failed, next], runner) = run(runner, num_steps, usize::MAX);
        assert!(
            message(&failed).contains("an illegal address"),
            "{failed:?}"
        );
        assert!(
            message(&failed).starts_with("device error: kernel "),
            "{failed:?}"
        );
        assert_eq!(message(&next), message(&failed));
        let mut inner = runner.into_runner();
        let device = inner.ops_mut().device();
        // Nothing was queued after the one that failed.
        assert_eq!(device.num_calls, device.fails_at);
    }
}

#[test]
fn a_step_that_does_not_fit_fails_alone() {
    for num_steps in [0, 2] {
        let Some(runner) = model(Failing::new(Failure::Misuse), settings()) else {
            return;
        };
        let ([failed, next], _) = run(runner, num_steps, 1);
        assert!(message(&failed).contains("a shape"), "{failed:?}");
        assert!(next.is_ok(), "{next:?}");
    }
}

/// What four steps draw where nothing fails, and the calls of the last.
fn unharmed() -> Option<(Vec<StepOutput>, usize)> {
    let mut runner = model(Failing::new(Failure::Memory), settings())?;
    let mut steps = prompts();
    let mut outputs = Vec::new();
    let mut num_calls = 0;
    for _ in 0..4 {
        let mut inner = runner.into_runner();
        num_calls = inner.ops_mut().device.num_calls;
        runner = PipelinedRunner::new(inner);
        let output = step(&mut runner, steps.batch()).expect("nothing fails");
        outputs.push(output);
    }
    num_calls = runner.into_runner().ops_mut().device.num_calls - num_calls;
    Some((outputs, num_calls))
}

#[test]
fn a_step_without_memory_is_tried_again_without_graphs() {
    let Some((expected, num_calls)) = unharmed() else {
        return;
    };
    assert!(num_calls >= 4, "upload, replay, draw, read: {num_calls}");
    let mut num_refused = 0;
    for nth in 1..=num_calls {
        let mut runner = model(Failing::new(Failure::Memory), settings()).unwrap();
        let mut steps = prompts();
        for expected in &expected[..3] {
            let output = step(&mut runner, steps.batch()).expect("nothing fails yet");
            assert_eq!(output.rows, expected.rows);
        }
        let mut runner = fail(runner, nth, 1);
        let output = step(&mut runner, steps.batch()).expect("the engine lives");
        // Once a token may have been drawn the rows are refused.
        let is_refused = |output: &StepOutput| {
            let mut rows = output.rows.iter();
            rows.all(|row| row.error == Some(RowError::OutOfMemory) && row.token_ids.is_empty())
        };
        if is_refused(&output) {
            num_refused += 1;
            assert!(nth > 2, "call {nth} draws nothing");
        } else {
            assert_eq!(output.rows, expected[3].rows, "call {nth}");
        }
        let mut steps = prompts();
        let output = step(&mut runner, steps.batch()).expect("the engine lives");
        assert_eq!(output.rows, expected[0].rows, "after call {nth}");
        let output = step(&mut runner, steps.batch()).expect("the engine lives");
        assert_eq!(output.rows, expected[1].rows, "after call {nth}");
        let mut inner = runner.into_runner();
        assert_eq!(inner.ops_mut().device().inner.num_graphs(), 0);
    }
    assert!(num_refused >= 1, "a read that cannot start");
}

#[test]
fn a_step_that_never_has_memory_is_refused() {
    let Some((expected, _)) = unharmed() else {
        return;
    };
    let runner = model(Failing::new(Failure::Memory), settings()).unwrap();
    let mut runner = fail(runner, 1, 40);
    // Both tries of each step fail at their first call.
    for _ in 0..20 {
        let output = step(&mut runner, prompts().batch()).expect("the engine lives");
        assert_eq!(output.rows.len(), 2);
        for (slot, row) in output.rows.iter().enumerate() {
            assert_eq!(row.error, Some(RowError::OutOfMemory));
            assert_eq!(row.slot as usize, slot);
        }
    }
    let output = step(&mut runner, prompts().batch()).expect("the engine lives");
    assert_eq!(output.rows, expected[0].rows);
}
