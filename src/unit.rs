//! What a row is divided by when it is normalised, from its sums: in [`Long`] numbers, and for `f32` in `f64`, for as many
//! rows at once as a block has lanes. What is worked out for a row takes longer than to go through a short one.

use crate::float::Float;
use crate::lanes::{Lanes, Mask};
use crate::long::Long;
use crate::moments::{BlockMoments, Center, Moments};
use crate::scaled::wide;
use crate::simd::Simd;

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
pub(crate) struct Standard {
    pub(crate) mean: Long,
    pub(crate) rate: Long,
    /// Whether the rate depends on the row.
    pub(crate) is_own: bool,
}

impl<T: Float> Unit<T> {
    pub(crate) fn center(self) -> Center {
        if matches!(self, Self::Deviation(_)) { Center::Mean } else { Center::Zero }
    }

    /// The rate is 0 where nothing is left to divide.
    pub(crate) fn standard(self, moments: &Moments) -> Standard {
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

/// [`Standard`] of each of a block of rows, in `f64`.
pub(crate) struct Standards<W: Simd<f64>> {
    /// In two terms.
    pub(crate) mean: [Lanes<f64, W>; 2],
    pub(crate) rate: Lanes<f64, W>,
    pub(crate) is_own: Mask<f64, W>,
    /// Whether these numbers are enough.
    pub(crate) is_usual: Mask<f64, W>,
}

impl<T: Float> Unit<T> {
    #[inline(always)]
    pub(crate) fn standards<W: Simd<f64>>(self, moments: &BlockMoments<W>) -> Standards<W> {
        let squares = moments.squares;
        let (zero, one, count) = (squares.all(0.0), squares.all(1.0), squares.all(moments.count));
        let all = |eps: T| squares.all(wide(eps));
        let always = zero.eq(zero);
        let (mean, norm, is_own) = match self {
            Self::Deviation(eps) => {
                let variance = moments.deviations() / count;
                (moments.mean(), (variance + all(eps)).sqrt(), always)
            }
            Self::RootMeanSquare(eps) => ([zero; 2], (squares / count + all(eps)).sqrt(), always),
            Self::Norm(eps) => {
                let eps = all(eps);
                // The square of an eps of f32 is exact.
                ([zero; 2], squares.sqrt().larger(eps), (eps * eps).lt(squares))
            }
        };
        Standards { mean, rate: one / norm, is_own, is_usual: zero.lt(norm) & moments.are_finite() }
    }
}
