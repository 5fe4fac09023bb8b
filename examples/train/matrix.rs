//! [`Matrix`]: owned rows of numbers, which the kernels see through views.

use nanproof::{MatMut, MatRef};

/// `rows x cols` numbers, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<f32>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub(crate) fn zeros_like(other: &Self) -> Self {
        Self::zeros(other.rows, other.cols)
    }

    /// A matrix whose rows are all the same.
    pub(crate) fn repeated(row: &[f32], rows: usize) -> Self {
        Self { rows, cols: row.len(), data: row.repeat(rows) }
    }

    /// The rows of these numbers.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        Self { rows: rows.len(), cols: self.cols, data: rows.iter().flat_map(|&i| self.row(i)).copied().collect() }
    }

    pub(crate) fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..][..self.cols]
    }

    pub(crate) fn view(&self) -> MatRef<'_, f32> {
        MatRef::new(&self.data, self.rows, self.cols).expect("the data are rows x cols long")
    }

    pub(crate) fn view_mut(&mut self) -> MatMut<'_, f32> {
        MatMut::new(&mut self.data, self.rows, self.cols).expect("the data are rows x cols long")
    }
}
