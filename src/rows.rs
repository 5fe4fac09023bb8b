//! Passes over the rows of matrices, in one piece or not. (Rows of logits: `logits.rs`.)

use crate::error::Result;
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch};
use crate::simd::Simd;
use crate::view::{Copies, MatMut, MatRef, rows_together};

/// Calls `f` with rows of the inputs and the same rows of the output, and the number of the first: all at once, if the
/// elements of each row are neighbours in memory; else several at a time, copied before and after. The arithmetic is the
/// same.
#[inline(always)]
pub(crate) fn each_run<T: Float, const N: usize>(
    inputs: [MatRef<'_, T>; N],
    mut output: MatMut<'_, T>,
    mut f: impl FnMut(usize, [MatRef<'_, T>; N], MatMut<'_, T>),
) {
    let rows = output.rows();
    let is_copied = |x: MatRef<'_, T>| rows > 0 && x.row(0).is_none();
    let is_output_copied = is_copied(output.as_ref());
    let is_direct = !is_output_copied && !inputs.into_iter().any(is_copied);
    let widest = inputs.iter().fold(output.cols(), |widest, x| widest.max(x.cols()));
    let at_once = if is_direct { rows.max(1) } else { rows_together::<T>(widest) };
    const { assert!(N <= 3, "a copy for each input") };
    let [mut results, mut copies @ ..] = if is_direct { Default::default() } else { Copies::take() };
    for start in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - start);
        let mut x = inputs.map(|x| x.rows_of(start..start + count));
        for (x, copies) in x.iter_mut().zip(&mut copies) {
            *x = copies.contiguous(*x);
        }
        let y =
            if is_output_copied { results.shaped(count, output.cols()) } else { output.rows_of(start..start + count) };
        f(start, x, y); // in one place: it is compiled once
        if is_output_copied {
            output.rows_of(start..start + count).copy_from(results.as_ref());
        }
    }
    if !is_direct {
        let [first, second, third] = copies;
        Copies::keep([results, first, second, third]);
    }
}

/// [`each_run`], row by row.
#[inline(always)]
pub(crate) fn each_row<T: Float, const N: usize>(
    inputs: [MatRef<'_, T>; N],
    output: MatMut<'_, T>,
    mut f: impl FnMut(usize, [&[T]; N], &mut [T]),
) {
    each_run(
        inputs,
        output,
        #[inline(always)]
        |start, x, y| {
            each_row_of_run(
                x,
                y,
                #[inline(always)]
                |i, x, y| f(start + i, x, y),
            );
        },
    );
}

/// The rows of matrices in which the elements of each row are neighbours in memory.
#[inline(always)]
pub(crate) fn each_row_of_run<T: Float, const N: usize>(
    inputs: [MatRef<'_, T>; N],
    mut output: MatMut<'_, T>,
    mut f: impl FnMut(usize, [&[T]; N], &mut [T]),
) {
    for i in 0..output.rows() {
        let mut x: [&[T]; N] = [&[]; N];
        for (x, input) in x.iter_mut().zip(inputs) {
            *x = input.row(i).unwrap_or_default();
        }
        f(i, x, output.row_mut(i).unwrap_or_default());
    }
}

/// How many rows of so many columns are gone through together.
pub(crate) fn rows_at_once<T: Float>(cols: usize) -> usize {
    /// What stays near the processor from pass to pass.
    const ELEMENTS: usize = 4096;
    (ELEMENTS / cols.max(1)).clamp(1, T::LANES)
}

/// A formula that is applied to the same row of `N` matrices, and writes that row of another.
pub trait RowFormula<T: Float, const N: usize>: Copy + Send + Sync {
    /// Work an element of the result, in elements of a simple sweep.
    const WORK: usize;
    /// Writes one row.
    fn apply<S: Simd<T>>(self, simd: S, x: [&[T]; N], y: &mut [T]) -> RowsSeen;

    /// Writes rows whose elements are neighbours in memory.
    #[inline(always)]
    fn apply_to_run<S: Simd<T>>(self, simd: S, x: [MatRef<'_, T>; N], y: MatMut<'_, T>) -> RowsSeen {
        row_by_row(self, simd, x, y)
    }
}

#[inline(always)]
pub(crate) fn row_by_row<T: Float, S: Simd<T>, F: RowFormula<T, N>, const N: usize>(
    formula: F,
    simd: S,
    x: [MatRef<'_, T>; N],
    y: MatMut<'_, T>,
) -> RowsSeen {
    let mut seen = RowsSeen::finite(true);
    each_row_of_run(
        x,
        y,
        #[inline(always)]
        |_, x, y| seen = seen.join(formula.apply(simd, x, y)),
    );
    seen
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
        each_run(
            self.inputs,
            self.output,
            #[inline(always)]
            |_, x, y| seen = seen.join(self.formula.apply_to_run(simd, x, y)),
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
