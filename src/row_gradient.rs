//! The kernel of the gradients of what becomes of a row by its own sums, where the upstream gradient has a row for each.

use alloc::vec;
use alloc::vec::Vec;

use crate::finite::Watch;
use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel, outline};
use crate::lanes::Lanes;
use crate::line::{Line, Lines, inverse_power, narrow, power_below, scale_within_range};
use crate::long::Long;
use crate::moments::{BlockMoments, BlockSums, Center, Moments, as_f64, exponent, products};
use crate::reduce::TwoTerm;
use crate::row_map::{dot, rewrite};
use crate::rows::{each_run, rows_at_once};
use crate::scaled::power;
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
        let exponent = (-4 - p.log2()).clamp(2 - T::BIAS, T::BIAS - 2);
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
        count: f64,
    ) -> Self {
        let &Standards { mean, rate, is_own, is_usual } = standards;
        let (zero, count) = (sum.all(0.0), sum.all(count));
        let (along, k) = match unit {
            Unit::Deviation(_) => ((products - moments.sum / count * sum) / count, -(sum / count * rate)),
            Unit::RootMeanSquare(_) => (products / count, zero),
            Unit::Norm(_) => (products, zero),
        };
        let q = is_own.select(-(along * rate * rate * rate), zero);
        let g_scale = scale_within_range::<T, W>(power_below(rate) * rate.all(16.0));
        let is_finite = (sum - sum).eq(zero) & (products - products).eq(zero);
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

impl<T: Float> Gradients<T> {
    /// Takes note of row `i`, how it is normalised, and whether its gradient is finite; its terms of the sums of columns are
    /// multiplied by the scale, if these are wanted.
    #[inline(always)]
    fn see<S: Simd<T>>(
        &mut self,
        simd: S,
        i: usize,
        row: Row<'_, T>,
        (line, is_finite): (Line<T>, bool),
        scale: Option<T>,
    ) {
        self.finite &= is_finite;
        let Some(scale) = scale else { return };
        if i % PIECE == 0 {
            self.columns.push(Columns::new(row.x.len()));
        }
        if let Some(columns) = self.columns.last_mut() {
            outline(simd, AddToColumns { line, scale, x: row.x, dy: row.g, columns });
        }
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
            |start, inputs, mut dx| {
                let rows = Rows { of, inputs, weight, weight_exponent };
                if let GradientOf::Unit(unit) = of
                    && T::PRODUCTS_FIT_F64
                {
                    rows.unit_gradients(
                        simd,
                        unit,
                        dx,
                        #[inline(always)]
                        |i, written| seen.see(simd, start + i, rows.row(i), written, columns),
                    );
                } else {
                    for i in 0..dx.rows() {
                        let written = rows.row(i).gradient(simd, dx.row_mut(i).unwrap_or_default());
                        seen.see(simd, start + i, rows.row(i), written, columns);
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

/// The operands of some rows.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    of: GradientOf<T>,
    inputs: [MatRef<'a, T>; 3],
    weight: &'a [T],
    weight_exponent: i32,
}

impl<'a, T: Float> Rows<'a, T> {
    #[inline(always)]
    fn row(self, i: usize) -> Row<'a, T> {
        let Self { of, inputs, weight, weight_exponent } = self;
        let [x, g, factor] = inputs.map(|x| x.row(i).unwrap_or_default());
        Row { of, x, g, weight, weight_exponent, factor: factor[0] }
    }

    /// Gradients of the normalisation of rows of `f32`, some at once.
    #[inline(always)]
    fn unit_gradients<S: Simd<T>>(
        self,
        simd: S,
        unit: Unit<T>,
        mut dx: MatMut<'_, T>,
        mut see: impl FnMut(usize, (Line<T>, bool)),
    ) {
        let [x, ..] = self.inputs;
        let (count, at_once) = (as_f64(x.cols()), rows_at_once::<f64>(2 * x.cols()));
        let mut sums = BlockSums::new();
        for start in (0..x.rows()).step_by(at_once) {
            let rows = (start..x.rows().min(start + at_once)).map(
                #[inline(always)]
                |i| self.row(i),
            );
            let moments = sums.moments(simd, rows.clone().map(|row| row.x), unit.center(), count);
            let operands = rows.clone().map(|row| [row.g, row.weight, row.x]);
            let products = sums.products(simd, operands, moments.shift);
            let standards = unit.standards(&moments, count);
            let combinations = Combinations::new(unit, &moments, &standards, products, count);
            let lines = Lines::new::<T, _>(standards.mean, standards.rate);
            for (i, row) in rows.enumerate() {
                let dx = dx.row_mut(start + i).unwrap_or_default();
                let combined = combinations.row(i);
                let is_done = combined.is_some_and(|combined| {
                    WriteCombined { combined, rows: [row.g, row.weight, row.x], dx: &mut *dx }.run(simd)
                });
                see(start + i, if is_done { (lines.line(i), true) } else { row.gradient_apart(simd, dx) });
            }
        }
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
    /// A row that the usual way is not made for.
    #[cold]
    #[inline(never)]
    fn gradient_apart<S: Simd<T>>(self, simd: S, dx: &mut [T]) -> (Line<T>, bool) {
        self.gradient(simd, dx)
    }

    /// Writes the gradient and says how the row is normalised, and whether all is finite.
    #[inline(always)]
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
