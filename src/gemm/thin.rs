//! Products of few rows with a B that is too large for the L2 cache: some lines of many columns of B at a time, as they
//! lie in memory, against all rows of A. What would not pay to pack is read once, in long pieces; the sums wait in the
//! cache for the next lines, tile by tile.

use core::ops::Range;

use super::left::LeftSide;
use super::micro::{Sums, no_sums, tile};
use super::{Access, Banded, Gemm, Slab, Store, Target, each_band, store_all};
use crate::finite::Watch;
use crate::float::Float;
use crate::lanes::Lanes;
use crate::simd::Simd;

/// Blocks of columns, and lines, that are read together: 4 KiB of each line, 192 KiB in all.
const COLUMNS: usize = 64;
const LINES: usize = 48;

/// Computes C; whether it is finite.
#[inline(always)]
pub(super) fn multiply<
    T: Float,
    S: Simd<T>,
    const ROWS: usize,
    const MID: usize,
    const LOW: usize,
    const BLOCKS: usize,
>(
    simd: S,
    gemm: &mut Gemm<'_, T>,
) -> bool {
    let (m, k, n) = (gemm.c.rows(), gemm.a.cols(), gemm.c.cols());
    let (step, width) = (COLUMNS * T::LANES, BLOCKS * T::LANES);
    let mut scratch = T::take_scratch();
    // A tile at the end may have more rows than there are.
    let [left, right] =
        scratch.parts(LeftSide::packed_len::<ROWS>(gemm.a, LINES, true), (m + ROWS) * step + LINES * width);
    let (sums, tail) = right.split_at_mut((m + ROWS) * step);
    let mut finite = true;
    for col in (0..n).step_by(step) {
        let cols = col..n.min(col + step);
        for start in (0..k).step_by(T::K_BLOCK) {
            let end = k.min(start + T::K_BLOCK);
            sums.fill(T::zero());
            for line in (start..end).step_by(LINES) {
                let lines = line..end.min(line + LINES);
                let b = gemm.b.window(lines.clone(), cols.clone());
                let left = LeftSide::new(gemm.a.window(0..m, lines), true, left);
                let slab = Slab::new::<S, BLOCKS>(simd, b, Access::InPlace, tail);
                each_band::<_, S, ROWS, MID, LOW>(simd, m, &mut Piece::<T, BLOCKS> { left, slab, sums });
            }
            let store = gemm.store(start);
            let mut whole = Whole::<T, BLOCKS> { store, sums, cols: cols.clone(), c: &mut gemm.c };
            finite &= each_band::<_, S, ROWS, MID, LOW>(simd, m, &mut whole);
        }
        gemm.activate(simd, cols);
    }
    T::keep_scratch(scratch);
    finite
}

/// The sums of the tile of `ROWS` rows from one on that begins at a column.
#[inline(always)]
fn tile_at<T: Float, const ROWS: usize, const BLOCKS: usize>(
    sums: &mut [T],
    row: usize,
    col: usize,
) -> &mut [[T::Block; BLOCKS]] {
    let start = row * COLUMNS * T::LANES + ROWS * col;
    T::blocks_mut(&mut sums[start..start + ROWS * BLOCKS * T::LANES]).0.as_chunks_mut().0
}

/// Lines of a slab against all rows of A, added to the sums.
struct Piece<'s, T, const BLOCKS: usize> {
    left: LeftSide<'s, T>,
    slab: Slab<'s, T>,
    sums: &'s mut [T],
}

impl<T: Float, const BLOCKS: usize> Banded for Piece<'_, T, BLOCKS> {
    type Elem = T;

    #[inline(always)]
    fn band<S: Simd<T>, const ROWS: usize>(&mut self, simd: S, row: usize) -> bool {
        let Self { left, slab, sums } = self;
        let left = left.band::<ROWS>(row);
        for col in (0..slab.b.cols()).step_by(BLOCKS * T::LANES) {
            let Some(sums) = tile_at::<T, ROWS, BLOCKS>(sums, row, col).first_chunk_mut::<ROWS>() else { break };
            let mut tile_sums: Sums<T, S, ROWS, BLOCKS> = no_sums(simd);
            for i in 0..ROWS {
                for j in 0..BLOCKS {
                    tile_sums[i][j] = Lanes::load(simd, &sums[i][j]);
                }
            }
            let depth = slab.b.rows();
            let tile_sums = tile(tile_sums, &left, slab.panel(col), depth);
            for i in 0..ROWS {
                sums[i] = store_all(tile_sums[i]);
            }
        }
        true
    }
}

/// The sums of these columns, when all lines of a k-block are in them.
struct Whole<'s, 'a, T, const BLOCKS: usize> {
    store: Store<'a, T>,
    sums: &'s mut [T],
    cols: Range<usize>,
    c: &'s mut Target<'a, T>,
}

impl<T: Float, const BLOCKS: usize> Banded for Whole<'_, '_, T, BLOCKS> {
    type Elem = T;

    #[inline(always)]
    fn band<S: Simd<T>, const ROWS: usize>(&mut self, simd: S, row: usize) -> bool {
        let Self { store, sums, cols, c } = self;
        let mut watch = Watch::new(simd);
        let end = c.rows().min(row + ROWS);
        for start in cols.clone().step_by(BLOCKS * T::LANES) {
            let sums = tile_at::<T, ROWS, BLOCKS>(sums, row, start - cols.start);
            for (row, sums) in (row..end).zip(sums) {
                for (col, sums) in (start..cols.end).step_by(T::LANES).zip(&*sums) {
                    let len = T::LANES.min(cols.end - col);
                    store.block(simd, sums, (row, col), len, c.tail_mut(row, col), &mut watch);
                }
            }
        }
        watch.all_finite()
    }
}
