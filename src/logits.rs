//! Rows of logits: what they are read as, and what softmax and its kin need to know of their exponentials.

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::Result;
use crate::exponentials::multiply;
use crate::finite::{Index, Operand, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Join, Kernel, Runs, launch, outline, outline_rare};
use crate::lanes::Lanes;
use crate::math;
use crate::reduce::{Accumulator, TwoTerm, sum_terms};
use crate::rows::{RowsSeen, rows_at_once};
use crate::scaled::{Scaled, power};
use crate::simd::Simd;
use crate::sweep::{each_group, sweep};
use crate::view::{Copies, MatMut, MatRef, rows_together};

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
        let bias = self.bias.and_then(|bias| bias.get(i, j));
        let scaled = || if self.scale == T::one() { x } else { x * self.scale };
        let read = || bias.map_or_else(scaled, |bias| self.biased(scaled(), x, bias));
        Some(if self.keeps(i, j) { read() } else { T::neg_infinity() })
    }

    /// A scaled logit with its bias, which may bring back a product of numbers that has left the range.
    fn biased(&self, scaled: T, x: T, bias: T) -> T {
        if scaled.is_infinite() && x.is_finite() { self.in_range(x, Some(bias)).value() } else { scaled + bias }
    }

    /// `scale x + bias`, the product and the sum rounded once each, in a range that nothing leaves.
    fn in_range(&self, x: T, bias: Option<T>) -> Scaled<T> {
        let product = Scaled::new(self.scale, 0).mul(Scaled::new(x, 0));
        bias.map_or(product, |bias| product.add(Scaled::new(bias, 0)))
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
        let Some(x) = self.x.filter(|x| x.area() > 0) else { return Ok(()) };
        let x = if self.is_plain() && x.row_stride() < x.col_stride() { x.t() } else { x }; // in the order of memory
        let mut copy = Vec::new();
        for i in 0..x.rows() {
            let row = self.row(i, x, &mut copy);
            if row.iter().fold(false, |fault, &x| fault | x.is_nan() | (x == T::infinity())) {
                return diagnose(operation, self.operands("x"), [self.as_read()], overflow_or_invalid);
            }
        }
        Ok(())
    }

    /// Row `i` as it is read: where it lies, or copied.
    fn row<'s>(&self, i: usize, x: MatRef<'a, T>, copy: &'s mut Vec<T>) -> &'s [T]
    where
        'a: 's,
    {
        match x.row(i) {
            Some(row) if self.is_plain() => row,
            _ => {
                x.copy_row(i, copy);
                self.read_copy(i, x, copy);
                copy
            }
        }
    }

    /// Some of the rows.
    fn of_rows(self, rows: Range<usize>) -> Self {
        let first = isize::try_from(rows.start).unwrap_or(isize::MAX);
        Self {
            x: self.x.map(|x| x.rows_of(rows.clone())),
            bias: self.bias.map(|bias| bias.rows_of(rows.clone())),
            mask: self.mask.map(|mask| mask.rows_of(rows)),
            causal: self.causal.map(|causal| causal.saturating_add(first)),
            ..self
        }
    }

    /// Copies rows as they are read; `others` are for a bias.
    fn copy_rows<S: Simd<T>>(self, simd: S, x: MatRef<'_, T>, copies: &mut Copies<T>, others: &mut Copies<T>) {
        let copies = copies.copy(x);
        if self.is_plain() {
            return;
        }
        let bias = self.bias.map(|bias| others.contiguous(bias));
        outline(simd, ReadRows { logits: Logits { bias, ..self }, x, copies });
    }

    /// Turns the copy of row `i` of `x` into what it is read as.
    #[inline(always)]
    fn read_copy(&self, i: usize, x: MatRef<'_, T>, copy: &mut [T]) {
        if self.scale != T::one() {
            copy.iter_mut().for_each(|x| *x = *x * self.scale);
        }
        if let Some(bias) = self.bias {
            if self.scale.abs() > T::one() && copy.iter().fold(false, |any, x| any | x.is_infinite()) {
                self.add_bias_to_any(i, x, bias, copy);
            } else {
                bias.zip_row(i, copy, |x, bias| *x = *x + bias);
            }
        }
        self.hide(i, copy);
        if self.is_relative && leaves_range(copy) {
            x.zip_row(i, copy, |copy, x| *copy = x);
            self.read_below_largest(i, copy);
        }
    }

    /// Adds the bias to scaled logits, some of which are infinite.
    #[cold]
    fn add_bias_to_any(&self, i: usize, x: MatRef<'_, T>, bias: MatRef<'_, T>, scaled: &mut [T]) {
        for (scaled, (&x, &bias)) in scaled.iter_mut().zip(x.row_iter(i).zip(bias.row_iter(i))) {
            *scaled = self.biased(*scaled, x, bias);
        }
    }

    /// The same less the largest of them, of a row that leaves the range: what small numbers lose is nothing to that.
    #[cold]
    fn read_below_largest(&self, i: usize, row: &mut [T]) {
        let (down, up) = (power::<T>(-(T::BIAS / 2 + 3)), power::<T>(T::BIAS / 2 + 3));
        // A scale that is lost on the way down does not lift what is lost; but infinities times 0 are no numbers.
        let (scale, low_scale) = (self.scale, self.scale * down);
        row.iter_mut().for_each(|x| *x = if x.is_finite() { (*x * down) * low_scale } else { *x * scale });
        if let Some(bias) = self.bias {
            bias.zip_row(i, row, |x, bias| *x = *x + bias * down * down);
        }
        self.hide(i, row);
        let largest = row.iter().fold(T::neg_infinity(), |largest, &x| largest.max(x));
        if largest.is_finite() {
            row.iter_mut().for_each(|x| *x = (*x - largest) * up * up);
        }
    }

    /// Whether a logit of row `i` counts and is made of numbers alone.
    pub(crate) fn has_logits(&self, i: usize) -> bool {
        let cols = self.x.map_or(0, MatRef::cols);
        (0..cols).any(|j| self.is_of_numbers(i, j))
    }

    /// Whether each of the `cols` logits of row `i` is `-inf` whatever `x` is.
    pub(crate) fn rules_out(&self, i: usize, cols: usize) -> bool {
        let is_possible = |j| self.bias.is_none_or(|bias| bias.get(i, j) != Some(T::neg_infinity()));
        !(0..cols).any(|j| self.keeps(i, j) && is_possible(j))
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

    /// A logit made of numbers alone, in a range that nothing leaves.
    pub(crate) fn wide(&self, i: usize, j: usize) -> Scaled<T> {
        let x = self.x.and_then(|x| x.get(i, j)).unwrap_or_else(T::zero);
        self.in_range(x, self.bias.and_then(|bias| bias.get(i, j)))
    }

    /// Makes `-inf` of what is masked.
    #[inline(always)]
    fn hide(&self, i: usize, row: &mut [T]) {
        if let Some(mask) = self.mask {
            mask.zip_row(i, row, |x, keep| *x = if keep { *x } else { T::neg_infinity() });
        }
        let kept = self.causal_len(i).min(row.len());
        row[kept..].fill(T::neg_infinity());
    }
}

/// Whether a row has no finite number, or `+inf`.
#[inline(always)]
fn leaves_range<T: Float>(row: &[T]) -> bool {
    let (mut any_finite, mut any_infinite) = (false, false);
    for x in row {
        any_finite |= x.is_finite();
        any_infinite |= *x == T::infinity();
    }
    !any_finite || any_infinite
}

/// See [`Logits::read_copy`]: a kernel, so that its loops are compiled for the instruction set.
struct ReadRows<'a, T> {
    logits: Logits<'a, T>,
    x: MatRef<'a, T>,
    copies: MatMut<'a, T>,
}

impl<T: Float> Kernel for ReadRows<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, _: S) {
        let Self { logits, x, mut copies } = self;
        let rows = 0..copies.rows();
        for (i, copy) in copies.rows_mut(rows).enumerate() {
            logits.read_copy(i, x, copy);
        }
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
        let mut scratch = Vec::new();
        let (rows, columns) = (self.output.rows(), self.output.cols());
        let width = self.logits.x.map_or(columns, MatRef::cols);
        let is_direct = self.output.as_ref().has_rows_in_order();
        let is_in_order = |x: MatRef<'_, T>| x.has_rows_in_order();
        let whole = self.logits.x.filter(|&x| self.logits.is_plain() && is_in_order(x));
        let is_copied = whole.is_none() || !is_direct;
        let at_once = if !is_copied {
            rows.max(1)
        } else if is_direct && self.logits.x.is_none_or(is_in_order) {
            rows_at_once::<T>(width)
        } else {
            rows_together::<T>(width)
        };
        let [mut results, mut copies, mut biases, unused] = if is_copied { Copies::take() } else { Default::default() };
        for start in (0..rows).step_by(at_once) {
            let (first, count) = (self.first + start, at_once.min(rows - start));
            let x = match whole {
                Some(x) => x.rows_of(first..first + count),
                None => {
                    let logits = self.logits.of_rows(first..first + count);
                    let x = logits.x.unwrap_or_else(|| self.output.as_ref().rows_of(start..start + count));
                    logits.copy_rows(simd, x, &mut copies, &mut biases);
                    copies.as_ref()
                }
            };
            let y = if is_direct { self.output.rows_of(start..start + count) } else { results.shaped(count, columns) };
            let values = self.values.get_mut(start..start + count).unwrap_or(&mut []);
            // In one place: it is compiled once.
            seen = seen.join(self.formula.apply(simd, first, x, y, values, &mut scratch));
            if !is_direct {
                self.output.rows_of(start..start + count).copy_from(results.as_ref());
            }
        }
        if is_copied {
            Copies::keep([results, copies, biases, unused]);
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
    pub(crate) ones: T,
    /// The sum of the others.
    pub(crate) rest: TwoTerm<T>,
    /// What the exponentials were multiplied by when they were written.
    pub(crate) unit: TwoTerm<T>,
}

impl<T: Float> RowSum<T> {
    /// Of a row without entries.
    pub(crate) fn none() -> Self {
        let unit = TwoTerm { sum: T::one(), error: T::zero() };
        Self { max: T::neg_infinity(), ones: T::zero(), rest: TwoTerm::zero(), unit }
    }

    /// Of a row with an infinite maximum: its like count as 1, and all else as 0.
    pub(crate) fn at_infinity(x: &[T], max: T) -> Self {
        let ones = T::from(x.iter().filter(|&&x| x == max).count()).unwrap_or_else(T::max_value);
        let sum = if x.iter().any(|x| x.is_nan()) { T::nan() } else { T::zero() };
        Self { max, ones, rest: TwoTerm { sum, error: T::zero() }, ..Self::none() }
    }

    /// Whether all but one of so many exponentials are so small that their sum may have lost digits.
    pub(crate) fn is_faint(&self, len: usize) -> bool {
        self.is_max_unique() && self.rest.sum < least_sum(len - 1)
    }

    /// Sums such exponentials once more, in a way that loses none.
    #[inline(always)]
    pub(crate) fn mend_if_faint<S: Simd<T>>(&mut self, simd: S, x: &[T]) {
        if self.is_faint(x.len()) {
            self.rest = TwoTerm { sum: faint_rest(simd, x, self.max, [T::one(); 2]), error: T::zero() };
        }
    }

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

    /// `sum(exp(x - max))` in the units in which the exponentials were written.
    #[inline(always)]
    pub(crate) fn written_total<S: Simd<T>>(&self, simd: S) -> TwoTerm<T> {
        let (total, unit) = (self.total(), self.unit);
        let product = total.sum * unit.sum;
        let error = fma(simd, total.sum, unit.sum, -product);
        TwoTerm { sum: product, error: error + (total.sum * unit.error + total.error * unit.sum) }
    }

    /// A sum in the units in which the exponentials were written, in those of `exp(x - max)`.
    #[inline(always)]
    pub(crate) fn in_units_of_max<S: Simd<T>>(&self, simd: S, sum: TwoTerm<T>) -> TwoTerm<T> {
        let quotient = sum.sum / self.unit.sum;
        let residue = fma(simd, -quotient, self.unit.sum, sum.sum) + (sum.error - quotient * self.unit.error);
        TwoTerm { sum: quotient, error: residue / self.unit.sum }
    }

    /// `factor / sum(exp(x - max))`, as an unevaluated pair.
    #[inline(always)]
    pub(crate) fn weight<S: Simd<T>>(&self, simd: S, factor: T) -> TwoTerm<T> {
        quotient(simd, factor, self.total())
    }

    /// What a written exponential is multiplied by to become `factor` times a probability, as an unevaluated pair.
    #[inline(always)]
    fn written_weight<S: Simd<T>>(&self, simd: S, factor: T) -> TwoTerm<T> {
        quotient(simd, factor, self.written_total(simd))
    }
}

/// `factor / sum`, as an unevaluated pair.
#[inline(always)]
fn quotient<T: Float, S: Simd<T>>(simd: S, factor: T, sum: TwoTerm<T>) -> TwoTerm<T> {
    let one = T::one();
    let inverse = one / sum.sum;
    let residual = fma(simd, -inverse, sum.sum, one) - inverse * sum.error;
    let product = factor * inverse;
    let error = fma(simd, factor, inverse, -product) + product * residual;
    // The rounding error of an infinite product is NaN.
    TwoTerm { sum: product, error: if product.is_infinite() { T::zero() } else { error } }
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

/// The largest entry of a row in each lane.
#[inline(always)]
pub(crate) fn lane_maxima<T: Float, S: Simd<T>>(simd: S, x: &[T]) -> Lanes<T, S> {
    let mut max = Lanes::splat(simd, T::neg_infinity());
    each_group(
        simd,
        [x],
        T::neg_infinity(),
        #[inline(always)]
        |[[a], [b], [c], [d]]| max = a.larger(b).larger(c.larger(d)).larger(max),
    );
    max
}

/// The largest of the lanes.
#[inline(always)]
pub(crate) fn largest<T: Float, S: Simd<T>>(x: Lanes<T, S>) -> T {
    x.fold(
        #[inline(always)]
        |a, b| if a < b { b } else { a },
    )
}

/// Turns the exponentials of a row that were written to `y` into `factor * softmax(x)`.
///
/// Where the factor is above 1 it may lift a result out of the range in which the exponential alone has underflowed: it is
/// then computed again with an exponent of its own.
#[inline(always)]
pub(crate) fn row_normalize<T: Float, S: Simd<T>>(simd: S, x: &[T], row: &RowSum<T>, factor: T, y: &mut [T]) {
    if factor.abs() <= T::one() || !row.is_plain() {
        let weight = row.written_weight(simd, factor);
        multiply(Lanes::splat(simd, weight.sum), Lanes::splat(simd, weight.error), y);
    } else {
        row_normalize_scaled(simd, x, row, (factor, T::zero()), y);
    }
}

/// The same with the factor `m 2^n`, `(m, n)` being its parts, from the row.
pub(crate) fn row_normalize_scaled<T: Float, S: Simd<T>>(
    simd: S,
    x: &[T],
    row: &RowSum<T>,
    factor: (T, T),
    y: &mut [T],
) {
    outline_rare(simd, RowNormalize { x, row, factor, y });
}

struct RowNormalize<'a, T> {
    x: &'a [T],
    row: &'a RowSum<T>,
    /// A number and the power of two that it is multiplied by.
    factor: (T, T),
    y: &'a mut [T],
}

impl<T: Float> Kernel for RowNormalize<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { x, row, factor: (factor, power), y } = self;
        let weight = row.weight(simd, factor);
        let (weight, weight_error) = (Lanes::splat(simd, weight.sum), Lanes::splat(simd, weight.error));
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
