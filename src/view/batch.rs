//! [`BatchRef`] and [`BatchMut`]: stacks of matrices of one shape.

use super::{Layout, MatMut, MatRef};
use crate::error::{Error, Result, Shape};

/// A stack of matrices that are read: matrix `i` begins at `i * stride` of a slice. Transposing it is free, and so is
/// repeating one matrix.
///
/// ```
/// use nanproof::BatchRef;
///
/// let data = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let stack = BatchRef::new(&data, 3, 1, 2)?; // three matrices of 1 x 2
/// assert_eq!(stack.get(1).unwrap().get(0, 1), Some(4.0));
/// assert_eq!(stack.t().get(1).unwrap().get(1, 0), Some(4.0));
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchRef<'a, T> {
    data: &'a [T],
    stack: Stack,
}

/// A stack of matrices that are written, no two elements in one place.
///
/// ```
/// use nanproof::BatchMut;
///
/// let mut data = [0.0_f64; 4];
/// let mut stack = BatchMut::new(&mut data, 2, 1, 2)?;
/// stack.get_mut(1).unwrap().row_mut(0).unwrap().fill(7.0);
/// assert_eq!(data, [0.0, 0.0, 7.0, 7.0]);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchMut<'a, T> {
    data: &'a mut [T],
    stack: Stack,
}

#[derive(Clone, Copy, Debug)]
struct Stack {
    len: usize,
    stride: usize,
    layout: Layout,
}

impl Stack {
    /// Matrices stored one after the other, row by row; as many elements as the slice holds.
    fn dense(found: usize, len: usize, rows: usize, cols: usize) -> Result<Self> {
        let stride = rows.saturating_mul(cols);
        let area = stride.saturating_mul(len);
        if area != found {
            return Err(Self::refuse(found, area, "matrices times rows times columns"));
        }
        Ok(Self { len, stride, layout: Layout::row_major(rows, cols) })
    }

    /// Any layout whose last element lies inside the slice.
    fn strided(found: usize, len: usize, stride: usize, layout: Layout) -> Result<Self> {
        let stack = Self { len, stride, layout };
        match stack.span() {
            Some(span) if span <= found => Ok(stack),
            span => Err(Self::refuse(found, span.unwrap_or(usize::MAX), "or more, to reach its last element")),
        }
    }

    fn span(self) -> Option<usize> {
        if self.len == 0 {
            return Some(0);
        }
        match self.layout.span()? {
            0 => Some(0),
            span => (self.len - 1).checked_mul(self.stride)?.checked_add(span),
        }
    }

    fn refuse(found: usize, expected: usize, reason: &'static str) -> Error {
        Error::Shape {
            operation: "batch view",
            operand: "the slice",
            found: Shape::Vector(found),
            expected: Shape::Vector(expected),
            reason,
        }
    }

    /// Where matrix `i` begins.
    fn start(self, i: usize) -> Option<usize> {
        (i < self.len).then(|| if self.layout.is_empty() { 0 } else { i * self.stride })
    }

    /// The matrices before `at`, where the others begin, and those.
    #[cfg(feature = "rayon")]
    fn split(self, at: usize) -> (Self, usize, Self) {
        (Self { len: at, ..self }, self.start(at).unwrap_or(0), Self { len: self.len - at, ..self })
    }

    fn shape(self) -> Shape {
        Shape::Batch(self.len, self.layout.rows, self.layout.cols)
    }
}

impl<T> Clone for BatchRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for BatchRef<'_, T> {}

impl<'a, T> BatchRef<'a, T> {
    /// Matrices stored one after the other, row by row; the slice holds `len * rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// assert!(nanproof::BatchRef::new(&[0.0_f32; 11], 2, 2, 3).is_err());
    /// ```
    pub fn new(data: &'a [T], len: usize, rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { data, stack: Stack::dense(data.len(), len, rows, cols)? })
    }

    /// The same matrix again and again.
    ///
    /// ```
    /// use nanproof::{BatchRef, MatRef};
    ///
    /// let stack = BatchRef::repeat(MatRef::new(&[1.0_f32, 2.0], 1, 2)?, 1000);
    /// assert_eq!(stack.get(999).unwrap().get(0, 1), Some(2.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn repeat(matrix: MatRef<'a, T>, len: usize) -> Self {
        Self { data: matrix.data, stack: Stack { len, stride: 0, layout: matrix.layout } }
    }

    /// Matrices that begin `stride` apart, each with the element `(i, j)` at `i * row_stride + j * col_stride`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last element lies past the slice.
    ///
    /// ```
    /// // The two heads of a sequence of three positions, stored position by position.
    /// let data = [0.0_f32, 1.0, 10.0, 11.0, 20.0, 21.0];
    /// let heads = nanproof::BatchRef::with_strides(&data, 2, 3, 1, 1, 2, 1)?;
    /// assert_eq!(heads.get(1).unwrap().get(2, 0), Some(21.0));
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    pub fn with_strides(
        data: &'a [T],
        len: usize,
        rows: usize,
        cols: usize,
        stride: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        Ok(Self { data, stack: Stack::strided(data.len(), len, stride, layout)? })
    }

    /// The transposes, without moving anything.
    ///
    /// ```
    /// assert_eq!(nanproof::BatchRef::new(&[0.0_f32; 6], 1, 2, 3)?.t().get(0).unwrap().rows(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn t(self) -> Self {
        Self { data: self.data, stack: Stack { layout: self.stack.layout.t(), ..self.stack } }
    }

    /// The number of matrices.
    ///
    /// ```
    /// assert_eq!(nanproof::BatchRef::new(&[0.0_f32; 6], 3, 1, 2)?.len(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn len(self) -> usize {
        self.stack.len
    }

    /// Whether there are none.
    ///
    /// ```
    /// assert!(nanproof::BatchRef::<f32>::new(&[], 0, 1, 2)?.is_empty());
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.stack.len == 0
    }

    /// A matrix; `None` past the last one.
    ///
    /// ```
    /// assert!(nanproof::BatchRef::new(&[0.0_f32; 6], 3, 1, 2)?.get(3).is_none());
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn get(self, i: usize) -> Option<MatRef<'a, T>> {
        self.stack.start(i).map(|start| MatRef { data: &self.data[start..], layout: self.stack.layout })
    }

    pub(crate) fn shape(self) -> Shape {
        self.stack.shape()
    }

    /// The matrices before `at` and those from it on.
    #[cfg(feature = "rayon")]
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        let (first, start, second) = self.stack.split(at);
        (Self { data: self.data, stack: first }, Self { data: &self.data[start..], stack: second })
    }

    /// Rows and columns of each matrix.
    pub(crate) fn sides(self) -> (usize, usize) {
        (self.stack.layout.rows, self.stack.layout.cols)
    }
}

impl<'a, T> BatchMut<'a, T> {
    /// Matrices stored one after the other, row by row; the slice holds `len * rows * cols` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slice has another length.
    ///
    /// ```
    /// assert!(nanproof::BatchMut::new(&mut [0.0_f32; 11], 2, 2, 3).is_err());
    /// ```
    pub fn new(data: &'a mut [T], len: usize, rows: usize, cols: usize) -> Result<Self> {
        let stack = Stack::dense(data.len(), len, rows, cols)?;
        Ok(Self { data, stack })
    }

    /// Matrices that begin `stride` apart, each with the element `(i, j)` at `i * row_stride + j * col_stride`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the last element lies past the slice; [`Error::Argument`] if two elements could lie in one
    /// place, or a matrix reaches into the next.
    ///
    /// ```
    /// use nanproof::{BatchMut, Error};
    ///
    /// let mut data = [0.0_f32; 8];
    /// assert!(BatchMut::with_strides(&mut data, 2, 1, 3, 4, 3, 1).is_ok());
    /// assert!(matches!(BatchMut::with_strides(&mut data, 2, 1, 3, 2, 3, 1), Err(Error::Argument { .. })));
    /// ```
    pub fn with_strides(
        data: &'a mut [T],
        len: usize,
        rows: usize,
        cols: usize,
        stride: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Result<Self> {
        let layout = Layout { rows, cols, row_stride, col_stride };
        let stack = Stack::strided(data.len(), len, stride, layout)?;
        let apart = len < 2 || layout.span().is_some_and(|span| span <= stride);
        if !layout.is_disjoint() || !apart {
            return Err(Error::Argument {
                operation: "batch view",
                argument: "strides",
                problem: "would put two elements in one place, or let a matrix reach into the next",
            });
        }
        Ok(Self { data, stack })
    }

    /// The number of matrices.
    ///
    /// ```
    /// assert_eq!(nanproof::BatchMut::new(&mut [0.0_f32; 6], 3, 1, 2)?.len(), 3);
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.stack.len
    }

    /// Whether there are none.
    ///
    /// ```
    /// assert!(nanproof::BatchMut::<f32>::new(&mut [], 0, 1, 2)?.is_empty());
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stack.len == 0
    }

    /// A matrix to write; `None` past the last one.
    ///
    /// ```
    /// assert!(nanproof::BatchMut::new(&mut [0.0_f32; 6], 3, 1, 2)?.get_mut(3).is_none());
    /// # Ok::<(), nanproof::Error>(())
    /// ```
    #[must_use]
    pub fn get_mut(&mut self, i: usize) -> Option<MatMut<'_, T>> {
        self.stack.start(i).map(|start| MatMut { data: &mut self.data[start..], layout: self.stack.layout })
    }

    /// The matrices before `at` and those from it on.
    #[cfg(feature = "rayon")]
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        let (first, start, second) = self.stack.split(at);
        let (left, right) = self.data.split_at_mut(start);
        (Self { data: left, stack: first }, Self { data: right, stack: second })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.stack.shape()
    }
}
