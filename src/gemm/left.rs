//! [`LeftSide`]: the rows of A as the tiles read them, copied where that pays.

use core::ops::Range;

use super::bytes;
use super::micro::Left;
use super::pack::{pack_columns, pack_rows};
use crate::float::Float;
use crate::view::MatRef;

/// Tiles of B for which it does not pay to copy the rows of A.
const DIRECT_PANELS: usize = 8;

/// Register tiles of rows of A that are packed together where its columns are contiguous.
const GROUP: usize = 4;

/// Bytes of a page of memory.
const PAGE: usize = 4096;

/// Elements of columns of A, with those between them, that can be read where they are.
const NEAR: usize = 1 << 17;

/// The lines of A within a k-block, as tiles read them.
pub(super) struct LeftSide<'s, T> {
    a: MatRef<'s, T>,
    /// Whether rows are read but once or twice.
    is_read_little: bool,
    packed: &'s mut [T],
    /// The rows whose columns are packed, so many together.
    ready: Range<usize>,
    height: usize,
}

impl<'s, T: Float> LeftSide<'s, T> {
    #[inline(always)]
    pub(super) fn new(a: MatRef<'s, T>, is_read_little: bool, packed: &'s mut [T]) -> Self {
        Self { a, is_read_little, packed, ready: 0..0, height: 0 }
    }

    /// Elements that [`new`](Self::new) needs room for.
    #[inline(always)]
    pub(super) fn packed_len<const ROWS: usize>(a: MatRef<'_, T>, depth: usize, is_read_little: bool) -> usize {
        if a.row(0).is_some() && is_read_little {
            0
        } else if has_columns(a) {
            GROUP * ROWS * depth
        } else {
            ROWS * depth
        }
    }

    /// The rows from one on.
    #[inline(always)]
    pub(super) fn band<const ROWS: usize>(&mut self, row: usize) -> Left<'_, T, ROWS> {
        let (a, depth) = (self.a, self.a.cols());
        let band = a.window(row..a.rows().min(row + ROWS), 0..depth);
        // Rows that begin at the same place in their pages compete for the same places in the L1 cache.
        let competes = bytes::<T>(a.row_stride()).is_multiple_of(PAGE);
        if a.row(0).is_some() && (self.is_read_little || !competes) {
            return Left::Rows(direct_rows(band));
        }
        if !has_columns(a) {
            return Left::Rows(pack_rows::<T, ROWS>(band, self.packed));
        }
        let (columns, stride) = (band.tail(0, 0), a.col_stride());
        if is_near::<T>(stride, depth) && columns.len() >= (depth - 1) * stride + ROWS {
            return Left::Columns(columns, stride);
        }
        if self.height != ROWS || !self.ready.contains(&row) {
            // Columns in the same page need no company.
            let group = if bytes::<T>(stride) < PAGE { 1 } else { GROUP };
            self.height = ROWS;
            self.ready = row..a.rows().min(row + group * ROWS);
            pack_columns::<T, ROWS>(a.window(self.ready.clone(), 0..depth), self.packed);
        }
        Left::Columns(&self.packed[(row - self.ready.start) * depth..], ROWS)
    }
}

/// Whether so few columns of B are multiplied that it does not pay to copy rows of A.
#[inline(always)]
pub(super) fn reads_little<T: Float, const BLOCKS: usize>(cols: usize) -> bool {
    cols <= DIRECT_PANELS * BLOCKS * T::LANES
}

/// Whether columns that begin so far from each other can be read where they are: they do not compete for the same places
/// in the L1 cache, and for the pages of memory at hand.
#[inline(always)]
fn is_near<T>(stride: usize, depth: usize) -> bool {
    bytes::<T>(stride) < PAGE / 2 && stride * depth <= NEAR
}

/// Whether columns are contiguous and apart from each other.
fn has_columns<T>(a: MatRef<'_, T>) -> bool {
    a.t().row(0).is_some() && a.col_stride() >= a.rows()
}

/// The rows of a part of A, the last of them again and again where `ROWS` is more than it has.
#[inline(always)]
fn direct_rows<'a, T: Float, const ROWS: usize>(a: MatRef<'a, T>) -> [&'a [T]; ROWS] {
    let mut rest = a.tail(0, 0);
    let mut rows: [&[T]; ROWS] = [&rest[..a.cols()]; ROWS];
    for (i, row) in rows.iter_mut().enumerate().skip(1) {
        if i < a.rows() {
            rest = &rest[a.row_stride()..];
        }
        *row = &rest[..a.cols()];
    }
    rows
}
