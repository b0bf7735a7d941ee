//! Activations: a fixed array with room for the largest step, and how many rows of it are in use.
//!
//! Invariant: `num_rows <= max_rows`; rows in use lie one after the other.

use hotspare_model::ops::OpsError;

use crate::memory::AlignedArray;

/// Activations, `[max_rows, width]`, row-major f32.
#[derive(Debug)]
pub struct CpuBuffer {
    data: AlignedArray<f32>,
    width: usize,
    max_rows: usize,
    num_rows: usize,
}

impl CpuBuffer {
    /// Room for `max_rows` rows, none in use.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(max_rows: usize, width: usize) -> Result<Self, OpsError> {
        Ok(Self {
            data: AlignedArray::zeroed("activations", max_rows.saturating_mul(width))?,
            width,
            max_rows,
            num_rows: 0,
        })
    }

    /// Floats a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows in use.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// The rows in use.
    pub fn rows(&self) -> &[f32] {
        &self.data[..self.num_rows * self.width]
    }

    /// The rows in use.
    pub fn rows_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.num_rows * self.width]
    }

    /// Puts `values` in use, whole rows; `false` where there is no room for them. For tests and
    /// oracles.
    #[must_use]
    pub fn set_rows(&mut self, values: &[f32]) -> bool {
        let num_rows = values.len() / self.width.max(1);
        let is_whole = num_rows * self.width == values.len();
        match self.resize(num_rows) {
            Some(rows) if is_whole => rows.copy_from_slice(values),
            _ => return false,
        }
        true
    }

    /// Puts `num_rows` rows in use, whatever they hold; `None` where there is no room for them.
    #[must_use]
    pub(crate) fn resize(&mut self, num_rows: usize) -> Option<&mut [f32]> {
        if num_rows > self.max_rows {
            return None;
        }
        self.num_rows = num_rows;
        Some(self.rows_mut())
    }
}
