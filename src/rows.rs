//! Passes over the rows of matrices, in one piece or not. (Rows of logits: `logits.rs`.)

use alloc::vec;
use alloc::vec::Vec;

use crate::error::Result;
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch};
use crate::simd::Simd;
use crate::view::{MatMut, MatRef};

/// Calls `f` with each row of the inputs and the same row of the output, as slices. A row that is not contiguous is
/// copied before and after; the arithmetic is the same.
#[inline(always)]
pub(crate) fn each_row<T: Float, const N: usize>(
    inputs: [MatRef<'_, T>; N],
    mut output: MatMut<'_, T>,
    mut f: impl FnMut(usize, [&[T]; N], &mut [T]),
) {
    let scratch = |contiguous: bool, cols: usize| vec![T::zero(); if contiguous { 0 } else { cols }];
    let mut input_rows: [Vec<T>; N] = inputs.map(|x| scratch(x.row(0).is_some() || x.rows() == 0, x.cols()));
    let mut output_row = scratch(output.as_ref().row(0).is_some() || output.rows() == 0, output.cols());
    let are_copies = input_rows.iter().any(|row| !row.is_empty());
    for i in 0..output.rows() {
        if are_copies {
            for (x, copy) in inputs.iter().zip(&mut input_rows) {
                x.zip_row(i, copy, |copy, x| *copy = x);
            }
        }
        let mut x: [&[T]; N] = [&[]; N];
        for (k, x) in x.iter_mut().enumerate() {
            *x = inputs[k].row(i).unwrap_or(&input_rows[k]);
        }
        let (y, is_copy) = match output.row_mut(i) {
            Some(y) => (y, false),
            None => (&mut output_row[..], true),
        };
        f(i, x, y); // in one place: it is compiled once
        if is_copy {
            output.write_row(i, &output_row);
        }
    }
}

/// A formula that is applied to the same row of `N` matrices, and writes that row of another.
pub trait RowFormula<T: Float, const N: usize>: Copy + Send + Sync {
    /// Work an element of the result, in elements of a simple sweep.
    const WORK: usize;
    /// Writes one row.
    fn apply<S: Simd<T>>(self, simd: S, x: [&[T]; N], y: &mut [T]) -> RowsSeen;
}

/// What rows tell of their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsSeen {
    /// Nothing is to be reported.
    pub(crate) finite: bool,
    /// How many rows were empty.
    pub(crate) empty: usize,
}

impl RowsSeen {
    pub(crate) fn finite(finite: bool) -> Self {
        Self { finite, empty: 0 }
    }
}

impl Join for RowsSeen {
    fn join(self, b: Self) -> Self {
        Self { finite: self.finite && b.finite, empty: self.empty + b.empty }
    }
}

/// The kernel of every operation that maps rows to rows. All matrices have as many rows.
#[derive(Debug)]
pub struct Rowwise<'a, T, F, const N: usize> {
    pub(crate) formula: F,
    pub(crate) inputs: [MatRef<'a, T>; N],
    pub(crate) output: MatMut<'a, T>,
}

impl<T: Float, F: RowFormula<T, N>, const N: usize> Kernel for Rowwise<'_, T, F, N> {
    type Elem = T;
    type Output = RowsSeen;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        each_row(
            self.inputs,
            self.output,
            #[inline(always)]
            |_, x, y| seen = seen.join(self.formula.apply(simd, x, y)),
        );
        seen
    }

    fn work(&self) -> usize {
        let elements = self.output.as_ref().area().saturating_add(self.inputs[0].area());
        (elements / 2).saturating_mul(F::WORK)
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { formula, inputs, output } = self;
        match output.halve_rows() {
            Ok((first, second)) => {
                let (upper, lower) =
                    (inputs.map(|x| x.rows_before(first.rows())), inputs.map(|x| x.rows_from(first.rows())));
                Ok((Self { formula, inputs: upper, output: first }, Self { formula, inputs: lower, output: second }))
            }
            Err(output) => Err(Self { formula, inputs, output }),
        }
    }
}

/// Applies a formula to the rows of matrices.
pub(crate) fn apply<'a, T, F: RowFormula<T, N>, const N: usize>(
    formula: F,
    inputs: [MatRef<'a, T>; N],
    output: MatMut<'a, T>,
) -> Result<RowsSeen>
where
    T: Float + Runs<Rowwise<'a, T, F, N>>,
{
    if output.as_ref().area() == 0 {
        return Ok(RowsSeen::finite(true)); // rows without elements need no memory: there may be any number of them
    }
    launch(Rowwise { formula, inputs, output })
}
