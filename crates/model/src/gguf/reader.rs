//! A cursor over a file's bytes that cannot leave them.
//!
//! Invariant: every read says what it was reading when the file ends too soon.

/// Longest key or tensor name, in bytes.
const MAX_NAME_BYTES: u64 = 1024;

/// Reads little-endian numbers and strings from the front.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, position: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    pub(super) fn num_left(&self) -> usize {
        self.file.len() - self.position
    }

    /// The next `len` bytes, which are `what`.
    pub(super) fn bytes(&mut self, len: u64, what: &str) -> Result<&'a [u8], String> {
        let left = &self.file[self.position..];
        let bytes = usize::try_from(len).ok().and_then(|len| left.get(..len));
        let bytes = bytes.ok_or_else(|| {
            let num_left = left.len();
            format!("{what} needs {len} bytes, but only {num_left} are left (is it truncated?)")
        })?;
        self.position += bytes.len();
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let bytes = self.bytes(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, String> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, String> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, String> {
        let len = self.u64(what)?;
        let bytes = self.bytes(len, what)?;
        str::from_utf8(bytes).map_err(|e| format!("{what} is not UTF-8: {e}"))
    }

    /// A key or name: a short string.
    pub(super) fn name(&mut self, what: &str) -> Result<String, String> {
        let len = self.u64(what)?;
        if len > MAX_NAME_BYTES {
            return Err(format!(
                "{what} claims {len} bytes, more than {MAX_NAME_BYTES}"
            ));
        }
        let bytes = self.bytes(len, what)?;
        let name = str::from_utf8(bytes).map_err(|e| format!("{what} is not UTF-8: {e}"))?;
        Ok(name.to_owned())
    }
}
