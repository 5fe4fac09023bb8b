//! The rules by which a [`GradientLog`](crate::GradientLog) raises flags.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// When a [`GradientLog`](crate::GradientLog) raises a [`GradientFlag`]: change the fields that do not suit your network.
///
/// ```
/// use nanproof::{GradientLog, GradientRules};
///
/// let log = GradientLog::new(GradientRules { growth: 50.0, ..GradientRules::default() });
/// assert!(log.tensors().is_empty());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientRules {
    /// A gradient explodes if its norm is more than this many times the usual one: 20 by default. The usual norm is the
    /// median of the last `window` records, once there are 4.
    pub growth: f64,
    /// A gradient explodes if its norm is larger than this, whatever it was before: 1e4 by default.
    pub largest_norm: f64,
    /// A gradient vanishes if its norm is less than this share of the usual one: 1e-4 by default. It also does if it is
    /// exactly 0.
    pub decay: f64,
    /// A gradient vanishes if its root mean square is less than this share of the largest of any tensor in the same step,
    /// as far as recorded, or in the one before: 1e-5 by default.
    pub smallest_share: f64,
    /// Records that the usual norm is the median of: 16 by default.
    pub window: usize,
    /// An update is too large if its norm is more than this share of that of the weights: 0.1 by default.
    pub largest_update: f64,
    /// An update is too small if its norm is less than this share of that of the weights: 1e-7 by default, where `f32`
    /// begins to round it away. An update of exactly 0 is none.
    pub smallest_update: f64,
    /// A unit is dead if it was 0 in this many records in a row: 20 by default.
    pub dead_after: usize,
    /// Units are flagged if more than this share of them is dead: 0.5 by default.
    pub dead_share: f64,
}

impl Default for GradientRules {
    fn default() -> Self {
        Self {
            growth: 20.0,
            largest_norm: 1e4,
            decay: 1e-4,
            smallest_share: 1e-5,
            window: 16,
            largest_update: 0.1,
            smallest_update: 1e-7,
            dead_after: 20,
            dead_share: 0.5,
        }
    }
}

/// What a [`GradientLog`](crate::GradientLog) found remarkable: see [`GradientRules`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum GradientFlag {
    /// So many elements are NaN or infinite.
    NotFinite(usize),
    /// The norm is far above the usual one.
    Exploding {
        /// The norm.
        norm: f64,
        /// The usual norm, if there is one.
        usual: Option<f64>,
    },
    /// The norm is far below the usual one, or below what other tensors have.
    Vanishing {
        /// The norm.
        norm: f64,
        /// The usual norm, if there is one.
        usual: Option<f64>,
    },
    /// The update is large beside the weights: the ratio of the norms.
    UpdateTooLarge(f64),
    /// The update is small beside the weights: the ratio of the norms.
    UpdateTooSmall(f64),
    /// So many units are dead.
    DeadUnits(usize),
    /// What the caller marked.
    Mark(String),
}

/// A flag, and for how long it was raised.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GradientEvent {
    /// The tensor, or the place that the caller gave.
    pub tensor: String,
    /// The step that raised it.
    pub first_step: u64,
    /// The last step of the same tensor in a row that did.
    pub last_step: u64,
    /// The flag as it was first raised.
    pub flag: GradientFlag,
}

impl GradientRules {
    /// The flags of a gradient that has this norm and root mean square, after records of these norms.
    pub(super) fn of_norm(&self, norm: f64, rms: f64, before: &[f64], largest_rms: f64) -> Option<GradientFlag> {
        let usual = usual(&before[before.len().saturating_sub(self.window)..]);
        let is_above = |limit| usual.is_some_and(|usual| norm > limit * usual);
        let is_below = |limit| usual.is_some_and(|usual| norm < limit * usual);
        if is_above(self.growth) || norm > self.largest_norm {
            Some(GradientFlag::Exploding { norm, usual })
        } else if is_below(self.decay) || rms < self.smallest_share * largest_rms || norm == 0.0 {
            Some(GradientFlag::Vanishing { norm, usual })
        } else {
            None
        }
    }

    /// The flag of an update of the weights by this share of their norm.
    pub(super) fn of_update(&self, ratio: f64) -> Option<GradientFlag> {
        if ratio > self.largest_update {
            Some(GradientFlag::UpdateTooLarge(ratio))
        } else if ratio < self.smallest_update && ratio > 0.0 {
            Some(GradientFlag::UpdateTooSmall(ratio))
        } else {
            None
        }
    }

    /// The flag of so many dead units.
    pub(super) fn of_units(&self, dead: usize, units: usize) -> Option<GradientFlag> {
        (dead as f64 > self.dead_share * units as f64).then_some(GradientFlag::DeadUnits(dead))
    }
}

/// The median, of 4 norms at least. Norms of 0 say nothing of what is usual.
fn usual(norms: &[f64]) -> Option<f64> {
    let mut norms: Vec<f64> = norms.iter().copied().filter(|&norm| norm > 0.0 && norm.is_finite()).collect();
    norms.sort_by(f64::total_cmp);
    if norms.len() < 4 { None } else { norms.get(norms.len() / 2).copied() }
}

impl fmt::Display for GradientFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usually = |f: &mut fmt::Formatter<'_>, usual: &Option<f64>| match usual {
            Some(usual) => write!(f, ", usually {usual:.1e}"),
            None => Ok(()),
        };
        match self {
            Self::NotFinite(1) => f.write_str("1 element is not finite"),
            Self::NotFinite(count) => write!(f, "{count} elements are not finite"),
            Self::Exploding { norm, usual } => {
                write!(f, "exploding: norm {norm:.1e}")?;
                usually(f, usual)
            }
            Self::Vanishing { norm, usual } => {
                write!(f, "vanishing: norm {norm:.1e}")?;
                usually(f, usual)
            }
            Self::UpdateTooLarge(ratio) => write!(f, "update too large: {ratio:.1e} of the weights"),
            Self::UpdateTooSmall(ratio) => write!(f, "update too small: {ratio:.1e} of the weights"),
            Self::DeadUnits(1) => f.write_str("1 unit is dead"),
            Self::DeadUnits(count) => write!(f, "{count} units are dead"),
            Self::Mark(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for GradientEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, first_step, last_step, flag } = self;
        if first_step == last_step {
            write!(f, "step {first_step}, {tensor}: {flag}")
        } else {
            write!(f, "steps {first_step} to {last_step}, {tensor}: {flag}")
        }
    }
}
