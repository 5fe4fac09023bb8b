//! [`MatRef`] and [`MatMut`]: matrices over slices, with any strides, without `unsafe`.

use alloc::vec::Vec;
use core::ops::Range;

mod batch;
mod copy;

pub use batch::{BatchMut, BatchRef};
pub(crate) use copy::{Copies, CopyMatrix, rows_together};

use crate::error::{Error, Result, Shape};

/// A matrix that is read: a slice with a shape and strides. Transposing and cutting it are free.
///
/// ```
/// use nanproof::MatRef;
///
/// let data = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let a = MatRef::new(&data, 2, 3)?; // row by row
/// assert_eq!(a.get(0, 2), Some(3.0));
/// assert_eq!(a.t().get(2, 0), Some(3.0));
/// assert_eq!(a.submatrix(0..2, 1..3)?.get(1, 0), Some(5.0));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    layout: Layout,
}

/// A matrix that is written: a mutable slice with a shape and strides, no two elements in one place.
///
/// ```
/// use nanproof::MatMut;
///
/// let mut data = [0.0_f64; 6];
/// let mut c = MatMut::new(&mut data, 2, 3)?;
/// let (top, mut bottom) = c.reborrow().split_rows(1)?;
/// assert_eq!((top.rows(), bottom.rows()), (1, 1));
/// bottom.row_mut(0).unwrap().fill(7.0);
/// assert_eq!(data, [0.0, 0.0, 0.0, 7.0, 7.0, 7.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

/// Element `(i, j)` lies at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn is_empty(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    /// The length of the slice that the matrix needs; `None` if it does not fit a `usize`.
    #[inline]
    fn span(self) -> Option<usize> {
        if self.is_empty() {
            return Some(0);
        }
        // A stride of 0 takes no memory: still no more elements than a slice could have.
        self.rows.checked_mul(self.cols).filter(|&area| area <= isize::MAX as usize / 8)?;
        let rows = (self.rows - 1).checked_mul(self.row_stride)?;
        let cols = (self.cols - 1).checked_mul(self.col_stride)?;
        rows.checked_add(cols)?.checked_add(1)
    }

    /// Whether every element has a place of its own, as seen from the strides: one of them steps over the other's line.
    fn is_disjoint(self) -> bool {
        let steps_over = |outer: usize, inner: usize, len: usize| {
            inner > 0 && (len - 1).checked_mul(inner).is_some_and(|line| outer > line)
        };
        match (self.rows, self.cols) {
            (0, _) | (_, 0) | (1, 1) => true,
            (1, _) => self.col_stride > 0,
            (_, 1) => self.row_stride > 0,
            (rows, cols) => {
                steps_over(self.row_stride, self.col_stride, cols) || steps_over(self.col_stride, self.row_stride, rows)
            }
        }
    }

    fn offset(self, i: usize, j: usize) -> Option<usize> {
        (i < self.rows && j < self.cols).then(|| i * self.row_stride + j * self.col_stride)
    }

    /// The layout of a part and where it begins.
    fn part(self, rows: Range<usize>, cols: Range<usize>) -> Result<(usize, Self)> {
        let inside = |range: &Range<usize>, len| range.start <= range.end && range.end <= len;
        if !inside(&rows, self.rows) || !inside(&cols, self.cols) {
            return Err(Error::Shape {
                operation: "submatrix",
                operand: "the end of the range",
                found: Shape::Matrix(rows.end, cols.end),
                expected: Shape::Matrix(self.rows, self.cols),
                reason: "the shape of the matrix, or less, and not before its start",
            });
        }
        let part = Self { rows: rows.len(), cols: cols.len(), ..self };
        let start = if part.is_empty() { 0 } else { rows.start * self.row_stride + cols.start * self.col_stride };
        Ok((start, part))
    }

    /// The rows before `at`, where the others begin, and those.
    fn split(self, at: usize) -> (Self, usize, Self) {
        let (above, below) = (Self { rows: at, ..self }, Self { rows: self.rows - at, ..self });
        (above, if below.is_empty() { 0 } else { at * self.row_stride }, below)
    }

    /// Whether the rows before `at` reach into the memory of the others.
    fn interleaves(self, at: usize) -> bool {
        let (above, start, below) = self.split(at);
        !above.is_empty() && !below.is_empty() && above.span().is_none_or(|span| span > start)
    }

    #[inline]
    fn check(self, len: usize, exact: bool) -> Result<Self> {
        match self.span() {
            Some(span) if if exact { len == span } else { len >= span } => Ok(self),
            span => Err(Self::refuse(len, span, exact)),
        }
    }

    #[cold]
    fn refuse(len: usize, span: Option<usize>, exact: bool) -> Error {
        Error::Shape {
            operation: "matrix view",
            operand: "the slice",
            found: Shape::Vector(len),
            expected: Shape::Vector(span.unwrap_or(usize::MAX)),
            reason: if exact { "rows times columns" } else { "or more, to reach its last element" },
        }
    }

    fn row_major(rows: usize, cols: usize) -> Self {
        Self { rows, cols, row_stride: cols, col_stride: 1 }
    }
}

impl<T> Clone for MatRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MatRef<'_, T> {}

impl<'a, T> MatRef<'a, T> {
    /// A matrix stored row by row; the slice holds `rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// assert!(nanproof::MatRef::new(&[1.0_f32, 2.0, 3.0], 2, 2).is_err());
    /// ```
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { data, layout: Layout::row_major(rows, cols).check(data.len(), true)? })
    }

    /// A matrix stored column by column; the slice holds `rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// let a = nanproof::MatRef::column_major(&[1.0_f32, 2.0, 3.0, 4.0], 2, 2)?;
    /// assert_eq!(a.get(0, 1), Some(3.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn column_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::new(data, cols, rows).map(Self::t)
    }

    /// A matrix whose element `(i, j)` is `data[i * row_stride + j * col_stride]`. A stride of 0 repeats a row or a
    /// column.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last element lies past the slice.
    ///
    /// ```
    /// let row = nanproof::MatRef::with_strides(&[1.0_f32, 2.0], 3, 2, 0, 1)?;
    /// assert_eq!(row.get(2, 1), Some(2.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn with_strides(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Result<Self> {
        Ok(Self { data, layout: Layout { rows, cols, row_stride, col_stride }.check(data.len(), false)? })
    }

    /// The number of rows.
    ///
    /// ```
    /// assert_eq!(nanproof::MatRef::new(&[0.0_f32; 6], 2, 3)?.rows(), 2);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn rows(self) -> usize {
        self.layout.rows
    }

    /// The number of columns.
    ///
    /// ```
    /// assert_eq!(nanproof::MatRef::new(&[0.0_f32; 6], 2, 3)?.cols(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn cols(self) -> usize {
        self.layout.cols
    }

    /// How far apart two rows are.
    ///
    /// ```
    /// assert_eq!(nanproof::MatRef::new(&[0.0_f32; 6], 2, 3)?.row_stride(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn row_stride(self) -> usize {
        self.layout.row_stride
    }

    /// How far apart two columns are.
    ///
    /// ```
    /// assert_eq!(nanproof::MatRef::new(&[0.0_f32; 6], 2, 3)?.col_stride(), 1);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn col_stride(self) -> usize {
        self.layout.col_stride
    }

    /// The transpose, without moving anything.
    ///
    /// ```
    /// let a = nanproof::MatRef::new(&[1.0_f32, 2.0, 3.0], 1, 3)?;
    /// assert_eq!(a.t().rows(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn t(self) -> Self {
        Self { data: self.data, layout: self.layout.t() }
    }

    /// The part in these rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if a range ends outside the matrix or before it starts.
    ///
    /// ```
    /// let a = nanproof::MatRef::new(&[1.0_f32, 2.0, 3.0, 4.0], 2, 2)?;
    /// assert_eq!(a.submatrix(1..2, 0..2)?.row(0), Some(&[3.0_f32, 4.0][..]));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn submatrix(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self> {
        let (start, layout) = self.layout.part(rows, cols)?;
        Ok(Self { data: &self.data[start..], layout })
    }

    /// A row whose elements are neighbours in memory; `None` if they are not, or past the last row.
    ///
    /// ```
    /// let a = nanproof::MatRef::new(&[1.0_f32, 2.0, 3.0, 4.0], 2, 2)?;
    /// assert_eq!(a.row(1), Some(&[3.0_f32, 4.0][..]));
    /// assert_eq!(a.t().row(1), None);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn row(self, i: usize) -> Option<&'a [T]> {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        if i >= rows || (col_stride != 1 && cols > 1) {
            None
        } else if cols == 0 {
            Some(&[])
        } else {
            self.data.get(i * row_stride..i * row_stride + cols)
        }
    }

    /// Whether the elements of each row are neighbours in memory, and each row follows the one before at once.
    #[inline(always)]
    pub(crate) fn is_gapless(self) -> bool {
        self.layout.col_stride == 1 && self.layout.row_stride == self.layout.cols
    }

    /// Whether the elements of each row are neighbours in memory, and one row lies behind the other.
    pub(crate) fn has_rows_in_order(self) -> bool {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        (col_stride == 1 || cols <= 1) && (row_stride >= cols || rows <= 1)
    }

    /// Those of the rows, which lie in order, that there are.
    #[inline(always)]
    pub(crate) fn rows_in(self, rows: Range<usize>) -> impl Iterator<Item = &'a [T]> {
        let Layout { cols, row_stride, .. } = self.layout;
        let lines = self.data.get(rows.start * row_stride..).unwrap_or(&[]).chunks(row_stride.max(cols).max(1));
        lines.take(rows.len().min(self.layout.rows.saturating_sub(rows.start))).map(
            #[inline(always)]
            move |line| &line[..cols],
        )
    }

    /// The rows before `at`.
    pub(crate) fn rows_before(self, at: usize) -> Self {
        Self { layout: self.layout.split(at).0, ..self }
    }

    /// The rows from `at` on.
    pub(crate) fn rows_from(self, at: usize) -> Self {
        let (_, start, layout) = self.layout.split(at);
        Self { data: &self.data[start..], layout }
    }

    /// Some of the rows.
    pub(crate) fn rows_of(self, rows: Range<usize>) -> Self {
        self.rows_before(rows.end).rows_from(rows.start)
    }

    /// [`submatrix`](Self::submatrix) for ranges known to lie inside and not to be empty.
    #[inline]
    pub(crate) fn window(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        let Layout { row_stride, col_stride, .. } = self.layout;
        debug_assert!(
            rows.end <= self.layout.rows && cols.end <= self.layout.cols && !rows.is_empty() && !cols.is_empty()
        );
        let data = &self.data[rows.start * row_stride + cols.start * col_stride..];
        Self { data, layout: Layout { rows: rows.len(), cols: cols.len(), row_stride, col_stride } }
    }

    pub(crate) fn shape(self) -> Shape {
        Shape::Matrix(self.layout.rows, self.layout.cols)
    }

    /// The memory from an element on.
    #[inline(always)]
    pub(crate) fn tail(self, i: usize, j: usize) -> &'a [T] {
        &self.data[i * self.layout.row_stride + j * self.layout.col_stride..]
    }

    /// The number of elements.
    pub(crate) fn area(self) -> usize {
        self.layout.rows.saturating_mul(self.layout.cols)
    }

    /// A copy, row by row.
    pub(crate) fn to_vec(self) -> Vec<T>
    where
        T: Copy,
    {
        let mut copy = Vec::new();
        self.map_into(&mut copy, |x| x);
        copy
    }

    /// The rows to go through, if one wants to: those without elements need no memory, there may be any number of them.
    fn rows_with_elements(self) -> usize {
        if self.cols() == 0 { 0 } else { self.rows() }
    }

    /// Fills a list with what `f` makes of the elements, row by row.
    pub(crate) fn map_into<U>(self, list: &mut Vec<U>, f: impl Fn(T) -> U)
    where
        T: Copy,
    {
        list.clear();
        list.reserve(self.area());
        for i in 0..self.rows_with_elements() {
            match self.row(i) {
                Some(row) => list.extend(row.iter().map(|&x| f(x))),
                None => list.extend(self.row_iter(i).map(|&x| f(x))),
            }
        }
    }

    /// The elements of row `i`, from left to right.
    #[inline]
    pub(crate) fn row_iter(self, i: usize) -> impl Iterator<Item = &'a T> {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        debug_assert!(i < rows);
        let start = if cols == 0 { 0 } else { i * row_stride };
        (0..cols).map(move |j| &self.data[start + j * col_stride])
    }
}

// Rows are most often contiguous, and then the compiler makes these loops over vectors.
impl<T: Copy> MatRef<'_, T> {
    /// Makes `copy` the elements of row `i`.
    pub(crate) fn copy_row(self, i: usize, copy: &mut Vec<T>) {
        copy.clear();
        match self.row(i) {
            Some(row) => copy.extend_from_slice(row),
            None => copy.extend(self.row_iter(i)),
        }
    }

    /// Calls `f` with each element of `with` and that of row `i` beside it.
    #[inline(always)]
    pub(crate) fn zip_row<U>(self, i: usize, with: &mut [U], f: impl Fn(&mut U, T)) {
        match self.row(i) {
            Some(row) => with.iter_mut().zip(row).for_each(|(with, &x)| f(with, x)),
            None => with.iter_mut().zip(self.row_iter(i)).for_each(|(with, &x)| f(with, x)),
        }
    }

    /// Whether `f` holds for all elements of row `i`. There is no early end.
    pub(crate) fn all_of_row(self, i: usize, f: impl Fn(T) -> bool) -> bool {
        match self.row(i) {
            Some(row) => row.iter().fold(true, |all, &x| all & f(x)),
            None => self.row_iter(i).fold(true, |all, &x| all & f(x)),
        }
    }

    /// An element; `None` outside.
    ///
    /// ```
    /// assert_eq!(nanproof::MatRef::new(&[1.0_f32], 1, 1)?.get(0, 1), None);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn get(self, i: usize, j: usize) -> Option<T> {
        self.layout.offset(i, j).map(|at| self.data[at])
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A matrix stored row by row; the slice holds `rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// assert!(nanproof::MatMut::new(&mut [1.0_f32, 2.0, 3.0], 2, 2).is_err());
    /// ```
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        let layout = Layout::row_major(rows, cols).check(data.len(), true)?;
        Ok(Self { data, layout })
    }

    /// A matrix stored column by column; the slice holds `rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// let mut data = [1.0_f32, 2.0, 3.0, 4.0];
    /// assert_eq!(nanproof::MatMut::column_major(&mut data, 2, 2)?.as_ref().get(0, 1), Some(3.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn column_major(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::new(data, cols, rows).map(Self::t)
    }

    /// A matrix whose element `(i, j)` is `data[i * row_stride + j * col_stride]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last element lies past the slice, [`Error::Argument`] if two elements could lie in one
    /// place: one stride must be longer than the other's whole line.
    ///
    /// ```
    /// use nanproof::{Error, MatMut};
    ///
    /// let mut data = [0.0_f32; 8];
    /// assert!(MatMut::with_strides(&mut data, 2, 3, 4, 1).is_ok());
    /// assert!(matches!(MatMut::with_strides(&mut data, 2, 3, 0, 1), Err(Error::Argument { .. })));
    /// ```
    pub fn with_strides(
        data: &'a mut [T],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self> {
        let layout = Layout { rows, cols, row_stride, col_stride }.check(data.len(), false)?;
        if !layout.is_disjoint() {
            return Err(Error::Argument {
                operation: "matrix view",
                argument: "strides",
                problem: "would put two elements in one place",
            });
        }
        Ok(Self { data, layout })
    }

    /// The number of rows.
    ///
    /// ```
    /// assert_eq!(nanproof::MatMut::new(&mut [0.0_f32; 6], 2, 3)?.rows(), 2);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// The number of columns.
    ///
    /// ```
    /// assert_eq!(nanproof::MatMut::new(&mut [0.0_f32; 6], 2, 3)?.cols(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// The transpose, without moving anything.
    ///
    /// ```
    /// assert_eq!(nanproof::MatMut::new(&mut [1.0_f32, 2.0, 3.0], 1, 3)?.t().rows(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn t(self) -> Self {
        Self { layout: self.layout.t(), data: self.data }
    }

    /// The same matrix to read.
    ///
    /// ```
    /// assert_eq!(nanproof::MatMut::new(&mut [1.0_f32], 1, 1)?.as_ref().get(0, 0), Some(1.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: self.data, layout: self.layout }
    }

    /// The same matrix, lent for a shorter time.
    ///
    /// ```
    /// let mut data = [1.0_f32];
    /// let mut c = nanproof::MatMut::new(&mut data, 1, 1)?;
    /// c.reborrow().row_mut(0).unwrap()[0] = 2.0;
    /// assert_eq!(c.as_ref().get(0, 0), Some(2.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, layout: self.layout }
    }

    /// The part in these rows and columns.
    ///
    /// # Errors
    /// [`Error::Shape`] if a range ends outside the matrix or before it starts.
    ///
    /// ```
    /// let mut data = [0.0_f32; 4];
    /// nanproof::MatMut::new(&mut data, 2, 2)?.submatrix(1..2, 0..2)?.row_mut(0).unwrap().fill(1.0);
    /// assert_eq!(data, [0.0, 0.0, 1.0, 1.0]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn submatrix(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self> {
        let (start, layout) = self.layout.part(rows, cols)?;
        Ok(Self { data: &mut self.data[start..], layout })
    }

    /// Row `i`, if its elements are neighbours in memory; `None` if they are not, or past the last row.
    ///
    /// ```
    /// let mut data = [0.0_f32; 4];
    /// nanproof::MatMut::new(&mut data, 2, 2)?.row_mut(0).unwrap().fill(1.0);
    /// assert_eq!(data, [1.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn row_mut(&mut self, i: usize) -> Option<&mut [T]> {
        let Layout { rows, cols, row_stride, col_stride } = self.layout;
        if i >= rows || (col_stride != 1 && cols > 1) {
            None
        } else if cols == 0 {
            Some(&mut [])
        } else {
            self.data.get_mut(i * row_stride..i * row_stride + cols)
        }
    }

    /// An element to write; `None` outside.
    ///
    /// ```
    /// let mut data = [0.0_f32; 4];
    /// *nanproof::MatMut::new(&mut data, 2, 2)?.get_mut(1, 0).unwrap() = 1.0;
    /// assert_eq!(data, [0.0, 0.0, 1.0, 0.0]);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, i: usize, j: usize) -> Option<&mut T> {
        self.layout.offset(i, j).map(|at| &mut self.data[at])
    }

    /// The rows before `at` and those from it on.
    ///
    /// # Errors
    /// [`Error::Shape`] if `at` lies past the last row; [`Error::Argument`] if the rows interleave in memory, as those
    /// of a matrix stored by columns do.
    ///
    /// ```
    /// let mut data = [0.0_f32; 6];
    /// let (top, bottom) = nanproof::MatMut::new(&mut data, 3, 2)?.split_rows(1)?;
    /// assert_eq!((top.rows(), bottom.rows()), (1, 2));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn split_rows(self, at: usize) -> Result<(Self, Self)> {
        self.layout.part(at..self.layout.rows.max(at), 0..self.layout.cols)?;
        if self.layout.interleaves(at) {
            return Err(Error::Argument {
                operation: "split_rows",
                argument: "the matrix",
                problem: "has rows that interleave in memory; split the columns of its transpose",
            });
        }
        Ok(self.split(at))
    }

    pub(crate) fn shape(&self) -> Shape {
        self.as_ref().shape()
    }

    /// Some of the rows.
    pub(crate) fn rows_of(&mut self, rows: Range<usize>) -> MatMut<'_, T> {
        let (_, start, below) = self.layout.split(rows.start);
        MatMut { data: &mut self.data[start..], layout: Layout { rows: rows.len(), ..below } }
    }

    /// Writes a row.
    pub(crate) fn write_row(&mut self, i: usize, row: &[T])
    where
        T: Copy,
    {
        for (j, &x) in row.iter().enumerate() {
            if let Some(place) = self.get_mut(i, j) {
                *place = x;
            }
        }
    }

    /// Calls `f` with row, column and place of each element, row by row.
    pub(crate) fn each_mut(&mut self, mut f: impl FnMut(usize, usize, &mut T)) {
        for i in 0..self.as_ref().rows_with_elements() {
            for j in 0..self.cols() {
                if let Some(x) = self.get_mut(i, j) {
                    f(i, j, x);
                }
            }
        }
    }

    /// The memory from an element on, and how far from each other rows begin in it.
    #[inline(always)]
    pub(crate) fn lines_mut(&mut self, i: usize, j: usize) -> (&mut [T], usize) {
        let stride = self.layout.row_stride;
        (self.tail_mut(i, j), stride)
    }

    /// The memory from an element on.
    #[inline(always)]
    pub(crate) fn tail_mut(&mut self, i: usize, j: usize) -> &mut [T] {
        &mut self.data[i * self.layout.row_stride + j * self.layout.col_stride..]
    }

    /// Some of the rows, which are contiguous.
    #[inline(always)]
    pub(crate) fn rows_mut(&mut self, rows: Range<usize>) -> impl Iterator<Item = &mut [T]> {
        let Layout { cols, row_stride, .. } = self.layout;
        let lines = self.data[rows.start * row_stride..].chunks_mut(row_stride.max(cols));
        lines.take(rows.len()).map(
            #[inline(always)]
            move |line| &mut line[..cols],
        )
    }

    /// The rows, which are contiguous.
    pub(crate) fn into_rows(self) -> Vec<&'a mut [T]> {
        let Layout { rows, cols, row_stride, .. } = self.layout;
        self.data.chunks_mut(row_stride.max(cols).max(1)).take(rows).map(|row| &mut row[..cols]).collect()
    }

    /// Two halves by rows, or the whole again if there are not two, or they interleave.
    pub(crate) fn halve_rows(self) -> Result<(Self, Self), Self> {
        let half = self.layout.rows / 2;
        self.cut_rows(half)
    }

    /// The rows before `at` and those from it on, or the whole again if there are none before, or they interleave.
    pub(crate) fn cut_rows(self, at: usize) -> Result<(Self, Self), Self> {
        if at == 0 || self.layout.interleaves(at) { Err(self) } else { Ok(self.split(at)) }
    }

    /// The rows before `at` and those from it on, which do not interleave.
    pub(crate) fn split(self, at: usize) -> (Self, Self) {
        let (above, start, below) = self.layout.split(at);
        let (first, second) = if below.is_empty() { (self.data, &mut [][..]) } else { self.data.split_at_mut(start) };
        (Self { data: first, layout: above }, Self { data: second, layout: below })
    }
}
