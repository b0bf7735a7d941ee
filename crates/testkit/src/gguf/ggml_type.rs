//! ggml's number formats: their names, numbers and blocks.
//!
//! Written down apart from the reader's table, so that a wrong entry in either shows.
//!
//! Invariant: the numbers are those of ggml's `enum ggml_type`.

/// A number format of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgmlType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 4 bits, scale.
    Q4_0,
    /// 4 bits, scale and minimum.
    Q4_1,
    /// 5 bits, scale.
    Q5_0,
    /// 5 bits, scale and minimum.
    Q5_1,
    /// 8 bits, scale.
    Q8_0,
    /// 2 bits in blocks of 256.
    Q2K,
    /// 3 bits in blocks of 256.
    Q3K,
    /// 4 bits in blocks of 256.
    Q4K,
    /// 5 bits in blocks of 256.
    Q5K,
    /// 6 bits in blocks of 256.
    Q6K,
}

impl GgmlType {
    /// All of them: type, name, number, elements and bytes of a block, `general.file_type`.
    const TABLE: [(Self, &'static str, u32, usize, usize, u32); 13] = [
        (Self::F32, "f32", 0, 1, 4, 0),
        (Self::F16, "f16", 1, 1, 2, 1),
        (Self::Bf16, "bf16", 30, 1, 2, 32),
        (Self::Q4_0, "q4_0", 2, 32, 18, 2),
        (Self::Q4_1, "q4_1", 3, 32, 20, 3),
        (Self::Q5_0, "q5_0", 6, 32, 22, 8),
        (Self::Q5_1, "q5_1", 7, 32, 24, 9),
        (Self::Q8_0, "q8_0", 8, 32, 34, 7),
        (Self::Q2K, "q2_k", 10, 256, 84, 10),
        (Self::Q3K, "q3_k", 11, 256, 110, 12),
        (Self::Q4K, "q4_k", 12, 256, 144, 15),
        (Self::Q5K, "q5_k", 13, 256, 176, 17),
        (Self::Q6K, "q6_k", 14, 256, 210, 18),
    ];

    fn row(self) -> &'static (Self, &'static str, u32, usize, usize, u32) {
        // The table has every variant, in another order.
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.unwrap_or(&Self::TABLE[0])
    }

    /// Every type.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|row| row.0)
    }

    /// The type of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let row = Self::TABLE
            .iter()
            .find(|row| row.1.eq_ignore_ascii_case(name));
        row.map(|row| row.0)
    }

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Its number in files.
    pub fn number(self) -> u32 {
        self.row().2
    }

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().4
    }

    /// What `general.file_type` says of a file that is mostly of this type.
    pub fn file_type(self) -> u32 {
        self.row().5
    }
}
