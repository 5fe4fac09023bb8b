//! Passes over rows of logits that add their exponentials: for softmax, which divides by the sum, and for log-sum-exp, which
//! takes its logarithm.
//!
//! As many rows as a block has lanes are gone through together: what is worked out once for a row is then worked out for all
//! of them at once, and it is a block of rows that the next step waits for.

use alloc::vec::Vec;
use core::ops::{Add, Range};

use crate::float::{Float, Format};
use crate::kernel::{Kernel, outline, outline_rare};
use crate::lanes::{Lanes, Mask};
use crate::logits::{RowSum, lane_maxima, largest, least_sum};
use crate::math;
use crate::math::relative_exp::{RelativeExp, far_from, limit};
use crate::moments::Extended;
use crate::reduce::TwoTerm;
use crate::rows::rows_at_once;
use crate::simd::Simd;
use crate::sweep::{load_tail, map_row, store_tail};
use crate::view::{MatMut, MatRef};

/// The lanes of a block of the smallest type.
const MOST_LANES: usize = 16;

/// A block for each of as many rows as a block has lanes.
type Square<T> = [<T as Format>::Block; MOST_LANES];

/// What is known of each of a block of rows.
pub(crate) struct RowSums<T: Float> {
    len: usize,
    max: T::Block,
    /// Of the entries that are the maximum, how many: see [`RowSum`].
    ones: T::Block,
    /// The sum of the exponentials, in two terms: without the maxima and in units of theirs, if these are kept apart; else of
    /// all and in units of their own, those in which they are written.
    sum: T::Block,
    error: T::Block,
    /// The exponential of the maximum as it is written, in two terms.
    unit: [T::Block; 2],
}

impl<T: Float> RowSums<T> {
    /// Goes through rows that lie in one piece, but those that are to be skipped, and calls `f` with what it finds of each block
    /// of them, their numbers and `y`. The maxima are kept apart or not. To `y`, if it has columns, `result` of the entries,
    /// their exponentials and the maximum is written; the entries of a row with a large maximum are taken less that, and its
    /// maximum as 0.
    #[inline(always)]
    pub(crate) fn each<const APART: bool, S: Simd<T>>(
        simd: S,
        x: MatRef<'_, T>,
        mut y: MatMut<'_, T>,
        is_skipped: impl Fn(usize) -> bool,
        result: impl Fn(Lanes<T, S>, Lanes<T, S>, Lanes<T, S>) -> Lanes<T, S>,
        mut f: impl FnMut(&Self, Range<usize>, &mut MatMut<'_, T>),
    ) {
        let at_once = rows_at_once::<T>(x.cols());
        let [zero, lowest] = [T::zero(), T::neg_infinity()].map(T::fill);
        let mut differences = Vec::new();
        let mut largest: Square<T> = [zero; MOST_LANES]; // also where there is no row
        for (largest, x) in largest.iter_mut().zip(x.rows_in(0..at_once)) {
            *largest = lane_maxima(simd, x).store();
        }
        let (mut ones, mut sums, mut errors): (Square<T>, Square<T>, Square<T>) =
            ([zero; MOST_LANES], [zero; MOST_LANES], [zero; MOST_LANES]);
        for start in (0..x.rows()).step_by(at_once) {
            let end = x.rows().min(start + at_once);
            let max = across(
                Lanes::load(simd, &lowest),
                &mut largest,
                #[inline(always)]
                |max, lane| lane.larger(max),
            );
            let (near, is_near) = nearest(max);
            let (exp, maxima, near_maxima) = (RelativeExp::new(near), max.store(), near.store());
            let pivots = exp.pivots();
            let later = x.rows_in(end..end + at_once).map(Some).chain(core::iter::repeat(None));
            let mut written = y.rows_of(start..end);
            for (i, (x, later)) in x.rows_in(start..end).zip(later).enumerate() {
                let (max, later) = (Lanes::splat(simd, near_maxima.as_ref()[i]), later.unwrap_or(x));
                if is_skipped(start + i) {
                    largest[i] = lane_maxima(simd, later).store();
                    continue;
                }
                let x = if is_near { x } else { less_far(x, maxima.as_ref()[i], &mut differences) };
                let mut pass = Pass::<APART, T, S>::new(RelativeExp::with_pivot(simd, pivots.as_ref()[i]), max);
                pass.go_through(
                    [x, later],
                    written.row_mut(i).unwrap_or(&mut []),
                    #[inline(always)]
                    |x, e| result(x, e, max),
                );
                (sums[i], errors[i], largest[i]) = (pass.sum.store(), pass.error.store(), pass.largest.store());
                if APART {
                    ones[i] = pass.ones.store();
                }
            }
            let mut found = Self::add_up::<APART, S>(simd, [&mut ones, &mut sums, &mut errors], exp, near);
            (found.len, found.max) = (end - start, maxima);
            if APART {
                found.mend(simd, x, start..end);
            }
            f(&found, start..end, &mut y);
        }
    }

    /// Adds the lanes of each row.
    #[inline(always)]
    fn add_up<const APART: bool, S: Simd<T>>(
        simd: S,
        [ones, sums, errors]: [&mut Square<T>; 3],
        exp: RelativeExp<T, S>,
        max: Lanes<T, S>,
    ) -> Self {
        let (zero, first) = (Lanes::zero(simd), Lanes::splat(simd, first::<APART, T>()));
        let mut error = zero;
        let mut sum = across(
            zero,
            sums,
            #[inline(always)]
            |sum, lane| {
                let (sum, rounding) = sum.two_sum(lane - first);
                error = error + rounding;
                sum
            },
        );
        error = across(error, errors, Add::add);
        let ones = if APART { across(zero, ones, Add::add) } else { zero };
        let (unit, unit_error) = exp.of_max(max);
        if APART {
            // In units of what the maxima give.
            let quotient = sum / unit;
            let residue = (-quotient).mul_add(unit, sum) + (error - quotient * unit_error);
            (sum, error) = (quotient, residue / unit);
        } else {
            error = error + exp.lack_of_max(max);
        }
        let unit = [unit.store(), unit_error.store()];
        Self { len: 0, max: max.store(), ones: ones.store(), sum: sum.store(), error: error.store(), unit }
    }

    /// Sums once more what the sums above do not tell: of rows whose maximum is infinite, and of those in which all others are
    /// so far below it that their sum lost digits.
    #[inline(always)]
    fn mend<S: Simd<T>>(&mut self, simd: S, x: MatRef<'_, T>, rows: Range<usize>) {
        let (ones, sum) = (Lanes::load(simd, &self.ones), Lanes::load(simd, &self.sum));
        let is_faint = ones.eq(ones.all(T::one())) & sum.lt(sum.all(least_sum(x.cols())));
        if (is_faint | !sum.eq(sum)).any() {
            for (i, x) in x.rows_in(rows).enumerate() {
                self.mend_row(simd, i, x);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn mend_row<S: Simd<T>>(&mut self, simd: S, i: usize, x: &[T]) {
        let mut row = self.row(i);
        if !row.max.is_finite() {
            row = RowSum::at_infinity(x, row.max);
        } else {
            row.mend_if_faint(simd, x);
        }
        for (place, unit) in self.unit.iter_mut().zip([row.unit.sum, row.unit.error]) {
            place.as_mut()[i] = unit;
        }
        self.ones.as_mut()[i] = row.ones;
        (self.sum.as_mut()[i], self.error.as_mut()[i]) = (row.rest.sum, row.rest.error);
    }

    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> RowSum<T> {
        let of_row = |[sum, error]: [&T::Block; 2]| TwoTerm { sum: sum.as_ref()[i], error: error.as_ref()[i] };
        let (rest, unit) = (of_row([&self.sum, &self.error]), of_row(self.unit.each_ref()));
        RowSum { max: self.max.as_ref()[i], ones: self.ones.as_ref()[i], rest, unit }
    }

    #[inline(always)]
    pub(crate) fn maxima<S: Simd<T>>(&self, simd: S) -> Lanes<T, S> {
        Lanes::load(simd, &self.max)
    }

    /// Whether all maxima are less than this in size and no sum is NaN.
    #[inline(always)]
    pub(crate) fn have_maxima_below<S: Simd<T>>(&self, simd: S, limit: T) -> bool {
        let (max, sum) = (self.maxima(simd), Lanes::load(simd, &self.sum));
        let is_usual = max.abs().lt(max.all(limit)) & sum.eq(sum);
        (is_usual | !Mask::first(simd, self.len)).all()
    }

    /// `ln(sum(exp(x - max)))`, where the maxima are kept apart: rounded, and what it lacks.
    #[inline(always)]
    pub(crate) fn logs<S: Simd<T>>(&self, simd: S) -> (Lanes<T, S>, Lanes<T, S>) {
        let [ones, rest, error] = [&self.ones, &self.sum, &self.error].map(
            #[inline(always)]
            |block| Lanes::load(simd, block),
        );
        let (total, rounding) = ones.two_sum(rest);
        let (total, error) = total.fast_two_sum(rounding + error);
        math::ln_parts(total, error)
    }

    /// `ln(sum(exp(x)))`, where the maxima are kept apart.
    #[inline(always)]
    pub(crate) fn log_sums<S: Simd<T>>(&self, simd: S) -> Lanes<T, S> {
        let (log, rest) = self.logs(simd);
        // They may nearly cancel.
        let (sum, error) = log.two_sum(self.maxima(simd));
        let result = sum + (error + rest);
        result.eq(result).select(result, sum) // the rounding error of an infinite sum is NaN
    }

    /// What the exponentials of each row are multiplied by to become probabilities.
    #[inline(always)]
    pub(crate) fn weights<S: Simd<T>>(&self, simd: S) -> Weights<T> {
        let [sum, error, one] =
            [Lanes::load(simd, &self.sum), Lanes::load(simd, &self.error), Lanes::splat(simd, T::one())];
        let weight = one / sum;
        let residue = (-weight).mul_add(sum, one) - weight * error;
        Weights { weights: weight.store(), errors: (weight * residue).store() }
    }
}

/// A factor for each of a block of rows, in two terms.
pub(crate) struct Weights<T: Float> {
    weights: T::Block,
    errors: T::Block,
}

impl<T: Float> Weights<T> {
    /// Multiplies row `i`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd<T>>(&self, simd: S, i: usize, y: &mut [T]) {
        let weight = Lanes::splat(simd, self.weights.as_ref()[i]);
        let error = Lanes::splat(simd, self.errors.as_ref()[i]);
        multiply(weight, error, y);
    }
}

/// Multiplies a row by a factor in two terms.
#[inline(always)]
pub(crate) fn multiply<T: Float, S: Simd<T>>(factor: Lanes<T, S>, error: Lanes<T, S>, y: &mut [T]) {
    map_row(
        factor.simd,
        y,
        #[inline(always)]
        |e| e.mul_add(factor, e * error),
    );
}

/// Goes through a row once for the maximum and once for the sum, and writes the exponentials to `y`, if that is not empty, in
/// the units that the result names.
///
/// A function of its own, which the formulas share; [`RowSums::each`] is faster where rows are short.
#[inline(always)]
pub(crate) fn row_exp<T: Float, S: Simd<T>>(simd: S, x: &[T], y: &mut [T]) -> RowSum<T> {
    let mut sum = RowSum::none();
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
        let Self { x, y, sum } = self;
        let max = largest(lane_maxima(simd, x));
        if !max.is_finite() {
            *sum = RowSum::at_infinity(x, max);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = match x {
                    x if x.is_nan() => x,
                    x if x == max => T::one(),
                    _ => T::zero(),
                };
            }
            return;
        }
        let (near, is_near) = nearest(Lanes::splat(simd, max));
        let mut differences = Vec::new();
        let entries = if is_near { x } else { less_far(x, max, &mut differences) };
        let mut pass = Pass::<true, T, S>::new(RelativeExp::new(near), near);
        pass.go_through(
            [entries, x],
            y,
            #[inline(always)]
            |_, e| e,
        );
        let ones = Extended::of(pass.ones).total().narrow().sum;
        let (unit, error) = pass.exp.of_max(near);
        let unit = TwoTerm { sum: unit.first(), error: error.first() };
        let rest = Extended::of_terms(pass.sum, pass.error).total().narrow();
        *sum = RowSum { max, ones, rest, unit };
        sum.rest = sum.in_units_of_max(simd, rest);
        sum.mend_if_faint(simd, x);
    }
}

/// The maxima, 0 for those that are too far from it, and whether none is.
#[inline(always)]
fn nearest<T: Float, S: Simd<T>>(max: Lanes<T, S>) -> (Lanes<T, S>, bool) {
    let is_near = max.abs().lt(max.all(far_from()));
    (is_near.select(max, max.all(T::zero())), is_near.all())
}

/// The entries of a row, less the maximum if that is far from 0.
#[cold]
fn less_far<'a, T: Float>(x: &'a [T], max: T, differences: &'a mut Vec<T>) -> &'a [T] {
    if max.abs() < far_from() {
        return x;
    }
    differences.clear();
    differences.extend(x.iter().map(|&x| x - max));
    differences
}

/// The lanes of each block joined to the first one, the results in the order of the blocks.
#[inline(always)]
fn across<T: Float, S: Simd<T>>(
    first: Lanes<T, S>,
    blocks: &mut Square<T>,
    mut join: impl FnMut(Lanes<T, S>, Lanes<T, S>) -> Lanes<T, S>,
) -> Lanes<T, S> {
    let mut joined = first;
    first.simd.transpose(
        T::flatten_mut(blocks),
        T::LANES,
        T::LANES,
        #[inline(always)]
        |_, lane| joined = join(joined, Lanes::new(first.simd, lane)),
    );
    joined
}

/// What the sum of a lane starts with: no exponential exceeds it, so that rounding errors are easily had, but where the sum
/// must be right however small it is.
fn first<const APART: bool, T: Float>() -> T {
    if APART { T::zero() } else { limit() }
}

/// Blocks that are gone through together. Of more the registers of AVX2 do not hold what is worked out.
const TOGETHER: usize = 2;

/// After so many times the error of a sum is added to it, so that it is small again, however many there are.
const SETTLE_EVERY: usize = 128;

/// A pass over a row, which adds the exponentials. On the way it finds the largest entries of a row that comes later, for
/// which the processor would have nothing else to do than to wait for memory.
struct Pass<const APART: bool, T: Float, S: Simd<T>> {
    exp: RelativeExp<T, S>,
    max: Lanes<T, S>,
    ones: Lanes<T, S>,
    /// The sum and its rounding error.
    sum: Lanes<T, S>,
    error: Lanes<T, S>,
    /// The largest entries of the other row.
    largest: Lanes<T, S>,
}

impl<const APART: bool, T: Float, S: Simd<T>> Pass<APART, T, S> {
    #[inline(always)]
    fn new(exp: RelativeExp<T, S>, max: Lanes<T, S>) -> Self {
        let (zero, sum) = (max.all(T::zero()), max.all(first::<APART, T>()));
        Self { exp, max, ones: zero, sum, error: zero, largest: max.all(T::neg_infinity()) }
    }

    /// Writes to `y`, if that is not empty, the results of entries and their exponentials.
    #[expect(clippy::eq_op, reason = "0, or NaN")]
    #[inline(always)]
    fn go_through(
        &mut self,
        [x, later]: [&[T]; 2],
        y: &mut [T],
        result: impl Fn(Lanes<T, S>, Lanes<T, S>) -> Lanes<T, S>,
    ) {
        let (simd, lowest) = (self.sum.simd, T::neg_infinity());
        let whole = x.len() - x.len() % (TOGETHER * T::LANES);
        let ((x, x_rest), (later, later_rest)) = (x.split_at(whole), later.split_at(whole));
        let (y, y_rest) = y.split_at_mut(whole.min(y.len()));
        let groups = T::blocks(x).0.as_chunks::<TOGETHER>().0.iter().zip(T::blocks(later).0.as_chunks().0);
        let y = T::blocks_mut(y).0.as_chunks_mut::<TOGETHER>().0;
        for (i, (x, later)) in groups.enumerate() {
            let x = load_all(simd, x);
            let exponentials: [_; TOGETHER] = self.step(x, load_all(simd, later));
            if let Some(y) = y.get_mut(i) {
                for ((y, x), e) in y.iter_mut().zip(x).zip(exponentials) {
                    *y = result(x, e).store();
                }
            }
            if i % SETTLE_EVERY == SETTLE_EVERY - 1 {
                (self.sum, self.error) = self.sum.fast_two_sum(self.error);
            }
        }
        let mut y = y_rest.chunks_mut(T::LANES);
        for (x, later) in x_rest.chunks(T::LANES).zip(later_rest.chunks(T::LANES)) {
            let [x, later] = [load_tail(simd, x, lowest), load_tail(simd, later, lowest)];
            let [e] = self.step([x], [later]);
            if let Some(y) = y.next() {
                store_tail(result(x, e), y);
            }
        }
        // Of two terms of which one is NaN the larger may be the other one; but their error is NaN.
        self.sum = self.sum + (self.error - self.error);
    }

    #[inline(always)]
    fn step<const N: usize>(&mut self, x: [Lanes<T, S>; N], later: [Lanes<T, S>; N]) -> [Lanes<T, S>; N] {
        let exp = self.exp;
        let results = exp.of(
            x,
            #[inline(always)]
            |results| {
                for (result, x) in results.iter_mut().zip(x) {
                    let mut blocks = SmallExponentials { pivot: exp.pivots(), x: x.store(), result: result.store() };
                    outline_rare(x.simd, &mut blocks);
                    *result = Lanes::load(x.simd, &blocks.result);
                }
            },
        );
        let mut terms = results;
        if APART {
            self.set_apart(x, &mut terms);
        }
        for (term, later) in terms.into_iter().zip(later) {
            self.add(term);
            self.largest = later.larger(self.largest);
        }
        results
    }

    /// Counts the maxima and takes them out of the terms.
    #[inline(always)]
    fn set_apart<const N: usize>(&mut self, x: [Lanes<T, S>; N], terms: &mut [Lanes<T, S>; N]) {
        let (zero, max) = (self.sum.all(T::zero()), self.max);
        let mut largest = x[0];
        for &x in &x[1..] {
            largest = x.larger(largest);
        }
        if largest.eq(max).any() {
            for (term, x) in terms.iter_mut().zip(x) {
                let is_max = x.eq(max);
                self.ones = self.ones + is_max.select(x.all(T::one()), zero);
                *term = is_max.select(zero, *term);
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, term: Lanes<T, S>) {
        let (sum, error) = if APART {
            self.sum.larger(term).fast_two_sum(self.sum.smaller(term))
        } else {
            self.sum.fast_two_sum(term)
        };
        (self.sum, self.error) = (sum, self.error + error);
    }
}

#[inline(always)]
fn load_all<T: Float, S: Simd<T>, const N: usize>(simd: S, blocks: &[T::Block; N]) -> [Lanes<T, S>; N] {
    let mut lanes = [Lanes::zero(simd); N];
    for (lanes, block) in lanes.iter_mut().zip(blocks) {
        *lanes = Lanes::load(simd, block);
    }
    lanes
}

/// See [`RelativeExp::with_small`].
struct SmallExponentials<T: Float> {
    pivot: T::Block,
    x: T::Block,
    result: T::Block,
}

impl<T: Float> Kernel for &mut SmallExponentials<T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let exp = RelativeExp::with_pivot(simd, self.pivot.as_ref()[0]);
        self.result = exp.with_small(Lanes::load(simd, &self.x), Lanes::load(simd, &self.result)).store();
    }
}
