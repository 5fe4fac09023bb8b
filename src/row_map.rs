//! What becomes of a row by its own sums: the kernel of statistics, norms and normalisations. The sums are taken by
//! [`moments`](crate::moments), what is worked out from them once for a row is in [`Long`] numbers.

use crate::error::Result;
use crate::float::{Float, Format};
use crate::kernel::{Join, Kernel, outline};
use crate::lanes::{Lanes, Mask};
use crate::line::{Line, Lines, WriteLine};
use crate::long::Long;
use crate::moments::{BlockMoments, Center, Moments, as_f64, products};
use crate::rows::{RowFormula, RowsSeen, apply, row_by_row, rows_at_once};
use crate::scaled::{narrow, power, wide};
use crate::simd::Simd;
use crate::unit::{Standard, Standards, Unit};
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

impl<T: Float> RowFunction<T> {
    /// What to write to each of a block of rows of `f32`, `g` being the upstream gradients: see [`Self::plan`].
    #[inline(always)]
    fn block_plan<S: Simd<T>>(self, moments: &BlockMoments<S::Wide>, g: Lanes<f64, S::Wide>) -> BlockPlan {
        let zero = g.all(0.0);
        let free = |ddof| moments.count - as_f64(ddof);
        let always = zero.eq(zero);
        let are_finite = moments.are_finite();
        let (mean, factor, is_usual) = match self {
            Self::Mean => {
                let [mean, rest] = moments.mean();
                return BlockPlan::values(mean + rest, are_finite);
            }
            Self::Variance(ddof) => {
                return BlockPlan::values(moments.deviations() / g.all(free(ddof)), are_finite);
            }
            Self::Std(ddof) => {
                return BlockPlan::values((moments.deviations() / g.all(free(ddof))).sqrt(), are_finite);
            }
            Self::L2Norm => return BlockPlan::values(moments.squares.sqrt(), are_finite),
            Self::L1Norm | Self::Cosine => return BlockPlan::values(zero, !always), // other sums
            Self::VarianceGradient(ddof) => (moments.mean(), (g + g) / g.all(free(ddof)), always),
            Self::StdGradient(ddof) => {
                let std = (moments.deviations() / g.all(free(ddof))).sqrt();
                (moments.mean(), g / g.all(free(ddof)) / std, zero.lt(std))
            }
            Self::L2NormGradient => {
                let norm = moments.squares.sqrt();
                ([zero; 2], g / norm, zero.lt(norm))
            }
            Self::Unit(unit) => {
                let Standards { mean, rate, is_usual, .. } = unit.standards(moments);
                (mean, rate, is_usual)
            }
        };
        let has_digits = factor.eq(zero) | factor.all(power(smallest_factor::<T>())).le(factor.abs());
        BlockPlan::Lines(Lines::new::<T, _>(mean, factor), (is_usual & are_finite & has_digits).numbers())
    }
}

/// What each of a block of rows is overwritten with, and 1 where the numbers of `f64` are enough.
enum BlockPlan {
    /// One number.
    Values(<f64 as Format>::Block, <f64 as Format>::Block),
    Lines(Lines, <f64 as Format>::Block),
}

impl BlockPlan {
    #[inline(always)]
    fn values<W: Simd<f64>>(values: Lanes<f64, W>, is_usual: Mask<f64, W>) -> Self {
        Self::Values(values.store(), is_usual.numbers())
    }
}

/// What a row is overwritten with.
enum Plan<T> {
    /// One number.
    Value(T),
    /// `(x - mean) * factor`.
    Line { mean: Long, factor: Long },
}

/// Maps each row to one number or to a row, by its sums. The second input is another row or an upstream gradient.
#[derive(Clone, Copy, Debug)]
pub struct RowMap<'a, T> {
    pub(crate) map: RowFunction<T>,
    /// Either both are as long as a row or both are empty.
    pub(crate) weight: &'a [T],
    pub(crate) bias: &'a [T],
}

/// The exponent of the smallest factor that, scaled as far as can be, is a normal number in a [`Line`] of `T`. Smaller ones
/// come of tiny upstream gradients over huge norms, and have not all their digits there.
fn smallest_factor<T: Float>() -> i32 {
    (1 - T::BIAS) - (T::BIAS - 2)
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
        let has_digits = factor.is_zero() || factor.log2() >= smallest_factor::<T>();
        let is_finite = has_digits && outline(simd, WriteLine { line, x, weight, bias, y: &mut *y });
        if !is_finite {
            if !has_digits {
                y.fill(T::nan()); // all of it is to be written once more
            }
            let [one, none] = [T::one(), -T::zero()];
            let of = |i: usize| [x[i], weight.get(i).map_or(one, |&w| w), bias.get(i).map_or(none, |&b| b)];
            let value = |[x, weight, bias]: [Long; 3]| x.add(mean.neg()).mul(factor).mul(weight).add(bias);
            return RowsSeen::finite(rewrite(y, of, value) && other[0].is_finite());
        }
        RowsSeen::finite(other[0].is_finite())
    }

    #[inline(always)]
    fn apply_to_run<S: Simd<T>>(self, simd: S, x: [MatRef<'_, T>; 2], y: MatMut<'_, T>) -> RowsSeen {
        if T::PRODUCTS_FIT_F64 && !matches!(self.map, RowFunction::L1Norm | RowFunction::Cosine) {
            self.apply_to_blocks(simd, x, y)
        } else {
            row_by_row(self, simd, x, y)
        }
    }
}

impl<T: Float> RowMap<'_, T> {
    /// Maps rows of `f32`, some at once.
    #[inline(always)]
    fn apply_to_blocks<S: Simd<T>>(self, simd: S, [x, g]: [MatRef<'_, T>; 2], mut y: MatMut<'_, T>) -> RowsSeen {
        let Self { map, weight, bias } = self;
        let (at_once, mut seen) = (rows_at_once::<f64>(x.cols()), RowsSeen::finite(true));
        for start in (0..x.rows()).step_by(at_once) {
            let rows = (start..x.rows().min(start + at_once)).map(
                #[inline(always)]
                |i| [x, g].map(|x| x.row(i).unwrap_or_default()),
            );
            let moments = BlockMoments::of(simd, rows.clone().map(|[x, _]| x), map.center());
            let mut upstream = f64::fill(0.0);
            for (upstream, [_, g]) in upstream.iter_mut().zip(rows.clone()) {
                *upstream = wide(g[0]);
            }
            let plan = map.block_plan::<S>(&moments, Lanes::load(simd.wide(), &upstream));
            for (i, [x, g]) in rows.enumerate() {
                let y = y.row_mut(start + i).unwrap_or_default();
                let is_done = match &plan {
                    BlockPlan::Values(values, usual) => {
                        let value: T = narrow(values[i]);
                        y.fill(value);
                        usual[i] == 1.0 && value.is_finite()
                    }
                    BlockPlan::Lines(lines, usual) => {
                        usual[i] == 1.0 && WriteLine { line: lines.line(i), x, weight, bias, y: &mut *y }.run(simd)
                    }
                };
                if !is_done {
                    seen = seen.join(self.apply_apart(simd, [x, g], y));
                }
            }
        }
        seen
    }

    /// A row that the usual way is not made for.
    #[cold]
    #[inline(never)]
    fn apply_apart<S: Simd<T>>(self, simd: S, x: [&[T]; 2], y: &mut [T]) -> RowsSeen {
        self.apply(simd, x, y)
    }
}

/// Writes elements that are not finite once more, in numbers that do not overflow, if their operands are finite; whether
/// all is finite then.
#[cold]
#[inline(never)]
pub(crate) fn rewrite<T: Float>(y: &mut [T], of: impl Fn(usize) -> [T; 3], value: impl Fn([Long; 3]) -> Long) -> bool {
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
pub(crate) fn dot<T: Float, S: Simd<T>>(simd: S, a: &[T], b: &[T], moments: [&Moments; 2]) -> Long {
    products(simd, [a, b, a], moments.map(Moments::exponent), moments[0])[0]
}

/// The cosine of the angle between rows, 0 if one is all zeros.
#[inline(never)]
fn cosine<T: Float>(a: &Moments, b: &Moments, dot: Long) -> T {
    let norms = a.squares().sqrt().mul(b.squares().sqrt());
    let cosine: T = if norms.is_zero() { T::zero() } else { dot.div(norms).round(0) };
    cosine.max(-T::one()).min(T::one())
}
