//! [`Target`]: a matrix that a product is written to, whose rows or columns are contiguous.

use alloc::vec::Vec;
use core::ops::Range;

use crate::view::MatMut;

/// A matrix that can be cut by rows and by columns.
#[derive(Debug)]
pub(crate) enum Target<'a, T> {
    /// Its rows are contiguous.
    Matrix(MatMut<'a, T>),
    /// Parts of rows: what a cut by columns leaves.
    Rows(Vec<&'a mut [T]>),
    /// Its columns are contiguous: they are the rows of this matrix. It has few rows, and is not cut by them.
    Columns(MatMut<'a, T>),
}

impl<'a, T> Target<'a, T> {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Matrix(c) => c.rows(),
            Self::Rows(rows) => rows.len(),
            Self::Columns(lines) => lines.cols(),
        }
    }

    pub(crate) fn cols(&self) -> usize {
        match self {
            Self::Matrix(c) => c.cols(),
            Self::Rows(rows) => rows.first().map_or(0, |row| row.len()),
            Self::Columns(lines) => lines.rows(),
        }
    }

    /// Whether its rows are contiguous.
    #[inline(always)]
    pub(super) fn has_rows(&self) -> bool {
        !matches!(self, Self::Columns(_))
    }

    /// Whether its rows are contiguous and follow each other at once.
    #[inline(always)]
    pub(super) fn is_gapless(&self) -> bool {
        matches!(self, Self::Matrix(c) if c.as_ref().is_gapless())
    }

    /// The memory from an element on; it is empty where rows are not contiguous.
    #[inline(always)]
    pub(super) fn tail_mut(&mut self, row: usize, col: usize) -> &mut [T] {
        match self {
            Self::Matrix(c) => c.tail_mut(row, col),
            Self::Rows(rows) => &mut rows[row][col..],
            Self::Columns(_) => &mut [],
        }
    }

    /// Calls `f` with the memory of `ROWS` rows from a column on, one row after the other; not where rows are not
    /// contiguous.
    #[inline(always)]
    pub(super) fn each_line<const ROWS: usize>(&mut self, row: usize, col: usize, mut f: impl FnMut(usize, &mut [T])) {
        match self {
            Self::Matrix(c) => {
                let (lines, stride) = c.lines_mut(row, col);
                for i in 0..ROWS {
                    if let Some(line) = lines.get_mut(i * stride..) {
                        f(i, line);
                    }
                }
            }
            Self::Rows(rows) => {
                for (i, line) in rows[row..row + ROWS].iter_mut().enumerate() {
                    if let Some(line) = line.get_mut(col..) {
                        f(i, line);
                    }
                }
            }
            Self::Columns(_) => {}
        }
    }

    /// Calls `f` with all that lies in these columns, in parts that are contiguous.
    #[inline(always)]
    pub(super) fn each_part(&mut self, cols: Range<usize>, mut f: impl FnMut(&mut [T])) {
        let lines = if self.has_rows() { 0..self.rows() } else { cols.clone() };
        for i in lines {
            f(match &mut *self {
                Self::Columns(lines) => lines.row_mut(i).unwrap_or_default(),
                rows => &mut rows.tail_mut(i, cols.start)[..cols.len()],
            });
        }
    }

    /// The columns before `at` and those from it on.
    pub(super) fn split_cols(self, at: usize) -> (Self, Self) {
        let rows = match self {
            Self::Matrix(c) => c.into_rows(),
            Self::Rows(rows) => rows,
            Self::Columns(lines) => {
                let (left, right) = lines.split(at);
                return (Self::Columns(left), Self::Columns(right));
            }
        };
        let (left, right) = rows.into_iter().map(|row| row.split_at_mut(at)).unzip();
        (Self::Rows(left), Self::Rows(right))
    }

    /// Two halves by rows, or the whole again if it has but one.
    pub(super) fn halve_rows(self) -> Result<(Self, Self), Self> {
        match self {
            Self::Matrix(c) => match c.halve_rows() {
                Ok((upper, lower)) => Ok((Self::Matrix(upper), Self::Matrix(lower))),
                Err(c) => Err(Self::Matrix(c)),
            },
            Self::Columns(lines) => Err(Self::Columns(lines)),
            Self::Rows(rows) if rows.len() < 2 => Err(Self::Rows(rows)),
            Self::Rows(mut rows) => {
                let lower = rows.split_off(rows.len() / 2);
                Ok((Self::Rows(rows), Self::Rows(lower)))
            }
        }
    }
}
