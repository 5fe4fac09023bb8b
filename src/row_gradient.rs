//! The kernel of the gradients of what becomes of a row by its own sums, where the upstream gradient has a row for each.

use alloc::vec::Vec;
use core::ops::Range;

use crate::column_sums::{AddRows, ColumnSums, Summand};
use crate::finite::Watch;
use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel, outline};
use crate::lanes::Lanes;
use crate::line::{FACTOR, Line, Lines, inverse_power, power_below, scale_within_range};
use crate::long::Long;
use crate::moments::{BlockMoments, Center, Moments, ROWS_AT_ONCE, exponent, products};
use crate::row_map::{dot, rewrite};
use crate::rows::{each_run, rows_at_once};
use crate::scaled::{narrow, power};
use crate::simd::Simd;
use crate::sweep::sweep;
use crate::unit::{Standard, Standards, Unit};
use crate::view::{MatMut, MatRef};

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
        let exponent = (-FACTOR - p.log2()).clamp(2 - T::BIAS, T::BIAS - 2);
        let (g_scale, g_factor) = (power(-exponent), p.round(exponent));
        Self { g_scale, g_factor, line: Line::new(mean, q), constant: k.round(0) }
    }
}

/// As many [`Combined`] as a block has lanes, in `f64`.
struct Combinations {
    g_scale: <f64 as Format>::Block,
    g_factor: <f64 as Format>::Block,
    lines: Lines,
    constant: <f64 as Format>::Block,
    /// 1 where these numbers are enough.
    usual: <f64 as Format>::Block,
}

impl Combinations {
    /// See [`unit_gradient`].
    #[inline(always)]
    fn new<T: Float, W: Simd<f64>>(
        unit: Unit<T>,
        moments: &BlockMoments<W>,
        standards: &Standards<W>,
        [sum, products]: [Lanes<f64, W>; 2],
    ) -> Self {
        let &Standards { mean, rate, is_own, is_usual } = standards;
        let (zero, count) = (sum.all(0.0), sum.all(moments.count));
        let (along, k) = match unit {
            Unit::Deviation(_) => ((products - moments.mean_difference() * sum) / count, -(sum / count * rate)),
            Unit::RootMeanSquare(_) => (products / count, zero),
            Unit::Norm(_) => (products, zero),
        };
        let q = is_own.select(-(along * rate * rate * rate), zero);
        let g_scale = scale_within_range::<T, W>(power_below(rate) * rate.all(power(FACTOR)));
        let infinity = sum.all(f64::INFINITY);
        let is_finite = sum.abs().lt(infinity) & products.abs().lt(infinity);
        Self {
            g_scale: g_scale.store(),
            g_factor: (rate * inverse_power(g_scale)).store(),
            lines: Lines::new::<T, W>(mean, q),
            constant: k.store(),
            usual: (is_usual & is_finite).numbers(),
        }
    }

    #[inline(always)]
    fn row<T: Float>(&self, i: usize) -> Option<Combined<T>> {
        (self.usual[i] == 1.0).then(|| Combined {
            g_scale: narrow(self.g_scale[i]),
            g_factor: narrow(self.g_factor[i]),
            line: self.lines.line(i),
            constant: narrow(self.constant[i]),
        })
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
pub struct Gradients<T: Float> {
    /// All of `dx` is finite.
    pub(crate) finite: bool,
    /// Of the pieces, in order.
    pub(crate) columns: Vec<ColumnSums<T>>,
}

impl<T: Float> Join for Gradients<T> {
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
        each_run(
            inputs,
            dx,
            #[inline(always)]
            |first, inputs, mut dx| {
                let operands = Operands { of, inputs, weight, weight_exponent };
                // A power of two: it divides a piece. Some, if columns are summed: their sums fill the cache.
                let at_once = (1 << rows_at_once::<f64>(dx.cols()).ilog2()).max(if columns.is_some() { 4 } else { 1 });
                for start in (0..dx.rows()).step_by(at_once) {
                    let rows = start..dx.rows().min(start + at_once);
                    let mut lines = [Line::nan(); ROWS_AT_ONCE];
                    seen.finite &= operands.write(simd, rows.clone(), &mut dx, &mut lines);
                    if let Some(scale) = columns {
                        seen.add_to_columns(simd, first + start, operands.rows(rows), &lines, scale);
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

impl<T: Float> Gradients<T> {
    /// Adds rows, of which the first has this number.
    #[inline(always)]
    fn add_to_columns<'a, S: Simd<T>>(
        &mut self,
        simd: S,
        first: usize,
        rows: impl Iterator<Item = Row<'a, T>>,
        lines: &[Line<T>],
        scale: T,
    ) {
        let mut summands = [Summand { line: Line::nan(), x: &[], dy: &[] }; ROWS_AT_ONCE];
        let mut len = 0;
        for ((summand, row), &line) in summands.iter_mut().zip(rows).zip(lines) {
            *summand = Summand { line, x: row.x, dy: row.g };
            len += 1;
        }
        if first.is_multiple_of(PIECE) {
            self.columns.push(ColumnSums::new(summands[0].x.len()));
        }
        if let Some(sums) = self.columns.last_mut() {
            outline(simd, AddRows { rows: &summands[..len], scale, sums });
        }
    }
}

/// The operands of some rows.
#[derive(Clone, Copy)]
struct Operands<'a, T> {
    of: GradientOf<T>,
    inputs: [MatRef<'a, T>; 3],
    weight: &'a [T],
    weight_exponent: i32,
}

impl<'a, T: Float> Operands<'a, T> {
    #[inline(always)]
    fn rows(self, rows: Range<usize>) -> impl Iterator<Item = Row<'a, T>> + Clone {
        let Self { of, inputs, weight, weight_exponent } = self;
        rows.map(
            #[inline(always)]
            move |i| {
                let [x, g, factor] = inputs.map(|x| x.row(i).unwrap_or_default());
                Row { of, x, g, weight, weight_exponent, factor: factor[0] }
            },
        )
    }

    /// Writes the gradients of rows, no more than a block of `f64` has lanes, and how each is normalised; whether all are
    /// finite.
    #[inline(always)]
    fn write<S: Simd<T>>(
        self,
        simd: S,
        rows: Range<usize>,
        dx: &mut MatMut<'_, T>,
        lines: &mut [Line<T>; ROWS_AT_ONCE],
    ) -> bool {
        let mut combined = [None; ROWS_AT_ONCE];
        if let GradientOf::Unit(unit) = self.of
            && T::PRODUCTS_FIT_F64
        {
            let operands = self.rows(rows.clone()).map(
                #[inline(always)]
                |row| [row.g, row.weight, row.x],
            );
            let (moments, products) = BlockMoments::with_products(simd, operands, unit.center());
            let standards = unit.standards(&moments);
            let combinations = Combinations::new(unit, &moments, &standards, products);
            let normalised = Lines::new::<T, _>(standards.mean, standards.rate);
            for i in 0..rows.len() {
                (combined[i], lines[i]) = (combinations.row(i), normalised.line(i));
            }
        }
        let mut is_finite = true;
        for ((i, row), (combined, line)) in rows.clone().zip(self.rows(rows)).zip(combined.into_iter().zip(lines)) {
            let dx = dx.row_mut(i).unwrap_or_default();
            let is_done = combined.is_some_and(
                #[inline(always)]
                |combined| WriteCombined { combined, rows: [row.g, row.weight, row.x], dx: &mut *dx }.run(simd),
            );
            if !is_done {
                let written = row.gradient(simd, dx);
                is_finite &= written.1;
                *line = written.0;
            }
        }
        is_finite
    }
}

/// The operands of a row.
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
    /// Writes the gradient of any row and says how it is normalised, and whether all is finite.
    #[inline(never)]
    fn gradient<S: Simd<T>>(self, simd: S, dx: &mut [T]) -> (Line<T>, bool) {
        self.write(simd, &mut *dx).unwrap_or_else(|| {
            dx.fill(T::nan());
            (Line::nan(), false)
        })
    }

    /// The same; `None` if an operand is not finite.
    #[inline(always)]
    fn write<S: Simd<T>>(self, simd: S, dx: &mut [T]) -> Option<(Line<T>, bool)> {
        let Self { of, x, g, weight, weight_exponent, factor } = self;
        let combination = match of {
            GradientOf::Unit(unit) => {
                let moments = Moments::of(simd, x, unit.center())?;
                if unit.standard(&moments).rate.is_zero() {
                    // There is no derivative, and `g` is not read.
                    dx.fill(T::zero());
                    return Some((Line::new(Long::ZERO, Long::ZERO), true));
                }
                // Products of f32 leave f64 neither way; a scaled weight might be 0.
                let weight_exponent = if T::PRODUCTS_FIT_F64 { 0 } else { weight_exponent };
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
