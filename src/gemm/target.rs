//! [`Target`]: a matrix that a product is written to, whose rows are contiguous.

use alloc::vec::Vec;
use core::ops::Range;

use crate::view::MatMut;

/// A matrix whose rows are contiguous, and that can be cut by rows and by columns.
#[derive(Debug)]
pub(crate) enum Target<'a, T> {
    Matrix(MatMut<'a, T>),
    /// Parts of rows: what a cut by columns leaves.
    Rows(Vec<&'a mut [T]>),
}

impl<'a, T> Target<'a, T> {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Matrix(c) => c.rows(),
            Self::Rows(rows) => rows.len(),
        }
    }

    pub(crate) fn cols(&self) -> usize {
        match self {
            Self::Matrix(c) => c.cols(),
            Self::Rows(rows) => rows.first().map_or(0, |row| row.len()),
        }
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [T] {
        match self {
            Self::Matrix(c) => c.row_mut(i).unwrap_or_default(),
            Self::Rows(rows) => rows[i],
        }
    }

    /// These rows, `N` at the most; empty ones past them.
    #[inline(always)]
    pub(super) fn rows_mut<const N: usize>(&mut self, rows: Range<usize>) -> [&mut [T]; N] {
        let mut slices: [&mut [T]; N] = core::array::from_fn(
            #[inline(always)]
            |_| Default::default(),
        );
        match self {
            Self::Matrix(c) => c.take_rows(rows, &mut slices),
            Self::Rows(list) => slices.iter_mut().zip(&mut list[rows]).for_each(|(slice, row)| *slice = row),
        }
        slices
    }

    /// The columns before `at` and those from it on.
    pub(super) fn split_cols(self, at: usize) -> (Self, Self) {
        let rows = match self {
            Self::Matrix(c) => c.into_rows(),
            Self::Rows(rows) => rows,
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
            Self::Rows(rows) if rows.len() < 2 => Err(Self::Rows(rows)),
            Self::Rows(mut rows) => {
                let lower = rows.split_off(rows.len() / 2);
                Ok((Self::Rows(rows), Self::Rows(lower)))
            }
        }
    }
}
