//! Passes over the rows of matrices: the only file that knows how a row lies in memory.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::Result;
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch};
use crate::lanes::Lanes;
use crate::math;
use crate::reduce::{Accumulator, TwoTerm};
use crate::simd::Simd;
use crate::sweep::{GROUP, each_group, store_tail, sweep};
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
    for i in 0..output.rows() {
        for (x, copy) in inputs.iter().zip(&mut input_rows) {
            copy.iter_mut().zip(x.row_iter(i)).for_each(|(copy, &x)| *copy = x);
        }
        let mut x: [&[T]; N] = [&[]; N];
        for (k, x) in x.iter_mut().enumerate() {
            *x = inputs[k].row(i).unwrap_or(&input_rows[k]);
        }
        match output.row_mut(i) {
            Some(y) => f(i, x, y),
            None => {
                f(i, x, &mut output_row);
                for (j, &y) in output_row.iter().enumerate() {
                    if let Some(place) = output.get_mut(i, j) {
                        *place = y;
                    }
                }
            }
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

/// What the softmax family needs to know of a row: its maximum, and the sum of `exp(x - max)`.
///
/// One term of the sum is 1. It is kept apart, so that the logarithm of a sum just above 1, the loss of a confident and
/// right prediction, loses no digit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSum<T> {
    pub(crate) max: T,
    /// The sum less one term that is 1.
    pub(crate) rest: TwoTerm<T>,
    /// Whether the maximum stands once in the row.
    pub(crate) unique: bool,
}

impl<T: Float> RowSum<T> {
    /// Whether every entry is finite or `-inf`, and one is finite.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.max.is_finite() && self.rest.sum.is_finite()
    }

    /// Whether every entry is `-inf`.
    pub(crate) fn is_empty(&self) -> bool {
        self.max == T::neg_infinity() && !self.rest.sum.is_nan()
    }

    /// `ln(sum(exp(x - max)))`.
    #[inline(always)]
    pub(crate) fn log<S: Simd<T>>(&self, simd: S) -> T {
        math::ln_1p::ln_1p(Lanes::splat(simd, self.rest.value())).first()
    }

    /// `factor / sum(exp(x - max))`, as an unevaluated pair.
    #[inline(always)]
    pub(crate) fn weight<S: Simd<T>>(&self, simd: S, factor: T) -> TwoTerm<T> {
        let one = T::one();
        let total = TwoTerm { sum: one, error: T::zero() }.join(self.rest);
        let inverse = one / total.sum;
        let residual = fma(simd, -inverse, total.sum, one) - inverse * total.error;
        let product = factor * inverse;
        TwoTerm { sum: product, error: fma(simd, factor, inverse, -product) + product * residual }
    }
}

/// `a b + c` of numbers, rounded once.
#[inline(always)]
fn fma<T: Float, S: Simd<T>>(simd: S, a: T, b: T, c: T) -> T {
    Lanes::splat(simd, a).mul_add(Lanes::splat(simd, b), Lanes::splat(simd, c)).first()
}

/// The exact difference of `x` and the maximum of its row, in two terms.
#[inline(always)]
pub(crate) fn below_max<T: Float, S: Simd<T>>(x: Lanes<T, S>, max: T) -> (Lanes<T, S>, Lanes<T, S>) {
    x.two_sum(x.all(-max))
}

/// Goes through a row once for the maximum and once for the sum, and writes `exp(x - max)` to `y`, if that is not empty.
///
/// The largest entries count as 1 without a subtraction, so `+inf` beside finite entries takes the whole weight. A NaN
/// is passed over by the maximum and met again in the sum.
#[inline(always)]
pub(crate) fn row_exp<T: Float, S: Simd<T>>(simd: S, x: &[T], y: &mut [T]) -> RowSum<T> {
    let lowest = T::neg_infinity();
    let mut chains = [Lanes::splat(simd, lowest); GROUP];
    each_group(
        simd,
        x,
        lowest,
        #[inline(always)]
        |_, x| {
            for (chain, x) in chains.iter_mut().zip(x) {
                *chain = x.larger(*chain);
            }
        },
    );
    let [a, b, c, d] = chains;
    let largest = a.larger(b).larger(c.larger(d));
    let max = largest.store().as_ref().iter().fold(lowest, |max, &x| if max < x { x } else { max });

    let (y_blocks, y_tail) = T::blocks_mut(y);
    let (zero, one, unit) = (Lanes::zero(simd), Lanes::splat(simd, T::one()), Lanes::splat(simd, T::from_bits(1)));
    let mut rest = Accumulator::new(simd);
    let mut count = zero;
    each_group(
        simd,
        x,
        lowest,
        #[inline(always)]
        |first, x| {
            let mut terms = [zero; GROUP];
            for (k, (term, x)) in terms.iter_mut().zip(x).enumerate() {
                let is_max = x.eq(x.all(max));
                let (difference, error) = below_max(x, max);
                let e = math::exp_of_difference(difference, error);
                count = count.int_add(is_max.select(unit, zero));
                *term = is_max.select(zero, e);
                if let Some(block) = y_blocks.get_mut(first + k) {
                    *block = is_max.select(one, e).store();
                } else if first + k == y_blocks.len() {
                    store_tail(is_max.select(one, e), y_tail);
                }
            }
            let [a, b, c, d] = terms;
            rest.add((a + b) + (c + d));
        },
    );
    let count = count.store().as_ref().iter().map(|&lane| lane.to_bits()).sum::<u64>();
    let ones = T::from(count.saturating_sub(1)).unwrap_or_else(T::max_value);
    let rest = rest.total().join(TwoTerm { sum: ones, error: T::zero() });
    RowSum { max, rest, unique: count == 1 }
}

/// Turns `exp(x - max)` in `y` into `factor * softmax(x)`.
///
/// Where the factor is above 1 it may lift a result out of the range in which `exp(x - max)` alone has underflowed: it is
/// then computed again with an exponent of its own.
#[inline(always)]
pub(crate) fn row_normalize<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, factor: T, y: &mut [T]) {
    let weight = row.weight(simd, factor);
    let (weight, weight_error) = (Lanes::splat(simd, weight.sum), Lanes::splat(simd, weight.error));
    if factor.abs() <= T::one() || !row.is_plain() {
        sweep(
            simd,
            [],
            [y],
            #[inline(always)]
            |[], [e]| [e.mul_add(weight, e * weight_error)],
        );
    } else {
        let (zero, one) = (Lanes::zero(simd), Lanes::splat(simd, T::one()));
        let half = one / (one + one);
        sweep(
            simd,
            [x],
            [y],
            #[inline(always)]
            |[x], [_]| {
                let (difference, error) = below_max(x, row.max);
                let (e, exponent) = math::exp_parts(difference, error);
                let half = e * half; // below 1: its product with the weight does not overflow
                let result = math::scale(half.mul_add(weight, half * weight_error), exponent + one);
                [e.eq(zero).select(zero, result)] // also where the factor is infinite
            },
        );
    }
}
