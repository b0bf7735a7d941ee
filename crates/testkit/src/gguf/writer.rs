//! Writes a GGUF file, version 3: fields, tensor table, and the tensors one after the other.
//!
//! Tensors are asked for as they are written, so a file of any size takes little memory.
//!
//! Invariant: fields and tensors are written as given, in the order given; what a tensor's writer
//! writes is as long as the tensor's shape and type say, or an error.

use std::io::{self, Write};

use super::GgmlType;

/// Where tensor data may start.
const ALIGNMENT: u64 = 32;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first (files have it the other way round).
    pub shape: Vec<u64>,
    /// Its number format.
    pub kind: GgmlType,
}

impl GgufTensor {
    /// Elements.
    pub fn num_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes, without padding.
    pub fn num_bytes(&self) -> u64 {
        self.num_elements() / self.kind.block_len() as u64 * self.kind.block_bytes() as u64
    }
}

/// A file to be written.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    /// Metadata: key, number of the value's type, value as it stands in the file.
    pub fields: Vec<(String, u32, Vec<u8>)>,
    /// The tensors.
    pub tensors: Vec<GgufTensor>,
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes
}

/// A list's value: type of its items, how many, the items.
fn list(item: u32, values: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = item.to_le_bytes().to_vec();
    bytes.extend((values.len() as u64).to_le_bytes());
    bytes.extend(values.flatten());
    bytes
}

impl GgufWriter {
    fn field(&mut self, key: &str, number: u32, value: Vec<u8>) {
        self.fields.push((key.to_owned(), number, value));
    }

    /// Adds an unsigned 32-bit field.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.field(key, 4, value.to_le_bytes().to_vec());
    }

    /// Adds a 32-bit float field.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.field(key, 6, value.to_le_bytes().to_vec());
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.field(key, 7, vec![u8::from(value)]);
    }

    /// Adds a string.
    pub fn string(&mut self, key: &str, value: &str) {
        self.field(key, 8, string(value));
    }

    /// Adds a list of strings.
    pub fn strings<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let values = values.iter().map(|value| string(value.as_ref()));
        self.field(key, 9, list(8, values));
    }

    /// Adds a list of 32-bit floats.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        let values = values.iter().map(|value| value.to_le_bytes().to_vec());
        self.field(key, 9, list(6, values));
    }

    /// Adds a list of signed 32-bit numbers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let values = values.iter().map(|value| value.to_le_bytes().to_vec());
        self.field(key, 9, list(5, values));
    }

    /// Adds a list of truth values.
    pub fn bools(&mut self, key: &str, values: &[bool]) {
        self.field(
            key,
            9,
            list(7, values.iter().map(|&value| vec![u8::from(value)])),
        );
    }

    /// Leaves out field `key`.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(known, ..)| known != key);
    }

    /// Bytes of all that stands before the tensors, padding included.
    fn header(&self) -> Vec<u8> {
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.fields.len() as u64).to_le_bytes());
        for (key, number, value) in &self.fields {
            header.extend(string(key));
            header.extend(number.to_le_bytes());
            header.extend(value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            header.extend(string(&tensor.name));
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            let dims = tensor.shape.iter().rev();
            dims.for_each(|dim| header.extend(dim.to_le_bytes()));
            header.extend(tensor.kind.number().to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + tensor.num_bytes()).next_multiple_of(ALIGNMENT);
        }
        header.resize(
            (header.len() as u64).next_multiple_of(ALIGNMENT) as usize,
            0,
        );
        header
    }

    /// Bytes of the whole file.
    pub fn num_bytes(&self) -> u64 {
        let tensors = self.tensors.iter();
        let data: u64 = tensors
            .map(|t| t.num_bytes().next_multiple_of(ALIGNMENT))
            .sum();
        self.header().len() as u64 + data
    }

    /// Writes the file; `fill` writes tensor number so-and-so.
    ///
    /// # Errors
    /// As `out` and `fill`; or a tensor that `fill` made too long or too short.
    pub fn write<W: Write>(
        &self,
        out: &mut W,
        mut fill: impl FnMut(usize, &GgufTensor, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        out.write_all(&self.header())?;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let mut counted = Counted { out, num_bytes: 0 };
            fill(index, tensor, &mut counted)?;
            let (found, expected) = (counted.num_bytes, tensor.num_bytes());
            if found != expected {
                let name = &tensor.name;
                return Err(io::Error::other(format!(
                    "tensor {name} has {found} bytes, not {expected}"
                )));
            }
            let padding = found.next_multiple_of(ALIGNMENT) - found;
            out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
        }
        Ok(())
    }
}

/// Counts what passes.
struct Counted<'a, W> {
    out: &'a mut W,
    num_bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.num_bytes += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
