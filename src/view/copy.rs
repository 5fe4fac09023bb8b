//! Copies of matrices: rows that are not contiguous are copied, several at once, to be worked on as rows that are.

use alloc::vec::Vec;

use super::{Layout, MatMut, MatRef};
use crate::float::Float;
use crate::gemm::{keep_lists, take_lists};
use crate::kernel::{Kernel, launch};
use crate::simd::Simd;

/// The bytes that a copy takes at most, unless one row takes more.
const MOST: usize = 1 << 20;

/// The bytes of a cache line.
const LINE: usize = 64;

/// How many rows of so many columns are copied together: whole squares of them, and of short rows what stays near the
/// processor; of long rows, of which less than a square fits, one.
pub(crate) fn rows_together<T: Float>(cols: usize) -> usize {
    const NEAR: usize = 1 << 14;
    let rows = |bytes: usize| bytes / size_of::<T>() / row_stride::<T>(cols);
    if rows(MOST) < T::LANES { 1 } else { (rows(NEAR) / T::LANES).max(1) * T::LANES }
}

/// How far apart the rows of a copy are: not by a multiple of a large power of two, of which a cache holds few.
fn row_stride<T: Float>(cols: usize) -> usize {
    if cols < T::LANES { cols.max(1) } else { (cols.div_ceil(T::LANES) | 1) * T::LANES }
}

/// A matrix in memory of its own, to copy rows to.
#[derive(Debug, Default)]
pub(crate) struct Copies<T> {
    data: Vec<T>,
    /// Where the matrix begins: with a cache line.
    start: usize,
    layout: Layout,
}

impl<T: Float> Copies<T> {
    /// Some of them, in memory that the thread keeps.
    pub(crate) fn take() -> [Self; 4] {
        take_lists().map(|data| Self { data, start: 0, layout: Layout::default() })
    }

    /// Gives them back, but for those of long rows.
    pub(crate) fn keep(copies: [Self; 4]) {
        let is_usual = |data: &Vec<T>| size_of_val(&data[..]) <= MOST + LINE;
        keep_lists(copies.map(|Self { data, .. }| if is_usual(&data) { data } else { Vec::new() }));
    }

    /// The matrix with another shape.
    pub(crate) fn shaped(&mut self, rows: usize, cols: usize) -> MatMut<'_, T> {
        self.layout = Layout { rows, cols, row_stride: row_stride::<T>(cols), col_stride: 1 };
        let len = rows * self.layout.row_stride;
        let most = len + LINE / size_of::<T>();
        if self.data.len() < most {
            self.data.resize(most, T::zero());
        }
        self.start = self.data.as_ptr().align_offset(LINE).min(most - len);
        MatMut { data: &mut self.data[self.start..], layout: self.layout }
    }

    /// Makes the matrix a copy of another one.
    pub(crate) fn copy(&mut self, x: MatRef<'_, T>) -> MatMut<'_, T> {
        let mut copy = self.shaped(x.rows(), x.cols());
        copy.copy_from(x);
        copy
    }

    /// A matrix as it is, if its rows are contiguous, or its copy.
    pub(crate) fn contiguous<'a>(&'a mut self, x: MatRef<'a, T>) -> MatRef<'a, T> {
        if x.rows() == 0 || x.row(0).is_some() {
            return x;
        }
        self.copy(x);
        self.as_ref()
    }

    pub(crate) fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: &self.data[self.start..], layout: self.layout }
    }
}

impl<T: Float> MatMut<'_, T> {
    /// Makes each element that of another matrix of the same shape.
    pub(crate) fn copy_from(&mut self, x: MatRef<'_, T>) {
        let mut y = self.reborrow();
        if x.layout.col_stride == 1 && y.layout.col_stride == 1 {
            for i in 0..x.rows_with_elements() {
                y.tail_mut(i, 0)[..x.cols()].copy_from_slice(&x.tail(i, 0)[..x.cols()]);
            }
        } else if launch(CopyMatrix { x, y: y.reborrow() }).is_err() {
            copy_elements(x, y); // an instruction set was asked for that is not there
        }
    }
}

/// Makes each element of `y` that of `x`.
#[derive(Debug)]
pub struct CopyMatrix<'a, T> {
    x: MatRef<'a, T>,
    y: MatMut<'a, T>,
}

impl<T: Float> Kernel for CopyMatrix<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { x, y } = if self.y.layout.col_stride == 1 { self } else { Self { x: self.x.t(), y: self.y.t() } };
        if x.area() == 0 {
            return; // there may be any number of rows or columns
        }
        let has_lines = x.layout.row_stride == 1 && y.layout.col_stride == 1;
        if has_lines && x.rows().min(x.cols()) >= T::LANES {
            copy_squares(simd, x, y);
        } else {
            copy_elements(x, y);
        }
    }
}

/// Copies columns that are contiguous to rows that are, in squares through registers. The last ones overlap others.
#[inline(always)]
fn copy_squares<T: Float, S: Simd<T>>(simd: S, x: MatRef<'_, T>, mut y: MatMut<'_, T>) {
    let starts = |len: usize| (0..len).step_by(T::LANES).map(move |start| start.min(len - T::LANES));
    for j in starts(x.cols()) {
        for i in starts(x.rows()) {
            let (lines, stride) = y.lines_mut(i, j);
            simd.transpose(
                x.tail(i, j),
                x.layout.col_stride,
                T::LANES,
                #[inline(always)]
                |k, line| {
                    for block in T::blocks_mut(&mut lines[k * stride..][..T::LANES]).0 {
                        *block = simd.store(line);
                    }
                },
            );
        }
    }
}

/// Copies row by row, or column by column: few long lines. Some of the elements of all of them are copied together: they
/// share cache lines.
#[inline(always)]
fn copy_elements<T: Float>(x: MatRef<'_, T>, y: MatMut<'_, T>) {
    const TOGETHER: usize = 256;
    let (x, mut y) = if x.rows() <= x.cols() { (x, y) } else { (x.t(), y.t()) };
    let stride = y.layout.col_stride.max(1); // of a single column it may be 0
    for j in (0..x.cols()).step_by(TOGETHER) {
        for i in 0..x.rows() {
            let line = x.window(i..i + 1, j..x.cols().min(j + TOGETHER)).row_iter(0);
            let places = y.tail_mut(i, j);
            if stride == 1 {
                places.iter_mut().zip(line).for_each(|(y, &x)| *y = x);
            } else {
                places.iter_mut().step_by(stride).zip(line).for_each(|(y, &x)| *y = x);
            }
        }
    }
}
