//! The data movement of the matrix product: parts of A and B in the order in which the tiles read them.

use alloc::vec;
use alloc::vec::Vec;

use crate::float::Float;
use crate::view::MatRef;

/// Rows of A within a k-block, one after the other.
pub(super) struct PackedA<T> {
    data: Vec<T>,
    depth: usize,
}

impl<T: Float> PackedA<T> {
    pub(super) fn new(rows: usize, k: usize) -> Self {
        Self { data: vec![T::zero(); rows * k.min(T::K_BLOCK)], depth: 0 }
    }

    #[inline(always)]
    pub(super) fn pack(&mut self, a: MatRef<'_, T>, row: usize, rows: usize, start: usize, depth: usize) {
        self.depth = depth;
        let a = a.window(row..row + rows, start..start + depth);
        if a.col_stride() == 1 {
            for (i, packed) in self.data.chunks_exact_mut(depth).take(rows).enumerate() {
                if let Some(row) = a.row(i) {
                    packed.copy_from_slice(row);
                }
            }
        } else {
            for p in 0..depth {
                for (i, &x) in a.t().row_iter(p).enumerate() {
                    self.data[i * depth + p] = x;
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn rows<const ROWS: usize>(&self) -> [&[T]; ROWS] {
        core::array::from_fn(
            #[inline(always)]
            |i| &self.data[i * self.depth..(i + 1) * self.depth],
        )
    }
}

/// Columns of B within a k-block: panels as wide as a register tile, each row by row. What is missing in the last panel
/// is zero.
pub(super) struct PackedB<T: Float> {
    blocks: Vec<T::Block>,
    depth: usize,
    cols: usize,
}

impl<T: Float> PackedB<T> {
    pub(super) fn new<const BLOCKS: usize>(k: usize, cols: usize) -> Self {
        let blocks = cols.div_ceil(BLOCKS * T::LANES) * BLOCKS * k.min(T::K_BLOCK);
        Self { blocks: vec![T::fill(T::zero()); blocks], depth: 0, cols: 0 }
    }

    #[inline(always)]
    pub(super) fn pack<const BLOCKS: usize>(
        &mut self,
        b: MatRef<'_, T>,
        start: usize,
        depth: usize,
        col: usize,
        cols: usize,
    ) {
        (self.depth, self.cols) = (depth, cols);
        let width = BLOCKS * T::LANES;
        let panels = self.blocks.chunks_exact_mut(BLOCKS * depth);
        for (panel, at) in panels.zip((0..cols).step_by(width)) {
            let width = width.min(cols - at);
            let b = b.window(start..start + depth, col + at..col + at + width);
            let lines = panel.chunks_exact_mut(BLOCKS);
            if b.col_stride() == 1 {
                for (p, line) in lines.enumerate() {
                    let line = T::flatten_mut(line);
                    if let Some(row) = b.row(p) {
                        line[..width].copy_from_slice(row);
                    }
                    line[width..].fill(T::zero());
                }
            } else {
                for (p, line) in lines.enumerate() {
                    let line = T::flatten_mut(line);
                    line.iter_mut().zip(b.row_iter(p)).for_each(|(packed, &x)| *packed = x);
                    line[width..].fill(T::zero());
                }
            }
        }
    }

    /// The panels and how many of their columns are real.
    #[inline(always)]
    pub(super) fn panels<const BLOCKS: usize>(&self) -> impl Iterator<Item = (&[[T::Block; BLOCKS]], usize)> {
        let width = BLOCKS * T::LANES;
        let cols = self.cols;
        self.blocks.chunks_exact(BLOCKS * self.depth).zip((0..cols).step_by(width)).map(
            #[inline(always)]
            move |(panel, at)| (panel.as_chunks().0, width.min(cols - at)),
        )
    }
}
