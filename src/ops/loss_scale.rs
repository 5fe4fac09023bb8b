//! [`DynamicLossScale`], the factor of the loss in mixed precision.

use super::clip::Clip;
use crate::error::{Error, Result};
use crate::finite::NonFinite;
use crate::float::Float;
use alloc::boxed::Box;

/// A loss scale that looks for its own size: it grows while gradients stay finite, and backs off when one overflows.
///
/// Multiply the loss by [`scale`](Self::scale), go backward, divide the gradients by it with
/// [`unscale`](crate::unscale) or [`Clipping::loss_scale`](crate::Clipping), and hand the outcome to
/// [`update`](Self::update), which says whether the step may be taken.
///
/// - Only infinities are taken for overflow. A NaN that comes without one is a fault of the model: it is an error, and the
///   scale stays.
/// - The scale stays within `smallest ..= largest`. An overflow at the smallest is an error: no scale helps.
///
/// All of its state is in its fields; feature `serde` saves and restores it. Source: Micikevicius et al., "Mixed precision
/// training", 2018.
///
/// ```
/// use nanproof::{DynamicLossScale, LossStep, unscale};
///
/// let mut loss_scale = DynamicLossScale::<f32>::default();
/// let (mut good, mut overflowed) = ([65536.0], [f32::INFINITY]);
///
/// let outcome = unscale(&mut [&mut good], loss_scale.scale);
/// assert_eq!((loss_scale.update(&outcome)?, good), (LossStep::Take, [1.0]));
///
/// let outcome = unscale(&mut [&mut overflowed], loss_scale.scale);
/// let LossStep::Skip(report) = loss_scale.update(&outcome)? else { panic!("it overflowed") };
/// assert_eq!(report.counts.pos_inf, 1);
/// assert_eq!(loss_scale.scale, 32768.0);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DynamicLossScale<T> {
    /// The factor of the loss; 2^16 by default.
    pub scale: T,
    /// What the scale is multiplied by when it grows, above 1; 2 by default. Powers of two keep gradients exact.
    pub growth: T,
    /// What the scale is multiplied by when it backs off, between 0 and 1; 1/2 by default.
    pub backoff: T,
    /// The steps without overflow after which it grows, 1 or more; 2000 by default.
    pub interval: u32,
    /// The steps without overflow since the last change.
    pub steps: u32,
    /// The smallest scale, a normal number above 0; 1 by default.
    pub smallest: T,
    /// The largest scale, finite; 2^24 by default.
    pub largest: T,
}

/// What to do with a step.
///
/// ```
/// use nanproof::{DynamicLossScale, LossStep};
///
/// let outcome = nanproof::unscale(&mut [&mut [1.0_f32]], 1.0);
/// assert_eq!(DynamicLossScale::default().update(&outcome)?, LossStep::Take);
/// # Ok::<(), nanproof::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum LossStep {
    /// The gradients are finite: take it.
    Take,
    /// A gradient overflowed: skip it. The scale is smaller now.
    Skip(NonFinite),
}

impl<T: Float> Default for DynamicLossScale<T> {
    fn default() -> Self {
        let two = T::one() + T::one();
        Self {
            scale: two.powi(16),
            growth: two,
            backoff: two.recip(),
            interval: 2000,
            steps: 0,
            smallest: T::one(),
            largest: two.powi(24),
        }
    }
}

impl<T: Float> DynamicLossScale<T> {
    /// Learns from the outcome of unscaling a step's gradients, and says whether the step may be taken.
    ///
    /// A report of infinities, alone or with NaN, backs off. So does one in [`Clip::fault`].
    ///
    /// # Errors
    /// [`Error::NonFinite`] if gradients are NaN and none is infinite; [`Error::LossScale`] if one is infinite at the
    /// smallest scale; [`Error::Argument`] if a field is out of its range; any other error of the outcome itself. The
    /// state is then as it was.
    ///
    /// ```
    /// use nanproof::{DynamicLossScale, Error, unscale};
    ///
    /// let mut loss_scale = DynamicLossScale::<f32>::default();
    /// let before = loss_scale;
    /// let outcome = unscale(&mut [&mut [f32::NAN]], loss_scale.scale);
    /// assert!(matches!(loss_scale.update(&outcome), Err(Error::NonFinite(_))));
    /// assert_eq!(loss_scale, before);
    ///
    /// let mut bottom = DynamicLossScale { scale: 1.0, ..before };
    /// let error = bottom.update(&unscale(&mut [&mut [f32::INFINITY]], 1.0)).unwrap_err();
    /// assert!(error.to_string().starts_with("the loss scale is the smallest allowed and a gradient still overflows: "));
    /// ```
    pub fn update(&mut self, outcome: &Result<Clip<T>>) -> Result<LossStep> {
        self.check()?;
        let report = match outcome {
            Ok(Clip { fault: None, .. }) => {
                self.steps = self.steps.saturating_add(1);
                if self.steps >= self.interval {
                    (self.scale, self.steps) = ((self.scale * self.growth).min(self.largest), 0);
                }
                return Ok(LossStep::Take);
            }
            Ok(Clip { fault: Some(report), .. }) => *report,
            Err(Error::NonFinite(report)) => **report,
            Err(other) => return Err(other.clone()),
        };
        if report.counts.pos_inf == 0 && report.counts.neg_inf == 0 {
            return Err(report.into());
        }
        if self.scale <= self.smallest {
            return Err(Error::LossScale(Box::new(report)));
        }
        (self.scale, self.steps) = ((self.scale * self.backoff).max(self.smallest), 0);
        Ok(LossStep::Skip(report))
    }

    fn check(&self) -> Result<()> {
        let Self { scale, growth, backoff, interval, steps: _, smallest, largest } = *self;
        let allowed = [
            (smallest >= T::min_positive_value(), "smallest", "is not a normal number above 0"),
            (largest >= smallest && largest.is_finite(), "largest", "is less than the smallest or not finite"),
            (scale >= smallest && scale <= largest, "scale", "is not within the smallest and the largest"),
            (growth > T::one() && growth.is_finite(), "growth", "is not above 1 and finite"),
            (backoff > T::zero() && backoff < T::one(), "backoff", "is not between 0 and 1"),
            (interval > 0, "interval", "is 0"),
        ];
        match allowed.into_iter().find(|(allowed, ..)| !allowed) {
            Some((_, argument, problem)) => {
                Err(Error::Argument { operation: "DynamicLossScale::update", argument, problem })
            }
            None => Ok(()),
        }
    }
}
