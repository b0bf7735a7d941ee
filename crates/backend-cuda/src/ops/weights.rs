//! Weights on the device: how each type of a file lies there.
//!
//! Quantized weights take what they take in the file: `Q8_0` and `Q4_K` in planes, for their fused
//! products; the other types as they are, and a piece is widened to sixteen bits whenever a product
//! needs it. Dense weights become the activations' type as they are loaded, and so does everything
//! under f32 activations, and experts of a layer whose gate and up are of unlike types.
//!
//! Invariant: a product's bits do not depend on which of these ways its weights take.

use std::sync::Arc;

use hotspare_model::ops::{ExpertViews, OpsError};
use hotspare_model::weights::{WeightDtype, WeightView};

use super::memory::{FOR_WEIGHTS, alloc, device_error, product, unsupported};
use super::space::Space;
use crate::kernels::{Embed, WeightFormat, Weights};
use crate::planes::planes;
use crate::{Address, Device, Dtype};

/// Bytes of the space in which weights are widened: a piece of a matrix at a time.
pub(super) const SPACE_BYTES: usize = 16 << 20;
/// Bytes of a file that are rearranged at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Rows of weights in one format; of experts, one above the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    pub(super) format: WeightFormat,
    pub(super) weights: Weights,
    pub(super) num_rows: usize,
    pub(super) width: usize,
}

/// A linear layer's weights, `[out, in]`.
#[derive(Clone, Debug)]
pub struct CudaLinear {
    /// One above the other.
    pub(super) parts: Arc<[Matrix]>,
    pub(super) num_inputs: usize,
    pub(super) num_outputs: usize,
}

/// A norm's weights or a bias, f32.
#[derive(Debug)]
pub struct CudaVector {
    pub(super) at: Address,
    pub(super) len: usize,
}

/// The experts of a layer.
#[derive(Debug)]
pub struct CudaExperts {
    /// `[experts, 2 * width, hidden]`.
    pub(super) gate_up: Matrix,
    /// `[experts, hidden, width]`.
    pub(super) down: Matrix,
    pub(super) num_experts: usize,
    pub(super) num_chosen: usize,
    pub(super) hidden: usize,
    pub(super) width: usize,
}

/// The dense format of activations.
pub(super) fn dense(dtype: Dtype) -> WeightDtype {
    match dtype {
        Dtype::F32 => WeightDtype::F32,
        Dtype::F16 => WeightDtype::F16,
        Dtype::Bf16 => WeightDtype::Bf16,
    }
}

/// How weights of `file`'s type lie on the device for activations of `dtype`.
fn format_for(dtype: Dtype, file: WeightDtype) -> WeightFormat {
    match file {
        _ if dtype == Dtype::F32 => WeightFormat::Plain(WeightDtype::F32),
        WeightDtype::Q8_0 => WeightFormat::Q8_0Planes,
        WeightDtype::Q4K => WeightFormat::Q4KPlanes,
        file if file.is_quantized() => WeightFormat::Plain(file),
        _ => WeightFormat::Plain(dense(dtype)),
    }
}

/// Bytes of a row of weights and of a row of scales.
fn row_bytes(format: WeightFormat, width: usize) -> [usize; 2] {
    match format {
        WeightFormat::Q8_0Planes => [width, width / 32 * 2],
        WeightFormat::Q4KPlanes => [width / 2, width / 256 * 16],
        WeightFormat::Plain(dtype) if dtype.is_quantized() => {
            [width / dtype.block_len() * dtype.block_bytes(), 0]
        }
        // Rows start at multiples of sixteen bytes.
        WeightFormat::Plain(dtype) => [(width * dtype.block_bytes()).next_multiple_of(16), 0],
    }
}

/// Puts weights on a device.
pub(super) struct WeightLoader<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) dtype: Dtype,
    /// [`SPACE_BYTES`], once something was converted.
    pub(super) space: &'a mut Option<Space>,
}

impl<D: Device> WeightLoader<'_, D> {
    /// A linear layer that stacks `views`.
    pub(super) fn linear(&mut self, views: &[WeightView]) -> Result<CudaLinear, OpsError> {
        let shapes: Option<Vec<[usize; 2]>> = views
            .iter()
            .map(|view| view.shape().try_into().ok())
            .collect();
        let shapes = shapes.filter(|shapes| {
            let is_whole = |s: &[usize; 2]| s[0] > 0 && s[1] > 0 && s[1] == shapes[0][1];
            !shapes.is_empty() && shapes.iter().all(is_whole)
        });
        let shapes = shapes.ok_or_else(|| unsupported(format!("a linear layer of {views:?}")))?;
        let mut parts = Vec::new();
        let formats = views
            .iter()
            .map(|view| format_for(self.dtype, view.dtype()));
        let all: Vec<(&WeightView, WeightFormat)> = views.iter().zip(formats).collect();
        for group in all.chunk_by(|a, b| a.1 == b.1) {
            let num_rows = group.iter().map(|(view, _)| view.shape()[0]).sum();
            let matrix = self.alloc(group[0].1, num_rows, shapes[0][1])?;
            let mut first = 0;
            for (view, _) in group {
                self.fill(&matrix, first, view)?;
                first += view.shape()[0];
            }
            parts.push(matrix);
        }
        if parts.iter().any(|part| self.needs_space(part.format)) {
            self.space()?;
        }
        Ok(CudaLinear {
            num_inputs: shapes[0][1],
            num_outputs: shapes.iter().map(|shape| shape[0]).sum(),
            parts: parts.into(),
        })
    }

    /// The experts of a layer, each of the same shape.
    pub(super) fn experts(
        &mut self,
        experts: &[ExpertViews],
        num_chosen: usize,
    ) -> Result<CudaExperts, OpsError> {
        let odd = || unsupported("experts of unlike shapes".to_owned());
        let first = experts.first().ok_or_else(odd)?;
        let &[hidden, width] = first.down.shape() else {
            return Err(odd());
        };
        for expert in experts {
            let mut num_rows = 0;
            for view in &expert.gate_up {
                let &[rows, columns] = view.shape() else {
                    return Err(odd());
                };
                num_rows += if columns == hidden { rows } else { 0 };
            }
            if num_rows != 2 * width || expert.down.shape() != [hidden, width] || width == 0 {
                return Err(odd());
            }
        }
        let num_experts = experts.len();
        let gate_up = experts.iter().flat_map(|expert| &expert.gate_up);
        let gate_up = self.stack(gate_up, num_experts * 2 * width, hidden)?;
        let downs = experts.iter().map(|expert| &expert.down);
        let down = self.stack(downs, num_experts * hidden, width)?;
        if gate_up.is_packed() || down.is_packed() {
            self.space()?;
        }
        Ok(CudaExperts {
            gate_up,
            down,
            num_experts,
            num_chosen,
            hidden,
            width,
        })
    }

    /// All `views` in one format: their own, or the dense one where they are of several.
    fn stack<'v>(
        &mut self,
        views: impl Iterator<Item = &'v WeightView> + Clone,
        num_rows: usize,
        width: usize,
    ) -> Result<Matrix, OpsError> {
        let mut formats = views
            .clone()
            .map(|view| format_for(self.dtype, view.dtype()));
        let first = formats.next();
        let format = first
            .filter(|first| formats.all(|format| format == *first))
            .unwrap_or(WeightFormat::Plain(dense(self.dtype)));
        let matrix = self.alloc(format, num_rows, width)?;
        let mut first = 0;
        for view in views {
            self.fill(&matrix, first, view)?;
            first += view.shape()[0];
        }
        Ok(matrix)
    }

    /// Whether products of more than a few rows widen the format first.
    fn needs_space(&self, format: WeightFormat) -> bool {
        format != WeightFormat::Plain(dense(self.dtype))
    }

    fn space(&mut self) -> Result<Space, OpsError> {
        if let Some(space) = *self.space {
            return Ok(space);
        }
        let what = "space to widen weights";
        let space = Space {
            at: alloc(self.device, what, SPACE_BYTES, FOR_WEIGHTS)?,
            num_bytes: SPACE_BYTES,
        };
        *self.space = Some(space);
        Ok(space)
    }

    fn alloc(
        &mut self,
        format: WeightFormat,
        num_rows: usize,
        width: usize,
    ) -> Result<Matrix, OpsError> {
        const WHAT: &str = "a weight";
        let [data_bytes, scale_bytes] = row_bytes(format, width);
        let mut memory = |row_bytes| {
            let num_bytes = product(WHAT, &[num_rows, row_bytes])?;
            alloc(self.device, WHAT, num_bytes, FOR_WEIGHTS)
        };
        Ok(Matrix {
            format,
            weights: Weights {
                data: memory(data_bytes)?,
                scales: match scale_bytes {
                    0 => Address::NULL,
                    _ => memory(scale_bytes)?,
                },
                row_bytes: data_bytes as u64,
                scale_row_bytes: scale_bytes as u64,
            },
            num_rows,
            width,
        })
    }

    /// Writes `view` to the rows of `matrix` from `first` on.
    fn fill(&mut self, matrix: &Matrix, first: usize, view: &WeightView) -> Result<(), OpsError> {
        let &[num_rows, width] = view.shape() else {
            return Err(unsupported(format!("a matrix of {view:?}")));
        };
        let file_bytes = view.bytes().len() / num_rows.max(1);
        let is_same = matrix.format == WeightFormat::Plain(view.dtype());
        let is_planes = !matches!(matrix.format, WeightFormat::Plain(_));
        let row_bytes = matrix.weights.row_bytes as usize;
        if is_same && row_bytes == file_bytes {
            let to = matrix.weights.data.offset(first * row_bytes);
            return self.write(to, view.bytes());
        }
        let convert = !is_same && !is_planes;
        let limit = if convert { SPACE_BYTES } else { CHUNK_BYTES };
        let rows_per_chunk = limit / file_bytes.max(1);
        if rows_per_chunk == 0 && convert {
            return Err(unsupported(format!(
                "rows of {width} {}",
                view.dtype().name()
            )));
        }
        let chunks = view.bytes().chunks(rows_per_chunk.max(1) * file_bytes);
        let mut row = first;
        for chunk in chunks {
            let to = matrix.weights.data.offset(row * row_bytes);
            if convert {
                self.convert(matrix, row, view.dtype(), chunk, file_bytes)?;
            } else if is_planes {
                let planes = planes(view.dtype(), chunk)
                    .ok_or_else(|| unsupported(format!("planes of {view:?}")))?;
                let scales = row * matrix.weights.scale_row_bytes as usize;
                self.write(to, &planes.data)?;
                self.write(matrix.weights.scales.offset(scales), &planes.scales)?;
            } else {
                let mut padded = Vec::with_capacity(chunk.len() / file_bytes * row_bytes);
                for row in chunk.chunks_exact(file_bytes) {
                    padded.extend(row);
                    padded.resize(padded.len().next_multiple_of(16), 0);
                }
                self.write(to, &padded)?;
            }
            row += chunk.len() / file_bytes;
        }
        Ok(())
    }

    /// Widens or rounds rows of a file to the dense rows of `matrix` from `first` on.
    fn convert(
        &mut self,
        matrix: &Matrix,
        first: usize,
        from: WeightDtype,
        bytes: &[u8],
        file_bytes: usize,
    ) -> Result<(), OpsError> {
        let space = self.space()?.at;
        self.write(space, bytes)?;
        let source = Matrix {
            format: WeightFormat::Plain(from),
            weights: Weights {
                data: space,
                row_bytes: file_bytes as u64,
                ..Weights::default()
            },
            num_rows: bytes.len() / file_bytes,
            width: matrix.width,
        };
        let row_bytes = matrix.weights.row_bytes as usize;
        let out = matrix.weights.data.offset(first * row_bytes);
        let widened = source.widen(self.device, self.dtype, out, row_bytes, None);
        widened.map_err(|error| device_error(&error))
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), OpsError> {
        self.device
            .write(to, bytes)
            .map_err(|error| device_error(&error))
    }

    /// A vector of f32.
    pub(super) fn vector(
        &mut self,
        views: &[WeightView],
        offset: f32,
    ) -> Result<CudaVector, OpsError> {
        let mut values = Vec::new();
        for view in views {
            let dtype = match view.dtype() {
                WeightDtype::F32 => Dtype::F32,
                WeightDtype::F16 => Dtype::F16,
                WeightDtype::Bf16 => Dtype::Bf16,
                other => {
                    let name = other.name();
                    return Err(unsupported(format!("a norm or bias in {name}")));
                }
            };
            if view.shape().len() != 1 || view.shape()[0] == 0 {
                let shape = view.shape();
                return Err(unsupported(format!("a norm or bias of shape {shape:?}")));
            }
            values.extend(dtype.decode(view.bytes()));
        }
        values.iter_mut().for_each(|x| *x += offset);
        let at = alloc(self.device, "a norm or bias", 4 * values.len(), FOR_WEIGHTS)?;
        self.write(at, bytemuck::cast_slice(&values))?;
        Ok(CudaVector {
            at,
            len: values.len(),
        })
    }
}

impl Matrix {
    /// Whether it has no product of its own, and is widened for each.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.format, WeightFormat::Plain(dtype) if dtype.is_quantized())
    }

    /// Rows `first` to `first + num_rows`.
    pub(super) fn rows(&self, first: usize, num_rows: usize) -> Self {
        let w = &self.weights;
        let scales = first * w.scale_row_bytes as usize;
        Self {
            weights: Weights {
                data: w.data.offset(first * w.row_bytes as usize),
                scales: match w.scale_row_bytes {
                    0 => w.scales,
                    _ => w.scales.offset(scales),
                },
                ..*w
            },
            num_rows,
            ..*self
        }
    }

    /// Widens all rows to `dtype`, `row_bytes` from one to the next, at `out`; where they belong to
    /// `groups` (offsets, rows of a group), those of groups that have rows to multiply.
    pub(super) fn widen<D: Device>(
        &self,
        device: &mut D,
        dtype: Dtype,
        out: Address,
        row_bytes: usize,
        groups: Option<(Address, usize)>,
    ) -> Result<(), crate::LaunchError> {
        let (group_offsets, rows_per_group) = groups.unwrap_or((Address::NULL, 0));
        let args = Embed {
            table: self.weights,
            token_ids: Address::NULL,
            out,
            group_offsets,
            format: self.format.code(),
            first_row: 0,
            num_table_rows: self.num_rows as u32,
            width: self.width as u32,
            stride: (row_bytes / dtype.size()) as u32,
            scale: 1.0,
            is_last: 1,
            rows_per_group: rows_per_group as u32,
        };
        args.launch(device, dtype, self.num_rows)
    }
}
