//! Splits an operation over threads, where it is worth it.
//!
//! The device's thread is itself a worker of the pool, so that an operation that fits one thread
//! costs no hand-over. The pool belongs to the thread, not to a model: a thread can join a pool
//! only once.
//!
//! Invariant: what an operation computes does not depend on how it is split.

use std::cell::OnceCell;
use std::ops::Range;

use rayon::{ThreadPool, ThreadPoolBuilder};

use hotspare_model::ops::OpsError;

/// Steps of less estimated work than this stay on the device's thread altogether: the others would
/// fall asleep between steps, and the core is worth more to the front's process.
const MIN_STEP_NS: usize = 250_000;

/// Below this much estimated work an operation stays on the device's thread. Splitting costs less
/// than a microsecond while the other threads are awake, which they are for some ten microseconds
/// after their last piece.
const MIN_SPLIT_NS: usize = 3_000;

/// Pieces a thread: more than one, so that a thread that was held up leaves its rest to the others.
const PIECES_PER_THREAD: usize = 2;

thread_local! {
    static POOL: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
}

/// How many threads an operation may use.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    num_threads: usize,
    /// Whether this step's operations may be split.
    splits: bool,
}

impl Workers {
    /// `num_threads` counts the device's own.
    pub(crate) fn new(num_threads: usize) -> Self {
        Self {
            num_threads: num_threads.max(1),
            splits: false,
        }
    }

    /// Starts a step of about `step_ns` of work. Makes the calling thread a worker, starting the
    /// others, if it is not one already: the thread that builds a model need not be the one that
    /// runs it.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn begin_step(&mut self, step_ns: usize) -> Result<(), OpsError> {
        self.splits = self.num_threads > 1 && step_ns >= MIN_STEP_NS;
        if !self.splits {
            return Ok(());
        }
        POOL.with(|pool| {
            if pool.get().is_some() {
                return Ok(());
            }
            let built = if rayon::current_thread_index().is_some() {
                None // A worker of someone else's pool: splits run there.
            } else {
                let builder = ThreadPoolBuilder::new()
                    .num_threads(self.num_threads)
                    .thread_name(|i| format!("cpu-ops-{i}"))
                    .use_current_thread();
                Some(
                    builder
                        .build()
                        .map_err(|e| OpsError::Device(e.to_string()))?,
                )
            };
            let _ = pool.set(built);
            Ok(())
        })
    }

    /// Threads that this step's operations may use.
    pub(crate) fn num_threads(&self) -> usize {
        if self.splits { self.num_threads } else { 1 }
    }

    /// Into how many pieces to cut `work_ns` of estimated work.
    fn num_pieces(&self, work_ns: usize) -> usize {
        if self.splits && work_ns >= MIN_SPLIT_NS && rayon::current_thread_index().is_some() {
            self.num_threads * PIECES_PER_THREAD
        } else {
            1
        }
    }

    /// Calls `f` with ranges that partition `0..len`.
    pub(crate) fn ranges(&self, len: usize, work_ns: usize, f: &(impl Fn(Range<usize>) + Sync)) {
        split_range(0..len, self.num_pieces(work_ns), f);
    }

    /// Calls `f(index of the first row, rows)` with runs of rows that partition `out`, each `width`
    /// wide.
    pub(crate) fn rows(
        &self,
        out: &mut [f32],
        width: usize,
        work_ns: usize,
        f: &(impl Fn(usize, &mut [f32]) + Sync),
    ) {
        let pieces = self.num_pieces(work_ns);
        split_rows(
            [out, &mut []],
            [width, 0],
            0,
            pieces,
            &|first, [out, _]: [&mut [f32]; 2]| {
                f(first, out);
            },
        );
    }

    /// As [`Workers::rows`], over two outputs that have the same number of rows, in at most
    /// `max_pieces`.
    pub(crate) fn rows2(
        &self,
        outs: [&mut [f32]; 2],
        widths: [usize; 2],
        work_ns: usize,
        max_pieces: usize,
        f: &(impl Fn(usize, [&mut [f32]; 2]) + Sync),
    ) {
        split_rows(outs, widths, 0, self.num_pieces(work_ns).min(max_pieces), f);
    }

    /// Calls `f` with parts of `task`. `halve(task, a, b)` takes about a/b of it apart, if it can.
    pub(crate) fn divide<T: Send>(
        &self,
        task: T,
        work_ns: usize,
        halve: &(impl Fn(T, usize, usize) -> (T, Option<T>) + Sync),
        f: &(impl Fn(T) + Sync),
    ) {
        divide(task, self.num_pieces(work_ns), halve, f);
    }

    /// Calls `f(item, its part of out)` for every item, in runs of about equal cost. Item `i` owns
    /// the `len(i)` floats that follow those of the items before it.
    pub(crate) fn items<T: Send>(
        &self,
        items: &mut [T],
        out: &mut [f32],
        work_ns: usize,
        size: &(impl Fn(&T) -> ItemSize + Sync),
        f: &(impl Fn(&mut T, &mut [f32]) + Sync),
    ) {
        split_items(items, out, self.num_pieces(work_ns), size, f);
    }
}

/// What [`Workers::items`] has to know of an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemSize {
    /// Floats of the output.
    pub(crate) len: usize,
    /// Work, in any unit.
    pub(crate) cost: usize,
}

fn split_range(range: Range<usize>, pieces: usize, f: &(impl Fn(Range<usize>) + Sync)) {
    if pieces <= 1 || range.len() <= 1 {
        return f(range);
    }
    let left = pieces / 2;
    let middle = range.start + range.len() * left / pieces;
    rayon::join(
        || split_range(range.start..middle, left, f),
        || split_range(middle..range.end, pieces - left, f),
    );
}

fn divide<T: Send>(
    task: T,
    pieces: usize,
    halve: &(impl Fn(T, usize, usize) -> (T, Option<T>) + Sync),
    f: &(impl Fn(T) + Sync),
) {
    if pieces <= 1 {
        return f(task);
    }
    let left = pieces / 2;
    match halve(task, left, pieces) {
        (whole, None) => f(whole),
        (first, Some(second)) => {
            rayon::join(
                || divide(first, left, halve, f),
                || divide(second, pieces - left, halve, f),
            );
        }
    }
}

fn split_rows(
    outs: [&mut [f32]; 2],
    widths: [usize; 2],
    first: usize,
    pieces: usize,
    f: &(impl Fn(usize, [&mut [f32]; 2]) + Sync),
) {
    let num_rows = outs[0].len() / widths[0].max(1);
    if pieces <= 1 || num_rows <= 1 {
        return f(first, outs);
    }
    let left = pieces / 2;
    let middle = num_rows * left / pieces;
    let [a, b] = outs;
    let (a_left, a_right) = a.split_at_mut(middle * widths[0]);
    let (b_left, b_right) = b.split_at_mut(middle * widths[1]);
    rayon::join(
        || split_rows([a_left, b_left], widths, first, left, f),
        || split_rows([a_right, b_right], widths, first + middle, pieces - left, f),
    );
}

fn split_items<T: Send>(
    items: &mut [T],
    mut out: &mut [f32],
    pieces: usize,
    size: &(impl Fn(&T) -> ItemSize + Sync),
    f: &(impl Fn(&mut T, &mut [f32]) + Sync),
) {
    if pieces <= 1 || items.len() <= 1 {
        for item in items {
            let (own, rest) = std::mem::take(&mut out).split_at_mut(size(item).len);
            f(item, own);
            out = rest;
        }
        return;
    }
    let left = pieces / 2;
    let total: usize = items.iter().map(|item| size(item).cost).sum();
    let (mut cost, mut len, mut middle) = (0, 0, 0);
    while middle < items.len() - 1 && cost * pieces < total * left {
        let item = size(&items[middle]);
        (cost, len, middle) = (cost + item.cost, len + item.len, middle + 1);
    }
    let (out_left, out_right) = out.split_at_mut(len);
    let (items_left, items_right) = items.split_at_mut(middle);
    rayon::join(
        || split_items(items_left, out_left, left, size, f),
        || split_items(items_right, out_right, pieces - left, size, f),
    );
}
