//! The order of q's and k's rows in files that rotate neighbouring dimensions together.
//!
//! Invariant: a permutation of whole rows, within each head.

/// Rows of `num_heads` heads, `row_len` elements each: a head's first and second half take turns.
pub(super) fn permute<T: Copy>(rows: &[T], num_heads: usize, row_len: usize) -> Vec<T> {
    let head_len = rows.len() / num_heads.max(1);
    let head_rows = head_len / row_len.max(1);
    let heads = rows.chunks_exact(head_len.max(1));
    let ordered = heads.flat_map(|head| {
        let half = head_rows / 2;
        let order = (0..half).flat_map(move |row| [row, row + half]);
        order.flat_map(move |row| &head[row * row_len..(row + 1) * row_len])
    });
    ordered.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::permute;

    #[test]
    fn halves_of_a_head_take_turns() {
        let rows = [0, 1, 10, 11, 20, 21, 30, 31];
        assert_eq!(permute(&rows, 1, 2), [0, 1, 20, 21, 10, 11, 30, 31]);
        assert_eq!(
            permute(&[0, 1, 2, 3, 4, 5, 6, 7], 2, 1),
            [0, 2, 1, 3, 4, 6, 5, 7]
        );
    }
}
