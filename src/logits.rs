//! Rows of logits: what they are read as, and the exponentials that softmax and its kin share.

use alloc::vec::Vec;

use crate::error::Result;
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch, outline};
use crate::lanes::Lanes;
use crate::math;
use crate::reduce::{Accumulator, TwoTerm, sum_terms};
use crate::rows::RowsSeen;
use crate::simd::Simd;
use crate::sweep::{GROUP, each_group, sweep, sweep_groups};
use crate::view::{MatMut, MatRef};

/// A matrix of logits, and what each is read as: `scale x + bias`, or `-inf` where it is masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logits<'a, T> {
    /// `None`: the matrix that the result is written to.
    pub(crate) x: Option<MatRef<'a, T>>,
    pub(crate) scale: T,
    pub(crate) bias: Option<MatRef<'a, T>>,
    /// False where a logit is masked.
    pub(crate) mask: Option<MatRef<'a, bool>>,
    /// Row `i` keeps the columns up to `i + causal`.
    pub(crate) causal: Option<isize>,
}

impl<'a, T: Float> Logits<'a, T> {
    pub(crate) fn plain(x: Option<MatRef<'a, T>>) -> Self {
        Self { x, scale: T::one(), bias: None, mask: None, causal: None }
    }

    /// Whether each logit is read as it stands.
    pub(crate) fn is_plain(&self) -> bool {
        self.scale == T::one() && self.bias.is_none() && self.mask.is_none() && self.causal.is_none()
    }

    /// Whether a logit counts.
    pub(crate) fn keeps(&self, i: usize, j: usize) -> bool {
        self.mask.is_none_or(|mask| mask.get(i, j) == Some(true)) && j < self.causal_len(i)
    }

    /// How many columns the causal mask keeps of a row, at least.
    fn causal_len(&self, i: usize) -> usize {
        self.causal.map_or(usize::MAX, |offset| i.saturating_add(1).saturating_add_signed(offset))
    }

    /// A logit as it is read; `None` outside.
    pub(crate) fn get(&self, i: usize, j: usize) -> Option<T> {
        let x = self.x?.get(i, j)?;
        let scaled = if self.scale == T::one() { x } else { x * self.scale };
        let biased = self.bias.map_or(scaled, |bias| bias.get(i, j).map_or(scaled, |bias| scaled + bias));
        Some(if self.keeps(i, j) { biased } else { T::neg_infinity() })
    }

    /// The operands, without what is masked or `-inf`.
    pub(crate) fn operands(self, name: &'static str) -> impl Iterator<Item = Operand<'a, T>> {
        let counts = move |index, x: T| match index {
            Index::Cell(i, j) => x != T::neg_infinity() && self.keeps(i, j),
            _ => true,
        };
        let operand = move |name, x| Operand::matrix(name, x).overlook(move |index, x| !counts(index, x));
        [(name, self.x), ("bias", self.bias)].into_iter().filter_map(move |(name, x)| Some(operand(name, x?)))
    }

    /// An upstream gradient with a number for each row, without those of empty rows: they are not read.
    pub(crate) fn upstream(self, name: &'static str, g: &'a [T]) -> Operand<'a, T> {
        let cols = self.x.map_or(0, MatRef::cols);
        let is_empty = move |i| (0..cols).all(|j| self.get(i, j) == Some(T::neg_infinity()));
        Operand::slice(name, g).overlook(move |index, _| matches!(index, Index::At(i) if is_empty(i)))
    }

    /// The logits as they are read, without those that are `-inf`.
    pub(crate) fn as_read(self) -> Operand<'a, T> {
        let (rows, cols) = self.x.map_or((0, 0), |x| (x.rows(), x.cols()));
        let element = move |i, j| (Index::Cell(i, j), self.get(i, j).unwrap_or_else(T::zero));
        let row = move |i| (0..cols).map(move |j| element(i, j));
        Operand::new("scale * x + bias", (0..rows).flat_map(row)).overlook(|_, x| x == T::neg_infinity())
    }

    /// Looks for a logit from which no probability follows, before anything is written.
    ///
    /// # Errors
    /// The report of a NaN or `+inf` among the logits as they are read.
    pub(crate) fn check(self, operation: &'static str) -> Result<()> {
        let Some(x) = self.x else { return Ok(()) };
        let mut row = Vec::new();
        for i in 0..x.rows() {
            x.copy_row(i, &mut row);
            self.read(i, &mut row);
            if row.iter().fold(false, |fault, &x| fault | x.is_nan() | (x == T::infinity())) {
                return diagnose(operation, self.operands("x"), [self.as_read()], overflow_or_invalid);
            }
        }
        Ok(())
    }

    /// Row `i` as it is read; in place it is row `output_row` of the output. What does not lie there as it is to be read is
    /// written to `copy`.
    fn row<'s>(&self, i: usize, output: MatRef<'_, T>, output_row: usize, copy: &'s mut Vec<T>) -> &'s [T]
    where
        'a: 's,
    {
        if let (true, Some(row)) = (self.is_plain(), self.x.and_then(|x| x.row(i))) {
            return row;
        }
        match self.x {
            Some(x) => x.copy_row(i, copy),
            None => output.copy_row(output_row, copy),
        }
        self.read(i, copy);
        copy
    }

    /// Turns the numbers of a row into what they are read as.
    pub(crate) fn read(&self, i: usize, row: &mut [T]) {
        if self.scale != T::one() {
            row.iter_mut().for_each(|x| *x = *x * self.scale);
        }
        if let Some(bias) = self.bias {
            bias.zip_row(i, row, |x, bias| *x = *x + bias);
        }
        if let Some(mask) = self.mask {
            mask.zip_row(i, row, |x, keep| *x = if keep { *x } else { T::neg_infinity() });
        }
        let kept = self.causal_len(i).min(row.len());
        row[kept..].fill(T::neg_infinity());
    }
}

/// A formula that is applied to rows of logits.
pub trait LogitFormula<T: Float>: Copy + Send + Sync {
    /// Work a logit, in elements of a simple sweep.
    const WORK: usize;
    /// Writes what row `i` gives: a row `y`, a number, or both.
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        i: usize,
        x: &[T],
        y: &mut [T],
        value: &mut T,
        scratch: &mut Vec<T>,
    ) -> RowsSeen;
}

/// The kernel of every operation on rows of logits.
#[derive(Debug)]
pub struct LogitRows<'a, T, F> {
    pub(crate) formula: F,
    pub(crate) logits: Logits<'a, T>,
    /// The number of the first row.
    pub(crate) first: usize,
    /// A number a row, or none.
    pub(crate) values: &'a mut [T],
    /// A row a row, or rows without columns.
    pub(crate) output: MatMut<'a, T>,
}

impl<T: Float, F: LogitFormula<T>> Kernel for LogitRows<'_, T, F> {
    type Elem = T;
    type Output = RowsSeen;

    #[inline(always)]
    fn run<S: Simd<T>>(mut self, simd: S) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        let (mut copy, mut result, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..self.output.rows() {
            let number = self.first + i;
            let x = self.logits.row(number, self.output.as_ref(), i, &mut copy);
            let mut unused = T::zero();
            let value = self.values.get_mut(i).unwrap_or(&mut unused);
            let columns = self.output.cols();
            let (y, is_copy) = match self.output.row_mut(i) {
                Some(y) => (y, false),
                None => {
                    result.resize(columns, T::zero());
                    (&mut result[..], true)
                }
            };
            // In one place: it is compiled once.
            seen = seen.join(self.formula.apply(simd, number, x, y, value, &mut scratch));
            if is_copy {
                self.output.write_row(i, &result);
            }
        }
        seen
    }

    fn work(&self) -> usize {
        let columns = self.logits.x.map_or(self.output.cols(), MatRef::cols);
        self.output.rows().saturating_mul(columns).saturating_mul(F::WORK)
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let Self { formula, logits, first, values, output } = self;
        match output.halve_rows() {
            Ok((output, below)) => {
                let (values, values_below) = values.split_at_mut(output.rows().min(values.len()));
                let first_below = first + output.rows();
                Ok((
                    Self { formula, logits, first, values, output },
                    Self { formula, logits, first: first_below, values: values_below, output: below },
                ))
            }
            Err(output) => Err(Self { formula, logits, first, values, output }),
        }
    }
}

/// Applies a formula to rows of logits: to a number for each, a row for each, or both.
pub(crate) fn apply_to_logits<'a, T, F: LogitFormula<T>>(
    formula: F,
    logits: Logits<'a, T>,
    values: &'a mut [T],
    output: Option<MatMut<'a, T>>,
) -> Result<RowsSeen>
where
    T: Float + Runs<LogitRows<'a, T, F>>,
{
    if values.is_empty() && output.as_ref().is_none_or(|output| output.as_ref().area() == 0) {
        return Ok(RowsSeen::finite(true)); // rows without elements need no memory: there may be any number of them
    }
    let output = match output {
        Some(output) => output,
        None => MatMut::new(&mut [], values.len(), 0)?,
    };
    launch(LogitRows { formula, logits, first: 0, values, output })
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

    /// `sum(exp(x - max))`.
    #[inline(always)]
    pub(crate) fn total(&self) -> T {
        TwoTerm { sum: T::one(), error: T::zero() }.join(self.rest).value()
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
///
/// A function of its own, which the formulas share; [`row_exp_inline`] is faster where rows are short.
#[inline(always)]
pub(crate) fn row_exp<T: Float, S: Simd<T>>(simd: S, x: &[T], y: &mut [T]) -> RowSum<T> {
    let mut sum = RowSum { max: T::neg_infinity(), rest: TwoTerm::zero(), unique: false };
    outline(simd, RowExp { x, y, sum: &mut sum });
    sum
}

struct RowExp<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
    sum: &'a mut RowSum<T>,
}

impl<T: Float> Kernel for RowExp<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        *self.sum = row_exp_inline(simd, self.x, self.y);
    }
}

/// See [`row_exp`].
#[inline(always)]
pub(crate) fn row_exp_inline<T: Float, S: Simd<T>>(simd: S, x: &[T], y: &mut [T]) -> RowSum<T> {
    let lowest = T::neg_infinity();
    let mut chains = [Lanes::splat(simd, lowest); GROUP];
    each_group(
        simd,
        [x],
        lowest,
        #[inline(always)]
        |group| {
            for (chain, [x]) in chains.iter_mut().zip(group) {
                *chain = x.larger(*chain);
            }
        },
    );
    let [a, b, c, d] = chains;
    let max = a.larger(b).larger(c.larger(d)).fold(
        #[inline(always)]
        |a, b| if a < b { b } else { a },
    );

    let (zero, one, unit) = (Lanes::zero(simd), Lanes::splat(simd, T::one()), Lanes::splat(simd, T::from_bits(1)));
    let mut rest = Accumulator::new(simd);
    let mut count = zero;
    sweep_groups(
        simd,
        x,
        lowest,
        y,
        #[inline(always)]
        |x| {
            let mut results = [zero; GROUP];
            for (result, x) in results.iter_mut().zip(x) {
                let (difference, error) = below_max(x, max);
                *result = math::exp_of_difference(difference, error);
            }
            let mut terms = results;
            let is_max = x.map(|x| x.eq(x.all(max)));
            let [a, b, c, d] = is_max;
            if (a | b | c | d).any() {
                for ((term, result), is_max) in terms.iter_mut().zip(&mut results).zip(is_max) {
                    count = count.int_add(is_max.select(unit, zero));
                    *term = is_max.select(zero, *result);
                    *result = is_max.select(one, *result);
                }
            }
            let [a, b, c, d] = terms;
            rest.add((a + b) + (c + d));
            results
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
///
/// A function of its own, as [`row_exp`].
#[inline(always)]
pub(crate) fn row_normalize<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, factor: T, y: &mut [T]) {
    outline(simd, RowNormalize { x, row, factor, y });
}

struct RowNormalize<'a, T> {
    x: &'a [T],
    row: RowSum<T>,
    factor: T,
    y: &'a mut [T],
}

impl<T: Float> Kernel for RowNormalize<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        row_normalize_inline(simd, self.x, self.row, self.factor, self.y);
    }
}

/// See [`row_normalize`].
#[inline(always)]
pub(crate) fn row_normalize_inline<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, factor: T, y: &mut [T]) {
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

/// `sum(weights (max - x))`, where a weight of 0 does not count.
#[inline(always)]
pub(crate) fn distance<T: Float, S: Simd<T>>(simd: S, weights: &[T], x: &[T], max: T) -> T {
    let zero = Lanes::zero(simd);
    let sum = sum_terms(
        simd,
        [weights, x],
        #[inline(always)]
        |[weight, x]| {
            let (difference, error) = below_max(x, max);
            let counts = !(weight.eq(zero) | x.eq(x.all(max)));
            let (product, low) = weight.two_mul(-difference);
            (counts.select(product, zero), counts.select(low - weight * error, zero))
        },
    );
    // The rounding error of an infinite sum is NaN.
    if sum.sum.is_infinite() { sum.sum } else { sum.value() }
}
