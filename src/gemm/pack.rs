//! The data movement of the matrix product: parts of A and B in the order in which the tiles read them.

use core::ops::Range;

use super::STREAMS;
use crate::float::Float;
use crate::simd::Simd;
use crate::sweep::load_first;
use crate::view::MatRef;

/// Columns of A that are copied together.
const PAGES: usize = 64;

/// Copies a part of A row by row, one row of it after the other; returns the rows, the last of them again and again where
/// `ROWS` is more than A has.
#[inline(never)] // nothing but moves: one copy for all instruction sets, with all registers
pub(super) fn pack_rows<'s, T: Float, const ROWS: usize>(a: MatRef<'_, T>, packed: &'s mut [T]) -> [&'s [T]; ROWS] {
    let depth = a.cols();
    for (i, packed) in packed.chunks_exact_mut(depth).take(a.rows()).enumerate() {
        match a.row(i) {
            Some(row) => packed.copy_from_slice(row),
            None => packed.iter_mut().zip(a.row_iter(i)).for_each(|(packed, &x)| *packed = x),
        }
    }
    let mut rows: [&[T]; ROWS] = [&[]; ROWS];
    for (i, row) in rows.iter_mut().enumerate() {
        let i = i.min(a.rows() - 1);
        *row = &packed[i * depth..(i + 1) * depth];
    }
    rows
}

/// Copies a part of A, whose columns are contiguous, `ROWS` rows at a time, each of these column by column, with zeros in
/// the rows that it does not have. Some columns of all of them are copied together: they share pages of memory.
#[inline(never)] // as above
pub(super) fn pack_columns<T: Float, const ROWS: usize>(a: MatRef<'_, T>, packed: &mut [T]) {
    let (rows, depth) = (a.rows(), a.cols());
    for start in (0..depth).step_by(PAGES) {
        let end = depth.min(start + PAGES);
        for (row, packed) in (0..rows).step_by(ROWS).zip(packed.chunks_exact_mut(ROWS * depth)) {
            let a = a.window(row..rows.min(row + ROWS), start..end);
            copy_columns::<T, ROWS>(a, packed[ROWS * start..ROWS * end].as_chunks_mut().0);
        }
    }
}

/// Copies columns of up to `ROWS` rows of A.
#[inline(always)]
fn copy_columns<T: Float, const ROWS: usize>(a: MatRef<'_, T>, packed: &mut [[T; ROWS]]) {
    let (rows, stride) = (a.rows(), a.col_stride());
    let columns = packed.iter_mut().zip(a.tail(0, 0).chunks(stride.max(rows)));
    if rows == ROWS {
        for (packed, column) in columns {
            if let Some(column) = column.first_chunk() {
                *packed = *column;
            }
        }
    } else {
        for (packed, column) in columns {
            packed[..rows].copy_from_slice(&column[..rows]);
            packed[rows..].fill(T::zero());
        }
    }
}

/// Copies a part of B in panels `BLOCKS` blocks wide, each line by line; the columns that are missing in the last panel
/// are zero.
#[inline(always)]
pub(super) fn pack_panels<T: Float, S: Simd<T>, const BLOCKS: usize>(simd: S, b: MatRef<'_, T>, packed: &mut [T]) {
    let (depth, cols, width) = (b.rows(), b.cols(), BLOCKS * T::LANES);
    if b.row(0).is_none() {
        for (at, panel) in (0..cols).step_by(width).zip(packed.chunks_exact_mut(width * depth)) {
            let b = b.window(0..depth, at..cols.min(at + width));
            if b.cols() < width {
                panel.fill(T::zero());
            }
            pack_transposed(simd, b, width, panel);
        }
        return;
    }
    let last = cols / width * width;
    if last > 0 {
        pack_whole_panels::<T, BLOCKS>(b, packed);
    }
    if last < cols {
        let panel = T::blocks_mut(&mut packed[last * depth..]).0.as_chunks_mut::<BLOCKS>().0;
        for (p, panel) in panel.iter_mut().take(depth).enumerate() {
            let (line, mut at) = (b.tail(p, 0), last);
            for block in panel {
                let len = T::LANES.min(cols.saturating_sub(at));
                *block = load_first(simd, &line[at.min(line.len())..], len).store();
                at += T::LANES;
            }
        }
    }
}

/// Copies the panels of a part of B that are whole; its rows are contiguous.
#[inline(always)]
fn pack_whole_panels<T: Float, const BLOCKS: usize>(b: MatRef<'_, T>, packed: &mut [T]) {
    let (depth, width) = (b.rows(), BLOCKS * T::LANES);
    let panels = b.cols() / width;
    for start in (0..depth).step_by(STREAMS) {
        let count = STREAMS.min(depth - start);
        let mut lines: [&[[T::Block; BLOCKS]]; STREAMS] = [&[]; STREAMS];
        for (p, line) in lines[..count].iter_mut().enumerate() {
            *line = &T::blocks(b.tail(start + p, 0)).0.as_chunks().0[..panels];
        }
        for i in 0..panels {
            let panel = &mut packed[(i * depth + start) * width..][..count * width];
            let panel = T::blocks_mut(panel).0.as_chunks_mut().0;
            for (panel, line) in panel.iter_mut().zip(&lines) {
                *panel = line[i];
            }
        }
    }
}

/// Copies a panel whose lines are not contiguous: squares of it through registers where its columns are, the rest
/// element by element.
#[inline(always)]
fn pack_transposed<T: Float, S: Simd<T>>(simd: S, b: MatRef<'_, T>, width: usize, panel: &mut [T]) {
    let (depth, cols) = (b.rows(), b.cols());
    let whole_cols = if b.t().row(0).is_some() { cols / T::LANES * T::LANES } else { 0 };
    for at in (0..whole_cols).step_by(T::LANES) {
        for start in (0..depth).step_by(T::LANES) {
            let lines = T::LANES.min(depth - start);
            let square = b.tail(start, at);
            // A square may reach past the last line, but not past the memory.
            if square.len() < (T::LANES - 1) * b.col_stride() + T::LANES {
                pack_elements(b, start..start + lines, at..at + T::LANES, width, panel);
                continue;
            }
            simd.transpose(
                square,
                b.col_stride(),
                lines,
                #[inline(always)]
                |p, line| {
                    let place = (start + p) * width + at;
                    T::blocks_mut(&mut panel[place..place + T::LANES]).0[0] = simd.store(line);
                },
            );
        }
    }
    pack_elements(b, 0..depth, whole_cols..cols, width, panel);
}

/// Copies a part of a panel element by element.
#[inline(always)]
fn pack_elements<T: Float>(b: MatRef<'_, T>, lines: Range<usize>, cols: Range<usize>, width: usize, panel: &mut [T]) {
    for p in lines {
        for j in cols.clone() {
            panel[p * width + j] = b.tail(p, j)[0];
        }
    }
}
