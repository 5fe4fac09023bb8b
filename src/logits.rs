//! Rows of logits: what they are read as, and the exponentials that softmax and its kin share.

use alloc::vec::Vec;

use crate::error::Result;
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch, outline, outline_rare};
use crate::lanes::Lanes;
use crate::math;
use crate::moments::Extended;
use crate::reduce::{Accumulator, TwoTerm, sum_terms};
use crate::rows::RowsSeen;
use crate::scaled::{Scaled, power};
use crate::simd::Simd;
use crate::sweep::{GROUP, each_group, map_groups, sweep, sweep_groups};
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
    /// Whether the result stays the same if a number is added to a row.
    pub(crate) is_relative: bool,
}

impl<'a, T: Float> Logits<'a, T> {
    pub(crate) fn plain(x: Option<MatRef<'a, T>>) -> Self {
        Self { x, scale: T::one(), bias: None, mask: None, causal: None, is_relative: true }
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
        // What is read as +inf counts whatever it was made of.
        let is_fault = move |i, j| self.get(i, j) == Some(T::infinity());
        let counts = move |index, x: T| match index {
            Index::Cell(i, j) => self.keeps(i, j) && (x != T::neg_infinity() || is_fault(i, j)),
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
        let Some(x) = self.x.filter(|x| x.cols() > 0) else { return Ok(()) };
        let mut copy = Vec::new();
        for i in 0..x.rows() {
            let row = self.row(i, x, i, &mut copy);
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
        let original = |copy: &mut Vec<T>| match self.x {
            Some(x) => x.copy_row(i, copy),
            None => output.copy_row(output_row, copy),
        };
        original(copy);
        self.read(i, copy);
        let is_in_range = copy.iter().any(|x| x.is_finite()) && copy.iter().all(|&x| x != T::infinity());
        if self.is_relative && !is_in_range {
            original(copy);
            self.read_below_largest(i, copy);
        }
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
        self.hide(i, row);
    }

    /// The same less the largest of them, of a row that leaves the range: what small numbers lose is nothing to that.
    #[cold]
    fn read_below_largest(&self, i: usize, row: &mut [T]) {
        let (down, up) = (power::<T>(-(T::BIAS / 2 + 3)), power::<T>(T::BIAS / 2 + 3));
        row.iter_mut().for_each(|x| *x = (*x * down) * (self.scale * down));
        if let Some(bias) = self.bias {
            bias.zip_row(i, row, |x, bias| *x = *x + bias * down * down);
        }
        self.hide(i, row);
        let largest = row.iter().fold(T::neg_infinity(), |largest, &x| largest.max(x));
        if largest.is_finite() {
            row.iter_mut().for_each(|x| *x = (*x - largest) * up * up);
        }
    }

    /// Whether a logit of row `i` counts, and neither it nor its bias is `-inf`.
    pub(crate) fn has_logits(&self, i: usize) -> bool {
        let Some(x) = self.x else { return false };
        let is_possible = |x: Option<T>| x != Some(T::neg_infinity());
        (0..x.cols())
            .any(|j| self.keeps(i, j) && is_possible(x.get(i, j)) && self.bias.is_none_or(|b| is_possible(b.get(i, j))))
    }

    /// Whether a logit that is made of numbers may be read as `-inf`.
    pub(crate) fn may_sink(&self) -> bool {
        self.scale.abs() > T::one() || self.bias.is_some()
    }

    /// Whether a logit counts and is made of numbers alone.
    pub(crate) fn is_of_numbers(&self, i: usize, j: usize) -> bool {
        let is_number = |x: Option<T>| x.is_some_and(|x| x.is_finite());
        self.keeps(i, j)
            && is_number(self.x.and_then(|x| x.get(i, j)))
            && self.bias.is_none_or(|bias| is_number(bias.get(i, j)))
    }

    /// `scale x + bias`, in a range that nothing leaves.
    pub(crate) fn wide(&self, i: usize, j: usize) -> Scaled<f64> {
        let [x, bias] = [self.x, self.bias].map(|x| Scaled::of(x.and_then(|x| x.get(i, j)).unwrap_or_else(T::zero)));
        Scaled::of(self.scale).mul(x).add(bias)
    }

    /// Makes `-inf` of what is masked.
    fn hide(&self, i: usize, row: &mut [T]) {
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
    /// Writes what rows give, the first of which has the number `first`: a row of `y` each, a number, or both. Each row lies in
    /// one piece.
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        first: usize,
        x: MatRef<'_, T>,
        y: MatMut<'_, T>,
        values: &mut [T],
        scratch: &mut Vec<T>,
    ) -> RowsSeen;
}

/// A formula that is applied to one row of logits: see [`Singly`].
pub trait LogitRowFormula<T: Float>: Copy + Send + Sync {
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

/// Applies a formula to one row of logits after the other.
#[derive(Clone, Copy, Debug)]
pub struct Singly<F>(pub(crate) F);

impl<T: Float, F: LogitRowFormula<T>> LogitFormula<T> for Singly<F> {
    const WORK: usize = F::WORK;

    #[inline(always)]
    fn apply<S: Simd<T>>(
        self,
        simd: S,
        first: usize,
        x: MatRef<'_, T>,
        mut y: MatMut<'_, T>,
        values: &mut [T],
        scratch: &mut Vec<T>,
    ) -> RowsSeen {
        let mut seen = RowsSeen::finite(true);
        for i in 0..x.rows() {
            let (x, y) = row_pair(x, &mut y, i);
            let mut unused = T::zero();
            let value = values.get_mut(i).unwrap_or(&mut unused);
            seen = seen.join(self.0.apply(simd, first + i, x, y, value, scratch));
        }
        seen
    }
}

/// Row `i` of two matrices whose rows lie in one piece.
#[inline(always)]
pub(crate) fn row_pair<'a, T>(x: MatRef<'a, T>, y: &'a mut MatMut<'_, T>, i: usize) -> (&'a [T], &'a mut [T]) {
    const WHOLE: &str = "rows in one piece";
    (x.row(i).expect(WHOLE), y.row_mut(i).expect(WHOLE))
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
        let (rows, columns) = (self.output.rows(), self.output.cols());
        let is_direct = self.output.as_ref().has_rows_in_order();
        let whole = self.logits.x.filter(|x| is_direct && self.logits.is_plain() && x.has_rows_in_order());
        for start in (0..rows).step_by(if whole.is_some() { rows.max(1) } else { 1 }) {
            let first = self.first + start;
            let x = match whole {
                Some(x) => x.rows_from(first).rows_before(rows),
                None => MatRef::of_row(self.logits.row(first, self.output.as_ref(), start, &mut copy)),
            };
            let y = if is_direct {
                self.output.rows_of(start..start + x.rows())
            } else {
                result.resize(columns, T::zero());
                MatMut::of_row(&mut result)
            };
            let values = self.values.get_mut(start..start + x.rows()).unwrap_or(&mut []);
            // In one place: it is compiled once.
            seen = seen.join(self.formula.apply(simd, first, x, y, values, &mut scratch));
            if !is_direct {
                self.output.write_row(start, &result);
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
/// Terms that are 1 may be kept apart, so that the logarithm of a sum just above 1, the loss of a confident and right
/// prediction, loses no digit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSum<T> {
    pub(crate) max: T,
    /// How many terms are kept apart: those of the entries that are the maximum, or none.
    ones: T,
    /// The sum of the others.
    pub(crate) rest: TwoTerm<T>,
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

    /// Whether the maximum stands once in the row.
    pub(crate) fn is_max_unique(&self) -> bool {
        self.ones == T::one()
    }

    /// `ln(sum(exp(x - max)))`, where the ones are kept apart.
    #[inline(always)]
    pub(crate) fn log<S: Simd<T>>(&self, simd: S) -> T {
        let rest = self.rest_and(self.ones - T::one()).value();
        math::ln_1p::ln_1p(Lanes::splat(simd, rest)).first()
    }

    /// `sum(exp(x - max))`.
    #[inline(always)]
    pub(crate) fn total(&self) -> TwoTerm<T> {
        self.rest_and(self.ones)
    }

    #[inline(always)]
    fn rest_and(&self, ones: T) -> TwoTerm<T> {
        TwoTerm { sum: ones, error: T::zero() }.join(self.rest)
    }

    /// `factor / sum(exp(x - max))`, as an unevaluated pair.
    #[inline(always)]
    pub(crate) fn weight<S: Simd<T>>(&self, simd: S, factor: T) -> TwoTerm<T> {
        let (one, total) = (T::one(), self.total());
        let inverse = one / total.sum;
        let residual = fma(simd, -inverse, total.sum, one) - inverse * total.error;
        let product = factor * inverse;
        let error = fma(simd, factor, inverse, -product) + product * residual;
        // The rounding error of an infinite product is NaN.
        TwoTerm { sum: product, error: if product.is_infinite() { T::zero() } else { error } }
    }
}

/// The lanes of a block of the smallest type.
const MOST_LANES: usize = 16;

/// The [`RowSum`] of each of a block of rows.
pub(crate) struct RowSums<T: Float> {
    len: usize,
    max: T::Block,
    ones: T::Block,
    sum: T::Block,
    error: T::Block,
}

impl<T: Float> RowSums<T> {
    /// Goes through rows as [`row_exp`] does, and calls `f` with what it finds of each block of them, the number of the first
    /// and `y`. Either the ones are kept apart, or the exponentials are written to `y`.
    ///
    /// A block of rows, and not a row, is what the next step waits for: so it seldom waits.
    #[inline(always)]
    pub(crate) fn each<const APART: bool, S: Simd<T>>(
        simd: S,
        x: MatRef<'_, T>,
        mut y: MatMut<'_, T>,
        mut f: impl FnMut(&Self, usize, &mut MatMut<'_, T>),
    ) {
        /// What stays near the processor from pass to pass.
        const ELEMENTS: usize = 4096;
        let at_once = (ELEMENTS / x.cols().max(1)).clamp(1, T::LANES);
        let mut parts = [RowParts::new(); MOST_LANES];
        for (parts, x) in parts.iter_mut().zip(x.rows_in(0..at_once)) {
            parts.max = row_max(simd, x);
        }
        let zero = T::fill(T::zero());
        let mut sums = Self { len: 0, max: zero, ones: zero, sum: T::fill(T::one()), error: zero };
        for start in (0..x.rows()).step_by(at_once) {
            let end = x.rows().min(start + at_once);
            let parts = &mut parts[..end - start];
            let later = x.rows_in(end..end + at_once).chain(core::iter::repeat(&[][..]));
            let rows = parts.iter_mut().zip(x.rows_in(start..end)).zip(later);
            if APART {
                rows.for_each(
                    #[inline(always)]
                    |((parts, x), later)| parts.add_exp::<APART, true, S>(simd, x, later, &mut []),
                );
            } else {
                rows.zip(y.rows_mut(start..end)).for_each(
                    #[inline(always)]
                    |(((parts, x), later), y)| parts.add_exp::<APART, true, S>(simd, x, later, y),
                );
            }
            sums.len = parts.len();
            for (i, parts) in parts.iter_mut().enumerate() {
                let sum = parts.sum::<APART, S>(simd, x.row(start + i).unwrap_or(&[]));
                sums.max.as_mut()[i] = sum.max;
                sums.ones.as_mut()[i] = sum.ones;
                sums.sum.as_mut()[i] = sum.rest.sum;
                sums.error.as_mut()[i] = sum.rest.error;
                parts.max = largest(Lanes::load(simd, &parts.later_max));
            }
            f(&sums, start, &mut y);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> RowSum<T> {
        let rest = TwoTerm { sum: self.sum.as_ref()[i], error: self.error.as_ref()[i] };
        RowSum { max: self.max.as_ref()[i], ones: self.ones.as_ref()[i], rest }
    }

    /// The sums of all terms but so many ones.
    #[inline(always)]
    fn total<S: Simd<T>>(&self, simd: S, without: T) -> (Lanes<T, S>, Lanes<T, S>) {
        let ones = Lanes::load(simd, &self.ones) - Lanes::splat(simd, without);
        let (sum, error) = ones.two_sum(Lanes::load(simd, &self.sum));
        (sum, error + Lanes::load(simd, &self.error))
    }

    /// See [`RowSum::log`].
    #[inline(always)]
    pub(crate) fn logs<S: Simd<T>>(&self, simd: S) -> T::Block {
        let (sum, error) = self.total(simd, T::one());
        math::ln_1p::ln_1p(sum + error).store()
    }

    /// What the exponentials of each row are multiplied by to become probabilities: see [`RowSum::weight`].
    #[inline(always)]
    pub(crate) fn weights<S: Simd<T>>(&self, simd: S) -> Weights<T> {
        let ((total, error), one) = (self.total(simd, T::zero()), Lanes::splat(simd, T::one()));
        let inverse = one / total;
        let residual = (-inverse).mul_add(total, one) - inverse * error;
        Weights { weight: inverse.store(), error: (inverse * residual).store() }
    }
}

/// A factor for each of a block of rows, in two terms.
pub(crate) struct Weights<T: Float> {
    weight: T::Block,
    error: T::Block,
}

impl<T: Float> Weights<T> {
    /// Multiplies row `i`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd<T>>(&self, simd: S, i: usize, y: &mut [T]) {
        let (weight, error) = (Lanes::splat(simd, self.weight.as_ref()[i]), Lanes::splat(simd, self.error.as_ref()[i]));
        map_groups(
            simd,
            y,
            #[inline(always)]
            |mut group| {
                for e in &mut group {
                    *e = e.mul_add(weight, *e * error);
                }
                group
            },
        );
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

/// [`below_max`] for the entries of a row, in fewer operations.
///
/// The maximum is a pivot and an offset. The rounding error of `x - pivot` is `x - ((x - pivot) + pivot)`, exactly, if the
/// pivot is no smaller than `x` or a multiple of its last place (Dekker's sum), or the difference is exact.
#[derive(Clone, Copy)]
struct BelowMax<T> {
    pivot: T,
    offset: T,
}

impl<T: Float> BelowMax<T> {
    fn new(max: T) -> Self {
        let integer = |n: i32| T::from(n).expect("a small integer");
        // An entry whose exponential is not 0 lies less than `BIAS` below the maximum. If that is large, the difference is exact
        // (Sterbenz); if not, the entry is less than `3 BIAS` in size, and what is added to and taken from `grid` comes out as
        // a multiple of its last place.
        let grid = integer(6 * (T::BIAS + 1));
        let pivot = if max.abs() < integer(2 * T::BIAS) { (max + grid) - grid } else { max };
        Self { pivot, offset: max - pivot }
    }

    #[inline(always)]
    fn apply<S: Simd<T>>(self, x: Lanes<T, S>) -> (Lanes<T, S>, Lanes<T, S>) {
        let pivot = x.all(self.pivot);
        let difference = x - pivot;
        (difference, (x - (difference + pivot)) - x.all(self.offset))
    }

    /// Whether the exponential of a difference may be subnormal or 0.
    #[inline(always)]
    fn has_small_exp<S: Simd<T>>(self, [a, b, c, d]: [Lanes<T, S>; GROUP]) -> bool {
        let least = a.smaller(b).smaller(c.smaller(d));
        let (difference, _) = self.apply(least);
        difference.lt(least.all(T::EXP_NORMAL_FROM)).any()
    }
}

/// Goes through a row once for the maximum and once for the sum, and writes `exp(x - max)` to `y`, if that is not empty.
///
/// A NaN may hide entries from the maximum; it is met again in the sum. `+inf` takes the whole weight.
///
/// A function of its own, which the formulas share; [`RowSums::each`] is faster where rows are short.
#[inline(always)]
pub(crate) fn row_exp<T: Float, S: Simd<T>>(simd: S, x: &[T], y: &mut [T]) -> RowSum<T> {
    let mut parts = RowParts::new();
    outline(simd, RowExp { x, y, parts: &mut parts });
    parts.sum::<true, S>(simd, x)
}

struct RowExp<'a, T: Float> {
    x: &'a [T],
    y: &'a mut [T],
    parts: &'a mut RowParts<T>,
}

impl<T: Float> Kernel for RowExp<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { x, y, parts } = self;
        parts.max = row_max(simd, x);
        parts.add_exp::<true, false, S>(simd, x, &[], y);
    }
}

/// What a pass over a row leaves, before the lanes are added.
#[derive(Clone, Copy)]
struct RowParts<T: Float> {
    max: T,
    /// See [`RowSum`].
    ones: T::Block,
    rest: [[f64; 8]; 2],
    /// The largest entries of another row.
    later_max: T::Block,
}

impl<T: Float> RowParts<T> {
    fn new() -> Self {
        let lowest = T::neg_infinity();
        Self { max: lowest, ones: T::fill(T::zero()), rest: [[0.0; 8]; 2], later_max: T::fill(lowest) }
    }

    /// The sum of the row `x`. If the ones are apart, the rest is right however small it is.
    #[inline(always)]
    fn sum<const APART: bool, S: Simd<T>>(&self, simd: S, x: &[T]) -> RowSum<T> {
        let rest = Extended::<T, S>::load(simd, &self.rest).total().narrow();
        let ones = Extended::of(Lanes::load(simd, &self.ones)).total().narrow().sum;
        let mut sum = RowSum { max: self.max, ones, rest };
        if APART && sum.is_max_unique() && sum.rest.sum < least_sum(x.len() - 1) {
            sum.rest = TwoTerm { sum: faint_rest(simd, x, sum.max, [T::one(); 2]), error: T::zero() };
        }
        sum
    }

    /// Goes through a row whose maximum is known, and writes `exp(x - max)` to `y`, if that is not empty. The ones are kept
    /// apart or not. On the way it finds the largest entries of a row that comes later, for which the processor would have
    /// nothing else to do than to wait for memory.
    #[inline(always)]
    fn add_exp<const APART: bool, const LATER: bool, S: Simd<T>>(
        &mut self,
        simd: S,
        x: &[T],
        later: &[T],
        y: &mut [T],
    ) {
        let lowest = T::neg_infinity();
        let max = self.max;
        if !max.is_finite() {
            self.add_exp_at_infinity(x, y);
            self.later_max = T::fill(row_max(simd, later));
            return;
        }
        let below_max = BelowMax::new(max);
        let (zero, one, max) = (Lanes::zero(simd), Lanes::splat(simd, T::one()), Lanes::splat(simd, max));
        // Below it an exponential rounds to 0, also where the sum is rounded.
        let zero_below = Lanes::splat(simd, self.max + T::EXP_ZERO_BELOW);
        let (mut rest, mut ones, mut later_max) = (Extended::zero(simd), zero, Lanes::splat(simd, lowest));
        sweep_beside::<T, S, LATER>(
            simd,
            [x, later],
            &mut later_max,
            y,
            #[inline(always)]
            |x: [Lanes<T, S>; GROUP]| {
                let mut results = [zero; GROUP];
                for (result, x) in results.iter_mut().zip(x) {
                    *result = x.share(
                        #[inline(always)]
                        || {
                            let (difference, error) = below_max.apply(x);
                            math::normal_exp(difference, error)
                        },
                    );
                }
                if below_max.has_small_exp(x) {
                    let mut others = x;
                    for (result, x) in results.iter_mut().zip(&mut others) {
                        let is_zero = x.lt(zero_below);
                        *result = is_zero.select(zero, *result);
                        *x = is_zero.select(max, *x);
                    }
                    if below_max.has_small_exp(others) {
                        results = small_exp(simd, below_max, x);
                    }
                }
                let mut terms = results;
                if APART && x[0].larger(x[1]).larger(x[2].larger(x[3])).eq(max).any() {
                    for (term, x) in terms.iter_mut().zip(x) {
                        let is_max = x.eq(max);
                        ones = ones + is_max.select(one, zero);
                        *term = is_max.select(zero, *term);
                    }
                }
                let [a, b, c, d] = terms.map(
                    #[inline(always)]
                    |term| Extended::of(term),
                );
                rest = rest + ((a + b) + (c + d));
                results
            },
        );
        self.rest = rest.store();
        self.ones = ones.store();
        self.later_max = later_max.store();
    }

    /// The same where the maximum is infinite: its like count as 1, and all else as 0.
    #[cold]
    #[inline(never)]
    fn add_exp_at_infinity(&mut self, x: &[T], y: &mut [T]) {
        *self = Self { max: self.max, ..Self::new() };
        let mut ones = 0;
        for (i, &x) in x.iter().enumerate() {
            let is_max = x == self.max;
            ones += usize::from(is_max);
            if x.is_nan() {
                self.rest = [[f64::NAN; 8]; 2];
            }
            if let Some(y) = y.get_mut(i) {
                *y = match x {
                    x if x.is_nan() => x,
                    _ if is_max => T::one(),
                    _ => T::zero(),
                };
            }
        }
        self.ones.as_mut()[0] = T::from(ones).unwrap_or_else(T::max_value);
    }
}

/// From here on it counts for nothing that each of so many exponentials may have been rounded as a subnormal number.
pub(crate) fn least_sum<T: Float>(terms: usize) -> T {
    T::from(terms).unwrap_or_else(T::max_value) * (T::min_positive_value() * T::from(64).expect("a small integer"))
}

/// The sum of the exponentials below the maximum, where one of them or what it is multiplied by makes numbers that are
/// subnormal: as a number and the exponent of the power of two that it is multiplied by.
struct FaintRest<'a, T> {
    x: &'a [T],
    max: T,
    sum: &'a mut T,
    exponent: &'a mut T,
}

impl<T: Float> Kernel for FaintRest<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let lowest = T::neg_infinity();
        let max = Lanes::splat(simd, self.max);
        let (sum, exponent) = sum_with_exponents(
            simd,
            [self.x],
            lowest,
            #[inline(always)]
            |[x]| {
                let (difference, error) = below_max(x.eq(max).select(x.all(lowest), x), self.max);
                let (e, exponent) = math::exp_parts(difference, error);
                ((e, x.all(T::zero())), exponent)
            },
        );
        (*self.sum, *self.exponent) = (sum.value(), exponent);
    }
}

/// `factor / divisor` times the sum of the exponentials below the maximum, rounded as one number however small it is.
#[cold]
pub(crate) fn faint_rest<T: Float, S: Simd<T>>(simd: S, x: &[T], max: T, [factor, divisor]: [T; 2]) -> T {
    let lowest = T::neg_infinity();
    let second = x.iter().fold(lowest, |second, &x| if second < x && x < max { x } else { second });
    // However many there are, they come to nothing where one is so far below the maximum.
    if second - max < T::EXP_ZERO_BELOW * (T::one() + T::one() + T::one()) {
        return T::zero();
    }
    let (mut sum, mut exponent) = (T::zero(), T::zero());
    outline_rare(simd, FaintRest { x, max, sum: &mut sum, exponent: &mut exponent });
    let (factor, power) = math::split_exponent(Lanes::splat(simd, factor));
    let [sum, exponent, divisor] = [sum, exponent, divisor].map(
        #[inline(always)]
        |x| Lanes::splat(simd, x),
    );
    math::scale(factor * sum / divisor, power + exponent).first()
}

/// Replaces the elements of `y`, if it is not empty, by `f` of those of `x`, while it finds the largest of those of `later`.
#[inline(always)]
fn sweep_beside<T: Float, S: Simd<T>, const LATER: bool>(
    simd: S,
    [x, later]: [&[T]; 2],
    later_max: &mut Lanes<T, S>,
    y: &mut [T],
    mut f: impl FnMut([Lanes<T, S>; GROUP]) -> [Lanes<T, S>; GROUP],
) {
    let lowest = T::neg_infinity();
    if !LATER {
        return sweep_groups(
            simd,
            [x],
            lowest,
            y,
            #[inline(always)]
            |[[a], [b], [c], [d]]| f([a, b, c, d]),
        );
    }
    sweep_groups(
        simd,
        [x, later],
        lowest,
        y,
        #[inline(always)]
        |[[a, p], [b, q], [c, r], [d, s]]| {
            *later_max = p.larger(q).larger(r.larger(s)).larger(*later_max);
            f([a, b, c, d])
        },
    );
}

/// The largest entry of a row, if none is NaN.
#[inline(always)]
fn row_max<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> T {
    let mut max = Lanes::splat(simd, T::neg_infinity());
    each_group(
        simd,
        [x],
        T::neg_infinity(),
        #[inline(always)]
        |[[a], [b], [c], [d]]| max = a.larger(b).larger(c.larger(d)).larger(max),
    );
    largest(max)
}

/// The largest of the lanes.
#[inline(always)]
fn largest<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> T {
    x.fold(
        #[inline(always)]
        |a, b| if a < b { b } else { a },
    )
}

/// The exponentials of the differences, some of which may be subnormal.
#[inline(always)]
fn small_exp<T: Float, S: Simd<T>>(simd: S, below_max: BelowMax<T>, x: [Lanes<T, S>; GROUP]) -> [Lanes<T, S>; GROUP] {
    let mut blocks = [T::fill(T::zero()); GROUP];
    for (block, x) in blocks.iter_mut().zip(x) {
        *block = x.store();
    }
    outline_rare(simd, SmallExp { below_max, blocks: &mut blocks });
    let mut results = x;
    for (result, block) in results.iter_mut().zip(&blocks) {
        *result = Lanes::load(simd, block);
    }
    results
}

struct SmallExp<'a, T: Float> {
    below_max: BelowMax<T>,
    blocks: &'a mut [T::Block; GROUP],
}

impl<T: Float> Kernel for SmallExp<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        for block in self.blocks {
            let (difference, error) = self.below_max.apply(Lanes::load(simd, block));
            *block = math::exp_of_difference(difference, error).store();
        }
    }
}

/// Turns `exp(x - max)` in `y` into `factor * softmax(x)`.
///
/// Where the factor is above 1 it may lift a result out of the range in which `exp(x - max)` alone has underflowed: it is
/// then computed again with an exponent of its own.
///
/// A function of its own, as [`row_exp`].
#[inline(always)]
pub(crate) fn row_normalize<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, factor: T, y: &mut [T]) {
    row_normalize_scaled(simd, x, row, (factor, T::zero()), y);
}

/// [`row_normalize`] with the factor `m 2^n`, `(m, n)` being its parts.
#[inline(always)]
pub(crate) fn row_normalize_scaled<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: RowSum<T>,
    factor: (T, T),
    y: &mut [T],
) {
    outline(simd, RowNormalize { x, row, factor, y });
}

struct RowNormalize<'a, T> {
    x: &'a [T],
    row: RowSum<T>,
    /// A number and the power of two that it is multiplied by.
    factor: (T, T),
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
fn row_normalize_inline<T: Float, S: Simd<T>>(simd: S, x: &[T], row: RowSum<T>, (factor, power): (T, T), y: &mut [T]) {
    let weight = row.weight(simd, factor);
    let (weight, weight_error) = (Lanes::splat(simd, weight.sum), Lanes::splat(simd, weight.error));
    if factor.abs() <= T::one() && power.is_zero() || !row.is_plain() {
        sweep(
            simd,
            [],
            [y],
            #[inline(always)]
            |[], [e]| [e.mul_add(weight, e * weight_error)],
        );
    } else {
        let (zero, one) = (Lanes::zero(simd), Lanes::splat(simd, T::one()));
        let (half, double) = (one / (one + one), Lanes::splat(simd, power) + one);
        sweep(
            simd,
            [x],
            [y],
            #[inline(always)]
            |[x], [_]| {
                let (difference, error) = below_max(x, row.max);
                let (e, exponent) = math::exp_parts(difference, error);
                let half = e * half; // below 1: its product with the weight does not overflow
                let result = math::scale(half.mul_add(weight, half * weight_error), exponent + double);
                [e.eq(zero).select(zero, result)] // also where the factor is infinite
            },
        );
    }
}

/// Numbers in two terms, and the exponents of the powers of two that they are multiplied by.
pub(crate) type Raised<T, S> = ((Lanes<T, S>, Lanes<T, S>), Lanes<T, S>);

/// The sum of terms that have exponents of their own, with that of the largest.
///
/// What is multiplied is 0 or between 2^-4 and 2^4 in magnitude. What is missing in the last block is `fill`.
#[inline(always)]
pub(crate) fn sum_with_exponents<T: Float, S: Simd<T>, const N: usize>(
    simd: S,
    inputs: [&[T]; N],
    fill: T,
    term: impl Fn([Lanes<T, S>; N]) -> Raised<T, S>,
) -> (TwoTerm<T>, T) {
    let (zero, lowest) = (Lanes::zero(simd), Lanes::splat(simd, T::neg_infinity()));
    let mut exponents = lowest;
    each_group(
        simd,
        inputs,
        fill,
        #[inline(always)]
        |group| {
            for x in group {
                let ((product, _), exponent) = term(x);
                exponents = product.eq(zero).select(lowest, exponent).larger(exponents);
            }
        },
    );
    let exponent = largest(exponents);
    if exponent == T::neg_infinity() {
        return (TwoTerm::zero(), T::zero());
    }
    let exponents = Lanes::splat(simd, exponent);
    let mut sum = Accumulator::new(simd);
    each_group(
        simd,
        inputs,
        fill,
        #[inline(always)]
        |group| {
            for x in group {
                let ((product, low), exponent) = term(x);
                let down = exponent - exponents;
                sum.add_with_error((math::scale(product, down), math::scale(low, down)));
            }
        },
    );
    (sum.total(), exponent)
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
    sum.value_or_infinity()
}
