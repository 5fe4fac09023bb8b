//! What becomes of a row by its own sums: the one kernel of statistics, norms and normalisations, and the one of their
//! gradients. The sums are taken by kernels of [`moments`](crate::moments), what is worked out from them once for a row
//! is in [`Long`] numbers, and here are the passes that write.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::Result;
use crate::finite::Watch;
use crate::float::Float;
use crate::kernel::{Join, Kernel, outline};
use crate::lanes::Lanes;
use crate::long::Long;
use crate::moments::{Center, InF64, Moments, exponent, products};
use crate::reduce::TwoTerm;
use crate::rows::{RowFormula, RowsSeen, apply, each_row};
use crate::scaled::{exponent_of, power};
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::view::{MatMut, MatRef};

/// What a row is mapped to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowFunction<T> {
    /// The mean.
    Mean,
    /// The variance, with this many degrees of freedom less.
    Variance(usize),
    /// The root of the variance.
    Std(usize),
    /// The L1 norm.
    L1Norm,
    /// The L2 norm.
    L2Norm,
    /// The cosine of the angle to another row.
    Cosine,
    /// The gradient of the variance, from that of the result.
    VarianceGradient(usize),
    /// The gradient of the standard deviation.
    StdGradient(usize),
    /// The gradient of the L2 norm.
    L2NormGradient,
    /// The normalisation of a row.
    Unit(Unit<T>),
}

/// What a row is divided by when it is normalised.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit<T> {
    /// `sqrt(variance + eps)`, after the mean is subtracted.
    Deviation(T),
    /// `sqrt(mean square + eps)`.
    RootMeanSquare(T),
    /// The larger of the L2 norm and `eps`.
    Norm(T),
}

/// A row in units of its own: `(x - mean) * rate`.
struct Standard {
    mean: Long,
    rate: Long,
    /// Whether the rate depends on the row.
    is_own: bool,
}

impl<T: Float> Unit<T> {
    fn center(self) -> Center {
        if matches!(self, Self::Deviation(_)) { Center::Mean } else { Center::Zero }
    }

    /// The rate is 0 where nothing is left to divide.
    fn standard(self, moments: &Moments) -> Standard {
        let (mean, norm, is_own) = match self {
            Self::Deviation(eps) => (moments.mean(), moments.variance(0).add(Long::of(eps)).sqrt(), true),
            Self::RootMeanSquare(eps) => (Long::ZERO, moments.mean_square().add(Long::of(eps)).sqrt(), true),
            Self::Norm(eps) => {
                let (norm, eps) = (moments.squares().sqrt(), Long::of(eps));
                let is_own = norm.is_above(eps);
                (Long::ZERO, if is_own { norm } else { eps }, is_own)
            }
        };
        let rate = if norm.is_zero() { Long::ZERO } else { Long::of(T::one()).div(norm) };
        Standard { mean, rate, is_own }
    }
}

impl<T: Float> Unit<T> {
    /// The normalisation by numbers of `f64`, where their digits are enough.
    fn line(self, moments: &Moments) -> Option<Line<T>> {
        let InF64 { count, mean, squares, deviations } = moments.in_f64::<T>()?;
        let sqrt = <f64 as num_traits::Float>::sqrt;
        let (mean, norm) = match self {
            Self::Deviation(eps) => (mean, sqrt(deviations / count + eps.to_f64()?)),
            Self::RootMeanSquare(eps) => (TwoTerm::zero(), sqrt(squares / count + eps.to_f64()?)),
            Self::Norm(eps) => (TwoTerm::zero(), sqrt(squares).max(eps.to_f64()?)),
        };
        Some(Line::from_f64(mean, if norm == 0.0 { 0.0 } else { norm.recip() }))
    }
}

impl<T: Float> RowFunction<T> {
    fn center(self) -> Center {
        match self {
            Self::L1Norm => Center::Magnitude,
            Self::L2Norm | Self::L2NormGradient | Self::Cosine => Center::Zero,
            Self::Unit(unit) => unit.center(),
            _ => Center::Mean,
        }
    }

    /// What to write, `g` being the upstream gradient.
    #[inline(never)]
    fn plan(self, moments: &Moments, g: T) -> Plan<T> {
        let free = |ddof| Long::count(moments.len() - ddof);
        let (mean, factor) = match self {
            Self::Mean => return Plan::Value(moments.mean().round(0)),
            Self::Variance(ddof) => return Plan::Value(moments.variance(ddof).round(0)),
            Self::Std(ddof) => return Plan::Value(moments.variance(ddof).sqrt().round(0)),
            Self::L1Norm => return Plan::Value(moments.sum().round(0)),
            Self::L2Norm | Self::Cosine => return Plan::Value(moments.squares().sqrt().round(0)),
            Self::VarianceGradient(ddof) => {
                let g = Long::of(g);
                (moments.mean(), g.add(g).div(free(ddof)))
            }
            Self::StdGradient(ddof) => {
                let std = moments.variance(ddof).sqrt();
                if std.is_zero() {
                    return Plan::Value(T::zero());
                }
                (moments.mean(), Long::of(g).div(free(ddof)).div(std))
            }
            Self::L2NormGradient => {
                let norm = moments.squares().sqrt();
                if norm.is_zero() {
                    return Plan::Value(T::zero());
                }
                (Long::ZERO, Long::of(g).div(norm))
            }
            Self::Unit(unit) => {
                let Standard { mean, rate, .. } = unit.standard(moments);
                (mean, rate)
            }
        };
        Plan::Line { mean, factor }
    }
}

/// What a row is overwritten with.
enum Plan<T> {
    /// One number.
    Value(T),
    /// `(x - mean) * factor`.
    Line { mean: Long, factor: Long },
}

/// `(x - mean) * factor`, in the order `(x * scale - mean) * factor` with a power of two as scale, and a factor of about
/// 1/8 so that what is subnormal is rounded once. Mean and factor in two terms.
#[derive(Clone, Copy, Debug)]
struct Line<T> {
    scale: T,
    mean: TwoTerm<T>,
    factor: TwoTerm<T>,
}

impl<T: Float> Line<T> {
    #[inline(never)]
    fn new(mean: Long, factor: Long) -> Self {
        let exponent = Self::exponent(mean.log2(), factor.log2());
        Self { scale: power(-exponent), mean: mean.parts(-exponent), factor: factor.parts(exponent) }
    }

    /// The same, of numbers whose products with the scale are normal.
    #[inline(never)]
    fn from_f64(mean: TwoTerm<f64>, factor: f64) -> Self {
        let exponent = Self::exponent(exponent_of(mean.value()), exponent_of(factor));
        let scale = power::<f64>(-exponent);
        let two_terms = |x: TwoTerm<f64>, scale: f64| {
            let sum = T::from(x.value() * scale).unwrap_or_else(T::nan);
            let error = (x.sum * scale - sum.to_f64().unwrap_or(f64::NAN)) + x.error * scale;
            TwoTerm { sum, error: if sum.is_normal() { T::from(error).unwrap_or_else(T::nan) } else { T::zero() } }
        };
        let factor = TwoTerm { sum: factor, error: 0.0 };
        Self { scale: power(-exponent), mean: two_terms(mean, scale), factor: two_terms(factor, 1.0 / scale) }
    }

    /// The exponent of what a row is divided by, from those of the mean and of the factor.
    fn exponent(mean: i32, factor: i32) -> i32 {
        let room = T::BIAS - 27;
        (-4 - factor).max(mean - room).clamp(2 - T::BIAS, T::BIAS - 2)
    }

    fn nan() -> Self {
        let nan = TwoTerm { sum: T::nan(), error: T::nan() };
        Self { scale: T::one(), mean: nan, factor: nan }
    }

    /// The result for the lanes of `x`, within 1.5 ULP: where the first subtraction rounds, the second term of the mean
    /// is far below it.
    #[inline(always)]
    fn apply<S: Simd<T>>(self, x: Lanes<T, S>) -> Lanes<T, S> {
        let difference = x * x.all(self.scale) - x.all(self.mean.sum);
        let low = difference * x.all(self.factor.error) - x.all(self.mean.error * self.factor.sum);
        difference.mul_add(x.all(self.factor.sum), low)
    }
}

/// Writes `y = line(x) * weight + bias`; without weights `y = line(x)`.
#[derive(Debug)]
struct WriteLine<'a, T> {
    line: Line<T>,
    x: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    y: &'a mut [T],
}

impl<T: Float> Kernel for WriteLine<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Self { line, x, weight, bias, y } = self;
        let mut watch = Watch::new(simd);
        if weight.is_empty() {
            sweep(
                simd,
                [x],
                [y],
                #[inline(always)]
                |[x], [_]| {
                    let y = line.apply(x);
                    watch.see(y);
                    [y]
                },
            );
        } else {
            sweep(
                simd,
                [x, weight, bias],
                [y],
                #[inline(always)]
                |[x, weight, bias], [_]| {
                    let y = line.apply(x).mul_add(weight, bias);
                    watch.see(y);
                    [y]
                },
            );
        }
        watch.all_finite()
    }
}

/// Maps each row to one number or to a row, by its sums. The second input is another row or an upstream gradient.
#[derive(Clone, Copy, Debug)]
pub struct RowMap<'a, T> {
    pub(crate) map: RowFunction<T>,
    /// Either both are as long as a row or both are empty.
    pub(crate) weight: &'a [T],
    pub(crate) bias: &'a [T],
}

/// Maps each row of `x`, `g` being the upstream gradients or one number for all; whether all is finite.
pub(crate) fn map_rows<T: Float>(map: RowFunction<T>, x: MatRef<'_, T>, g: &[T], y: MatMut<'_, T>) -> Result<bool> {
    let g = MatRef::with_strides(g, x.rows(), 1, usize::from(g.len() > 1), 1)?;
    Ok(apply(RowMap { map, weight: &[], bias: &[] }, [x, g], y)?.finite)
}

impl<T: Float> RowFormula<T, 2> for RowMap<'_, T> {
    const WORK: usize = 3;

    #[inline(always)]
    fn apply<S: Simd<T>>(self, simd: S, [x, other]: [&[T]; 2], y: &mut [T]) -> RowsSeen {
        let Some(moments) = Moments::of(simd, x, self.map.center()) else {
            y.fill(T::nan());
            return RowsSeen::finite(false);
        };
        let quick = match self.map {
            RowFunction::Unit(unit) => unit.line(&moments),
            _ => None,
        };
        if let Some(line) = quick {
            let Self { weight, bias, .. } = self;
            if outline(simd, WriteLine { line, x, weight, bias, y: &mut *y }) {
                return RowsSeen::finite(other[0].is_finite());
            }
        }
        let plan = match self.map {
            RowFunction::Cosine => Plan::Value(
                Moments::of(simd, other, Center::Zero)
                    .map_or_else(T::nan, |b| cosine(&moments, &b, dot(simd, x, other, [&moments, &b]))),
            ),
            map => map.plan(&moments, other[0]),
        };
        let (mean, factor) = match plan {
            Plan::Value(value) => {
                y.fill(value);
                return RowsSeen::finite(value.is_finite());
            }
            Plan::Line { mean, factor } => (mean, factor),
        };
        let (line, Self { weight, bias, .. }) = (Line::new(mean, factor), self);
        let is_finite = outline(simd, WriteLine { line, x, weight, bias, y: &mut *y });
        if !is_finite {
            let [one, none] = [T::one(), -T::zero()];
            let of = |i: usize| [x[i], weight.get(i).map_or(one, |&w| w), bias.get(i).map_or(none, |&b| b)];
            let value = |[x, weight, bias]: [Long; 3]| x.add(mean.neg()).mul(factor).mul(weight).add(bias);
            return RowsSeen::finite(rewrite(y, of, value) && other[0].is_finite());
        }
        RowsSeen::finite(other[0].is_finite())
    }
}

/// Writes elements that are not finite once more, in numbers that do not overflow, if their operands are finite; whether
/// all is finite then.
#[cold]
#[inline(never)]
fn rewrite<T: Float>(y: &mut [T], of: impl Fn(usize) -> [T; 3], value: impl Fn([Long; 3]) -> Long) -> bool {
    for (i, y) in y.iter_mut().enumerate() {
        let operands = of(i);
        if !y.is_finite() && operands.iter().all(|x| x.is_finite()) {
            *y = value(operands.map(Long::of)).round(0);
        }
    }
    y.iter().all(|y| y.is_finite())
}

/// The sum of products of two rows.
#[inline(always)]
fn dot<T: Float, S: Simd<T>>(simd: S, a: &[T], b: &[T], moments: [&Moments; 2]) -> Long {
    products(simd, [a, b, a], moments.map(Moments::exponent), moments[0])[0]
}

/// The cosine of the angle between rows, 0 if one is all zeros.
#[inline(never)]
fn cosine<T: Float>(a: &Moments, b: &Moments, dot: Long) -> T {
    let norms = a.squares().sqrt().mul(b.squares().sqrt());
    let cosine: T = if norms.is_zero() { T::zero() } else { dot.div(norms).round(0) };
    cosine.max(-T::one()).min(T::one())
}

/// What a gradient is taken of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GradientOf<T> {
    /// The normalisation of a row.
    Unit(Unit<T>),
    /// The cosine of the angle to another row.
    Cosine,
}

/// `p g weight + q (x - mean) + k`: the gradient of everything here that has two rows.
struct Combination {
    mean: Long,
    p: Long,
    q: Long,
    k: Long,
}

impl Combination {
    const ZERO: Self = Self { mean: Long::ZERO, p: Long::ZERO, q: Long::ZERO, k: Long::ZERO };
}

/// The gradient of a normalised row, from the sums of `g` and of `g (x - shift)`:
/// `rate (g - mean(g) - (x - mean) rate mean(g (x - mean) rate))`.
#[inline(never)]
fn unit_gradient<T: Float>(unit: Unit<T>, moments: &Moments, [sum, products]: [Long; 2]) -> Combination {
    let Standard { mean, rate, is_own } = unit.standard(moments);
    let len = Long::count(moments.len());
    let along = match unit {
        Unit::Deviation(_) => products.add(moments.mean_difference().mul(sum).neg()).div(len),
        Unit::RootMeanSquare(_) => products.div(len),
        Unit::Norm(_) => products,
    };
    let q = if is_own { along.mul(rate).mul(rate).mul(rate).neg() } else { Long::ZERO };
    let k = if unit.center() == Center::Mean { sum.div(len).mul(rate).neg() } else { Long::ZERO };
    Combination { mean, p: rate, q, k }
}

/// The gradient of the cosine `c` by the first row, `g (b / |b| - c a / |a|) / |a|`; 0 if a row is all zeros.
#[inline(never)]
fn cosine_gradient<T: Float>(a: &Moments, b: &Moments, dot: Long, g: T) -> Combination {
    let (a, b) = (a.squares().sqrt(), b.squares().sqrt());
    if a.is_zero() || b.is_zero() {
        return Combination::ZERO;
    }
    let p = Long::of(g).div(a).div(b);
    Combination { p, q: dot.div(a).div(a).mul(p).neg(), ..Combination::ZERO }
}

/// A [`Combination`] in numbers of `T`.
#[derive(Clone, Copy, Debug)]
struct Combined<T> {
    g_scale: T,
    g_factor: T,
    line: Line<T>,
    constant: T,
}

impl<T: Float> Combined<T> {
    #[inline(never)]
    fn new(&Combination { mean, p, q, k }: &Combination) -> Self {
        let exponent = (-4 - p.log2()).clamp(2 - T::BIAS, T::BIAS - 2);
        let (g_scale, g_factor) = (power(-exponent), p.round(exponent));
        Self { g_scale, g_factor, line: Line::new(mean, q), constant: k.round(0) }
    }
}

/// Writes `dx`.
#[derive(Debug)]
struct WriteCombined<'a, T> {
    combined: Combined<T>,
    rows: [&'a [T]; 3],
    dx: &'a mut [T],
}

impl<T: Float> Kernel for WriteCombined<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let Combined { g_scale, g_factor, line, constant } = self.combined;
        let constant = constant - line.mean.error * line.factor.sum;
        let mut watch = Watch::new(simd);
        sweep(
            simd,
            self.rows,
            [self.dx],
            #[inline(always)]
            |[g, weight, x], [_]| {
                let own = x * x.all(line.scale) - x.all(line.mean.sum);
                let own = own.mul_add(x.all(line.factor.sum), x.all(constant));
                let upstream = (g * g.all(g_scale)) * g.all(g_factor);
                let dx = upstream.mul_add(weight, own);
                watch.see(dx);
                [dx]
            },
        );
        watch.all_finite()
    }
}

/// Sums over rows, one for each column, in two terms: of `dy` times the normalised row, and of `dy`.
#[derive(Clone, Debug)]
pub(crate) struct Columns<T> {
    sums: [Vec<T>; 4],
}

impl<T: Float> Columns<T> {
    fn new(cols: usize) -> Self {
        Self { sums: [(); 4].map(|()| vec![T::zero(); cols]) }
    }

    /// Adds the sums of the rows that follow.
    pub(crate) fn add(&mut self, b: &Self) {
        for pair in [0, 2] {
            for j in 0..self.sums[0].len() {
                let joined = self.terms(pair, j).join(b.terms(pair, j));
                (self.sums[pair][j], self.sums[pair + 1][j]) = (joined.sum, joined.error);
            }
        }
    }

    fn terms(&self, pair: usize, j: usize) -> TwoTerm<T> {
        TwoTerm { sum: self.sums[pair][j], error: self.sums[pair + 1][j] }
    }

    /// The sums of products, and those of `dy`; where they are not finite by the rules of IEEE 754.
    pub(crate) fn values(&self) -> [impl Iterator<Item = T>; 2] {
        let value = |terms: TwoTerm<T>| if terms.sum.is_finite() { terms.value() } else { terms.sum };
        [0, 2].map(|pair| (0..self.sums[0].len()).map(move |j| value(self.terms(pair, j))))
    }
}

/// Adds a row to sums of columns.
#[derive(Debug)]
struct AddToColumns<'a, T> {
    line: Line<T>,
    scale: T,
    x: &'a [T],
    dy: &'a [T],
    columns: &'a mut Columns<T>,
}

impl<T: Float> Kernel for AddToColumns<'_, T> {
    type Elem = T;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) {
        let Self { line, scale, x, dy, columns } = self;
        let sums = columns.sums.each_mut().map(Vec::as_mut_slice);
        sweep(
            simd,
            [x, dy],
            sums,
            #[inline(always)]
            |[x, dy], [product, product_error, sum, sum_error]| {
                let dy = dy * dy.all(scale);
                let (term, error) = dy.two_mul(line.apply(x));
                let (product, rounding) = product.two_sum(term);
                let (sum, sum_rounding) = sum.two_sum(dy);
                [product, product_error + (rounding + error), sum, sum_error + sum_rounding]
            },
        );
    }
}

/// The kernel of every gradient by a row that the upstream gradient has a row for.
#[derive(Debug)]
pub struct RowGradient<'a, T> {
    pub(crate) of: GradientOf<T>,
    /// `x`, its upstream gradient or the other row, and a factor for each row.
    pub(crate) inputs: [MatRef<'a, T>; 3],
    pub(crate) weight: &'a [T],
    /// The exponent of the largest weight.
    pub(crate) weight_exponent: i32,
    /// What the terms of the sums of columns are multiplied by, if these are wanted.
    pub(crate) columns: Option<T>,
    pub(crate) dx: MatMut<'a, T>,
}

/// Rows of which the columns are summed one by one; the sums of such pieces are added in order.
const PIECE: usize = 256;

/// What [`RowGradient`] tells.
#[derive(Debug)]
pub struct Gradients<T> {
    /// All of `dx` is finite.
    pub(crate) finite: bool,
    /// Of the pieces, in order.
    pub(crate) columns: Vec<Columns<T>>,
}

impl<T: Send> Join for Gradients<T> {
    fn join(self, b: Self) -> Self {
        Self { finite: self.finite && b.finite, columns: self.columns.join(b.columns) }
    }
}

impl<T: Float> Kernel for RowGradient<'_, T> {
    type Elem = T;
    type Output = Gradients<T>;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> Gradients<T> {
        let Self { of, inputs, weight, weight_exponent, columns, dx } = self;
        let mut seen = Gradients { finite: true, columns: Vec::new() };
        each_row(
            inputs,
            dx,
            #[inline(always)]
            |i, [x, g, factor], dx| {
                let row = Row { of, x, g, weight, weight_exponent, factor: factor[0] };
                let written = row.gradient(simd, &mut *dx);
                if written.is_none() {
                    dx.fill(T::nan());
                }
                let (line, is_finite) = written.unwrap_or((Line::nan(), false));
                seen.finite &= is_finite;
                if let Some(scale) = columns {
                    if i % PIECE == 0 {
                        seen.columns.push(Columns::new(x.len()));
                    }
                    if let Some(columns) = seen.columns.last_mut() {
                        outline(simd, AddToColumns { line, scale, x, dy: g, columns });
                    }
                }
            },
        );
        seen
    }

    fn work(&self) -> usize {
        self.dx.as_ref().area().saturating_mul(5)
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let half = self.dx.rows() / 2;
        let at = if self.columns.is_some() { half / PIECE * PIECE } else { half };
        match self.dx.cut_rows(at) {
            Ok((first, second)) => Ok((
                Self { inputs: self.inputs.map(|x| x.rows_before(at)), dx: first, ..self },
                Self { inputs: self.inputs.map(|x| x.rows_from(at)), dx: second, ..self },
            )),
            Err(dx) => Err(Self { dx, ..self }),
        }
    }
}

/// A row of the operands of [`RowGradient`].
#[derive(Clone, Copy)]
struct Row<'a, T> {
    of: GradientOf<T>,
    x: &'a [T],
    g: &'a [T],
    weight: &'a [T],
    weight_exponent: i32,
    factor: T,
}

impl<T: Float> Row<'_, T> {
    /// Writes the gradient and says how the row is normalised, and whether all is finite; `None` if an operand is not.
    #[inline(always)]
    fn gradient<S: Simd<T>>(self, simd: S, dx: &mut [T]) -> Option<(Line<T>, bool)> {
        let Self { of, x, g, weight, weight_exponent, factor } = self;
        let combination = match of {
            GradientOf::Unit(unit) => {
                let moments = Moments::of(simd, x, unit.center())?;
                if unit.standard(&moments).rate.is_zero() {
                    // There is no derivative, and `g` is not read.
                    dx.fill(T::zero());
                    return Some((Line::new(Long::ZERO, Long::ZERO), true));
                }
                let exponents = [exponent(simd, g)?, weight_exponent];
                unit_gradient(unit, &moments, products(simd, [g, weight, x], exponents, &moments))
            }
            GradientOf::Cosine => {
                let [moments, other] = [Moments::of(simd, x, Center::Zero)?, Moments::of(simd, g, Center::Zero)?];
                cosine_gradient(&moments, &other, dot(simd, x, g, [&moments, &other]), factor)
            }
        };
        let Combination { mean, p, q, k } = combination;
        let combined = Combined::new(&combination);
        let mut is_finite = outline(simd, WriteCombined { combined, rows: [g, weight, x], dx: &mut *dx });
        if !is_finite {
            let value = |[g, weight, x]: [Long; 3]| p.mul(g).mul(weight).add(q.mul(x.add(mean.neg()))).add(k);
            is_finite = rewrite(dx, |i| [g[i], weight[i], x[i]], value);
        }
        Some((Line::new(mean, p), is_finite))
    }
}
