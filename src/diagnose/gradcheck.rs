//! [`gradcheck`]: a backward function against differences of its forward function.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{Error, Result, check_len};

/// Options of [`gradcheck`]: how far a gradient may be from the differences, `absolute + relative * |difference|`.
///
/// ```
/// let options = nanproof::Gradcheck::default();
/// assert_eq!((options.relative, options.absolute), (1e-7, 1e-9));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradcheck {
    /// 1e-7 by default.
    pub relative: f64,
    /// 1e-9 by default: for functions of the order of 1.
    pub absolute: f64,
}

impl Default for Gradcheck {
    fn default() -> Self {
        Self { relative: 1e-7, absolute: 1e-9 }
    }
}

/// What [`gradcheck`] found where gradient and differences agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GradcheckReport {
    /// Elements that agree with the slope.
    pub smooth: usize,
    /// Elements at a kink, whose gradient lies between the slopes on both sides.
    pub kinks: usize,
    /// Elements at a pole or at the edge of the domain: no slope to compare with.
    pub poles: usize,
    /// The element that is furthest from the differences, of those that were compared.
    pub worst: Option<GradcheckElement>,
}

/// An element of a gradient beside what differences say.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GradcheckElement {
    /// Which element.
    pub index: usize,
    /// The gradient to be checked.
    pub gradient: f64,
    /// The slopes to the left and to the right: the same where the function is smooth, NaN at a pole.
    pub slopes: [f64; 2],
    /// How far the gradient is from them.
    pub error: f64,
    /// How far it may be.
    pub allowed: f64,
}

/// A gradient that [`gradcheck`] found wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GradcheckMismatch {
    /// The element that is wrong by most.
    pub worst: GradcheckElement,
    /// Elements that are wrong.
    pub count: usize,
    /// All elements.
    pub len: usize,
}

/// Compares a gradient with differences of the function: `gradient[i]` with the slope of `f` along `x[i]`.
///
/// `f` is a loss: for a function of many results, their sum with any weights, which are then the upstream gradient. It
/// gives NaN or an infinity where it has no value. It is called 4 times for each element, and up to 20 where the
/// gradient seems wrong.
///
/// The slope is the central difference of fourth order, in `f64`, with a step of about `max(|x[i]|, 1) / 1000`, and of
/// 16 and 256 times less, and of `|x[i]| / 1000` and 16 times less, until it agrees. Where none does:
///
/// - **Kinks** are where the slopes to both sides stay apart while the step shrinks: any gradient from one to the other is
///   right there (it is a subgradient of a convex function), such as 0 to 1 for `relu` at 0.
/// - **Poles** are where no step gives finite values, as at the edge of a domain, or where the slope keeps growing while
///   the step shrinks: any gradient is right but NaN.
///
/// # Errors
/// [`Error::Gradient`] names the worst element; a gradient that is NaN is always wrong. [`Error::Shape`] if `gradient` has
/// not the length of `x`.
///
/// ```
/// use nanproof::{Gradcheck, gradcheck, l2_norm, l2_norm_backward};
///
/// let x = [3.0, -4.0, 0.5];
/// let mut dx = [0.0; 3];
/// l2_norm_backward(&x, 1.0, &mut dx)?;
/// let norm = |x: &[f64]| l2_norm(x).unwrap_or(f64::NAN);
/// assert_eq!(gradcheck(Gradcheck::default(), &x, &dx, norm)?.smooth, 3);
///
/// dx[1] = 0.8; // the sign is wrong
/// let error = gradcheck(Gradcheck::default(), &x, &dx, norm).unwrap_err();
/// assert!(error.to_string().starts_with("gradcheck: element 1 is 8e-1 and should be -7.96"), "{error}");
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn gradcheck(
    options: Gradcheck,
    x: &[f64],
    gradient: &[f64],
    mut f: impl FnMut(&[f64]) -> f64,
) -> Result<GradcheckReport> {
    check_len("gradcheck", "gradient", gradient.len(), x.len(), "the length of x")?;
    let mut at = x.to_vec();
    let center = f(&at);
    let (mut agreement, mut count, mut worst) = (GradcheckReport::default(), 0_usize, None::<GradcheckElement>);
    for (index, (&x, &gradient)) in x.iter().zip(gradient).enumerate() {
        let mut along = |by: f64| {
            at[index] = x + by;
            let value = f(&at);
            at[index] = x;
            value
        };
        let allowed = |slope: f64| options.absolute + options.relative * slope.abs();
        let agrees = |slope: f64| (slope - gradient).abs() <= allowed(slope);
        let slope = Slope::find(x, gradient, center, &mut along, agrees);
        let slopes = match slope {
            Slope::Smooth(slope) => [slope; 2],
            Slope::Kink(slopes) => slopes,
            Slope::Pole => [f64::NAN; 2],
        };
        let compared = GradcheckElement::new(index, gradient, slopes, allowed(slopes[0].abs().max(slopes[1].abs())));
        if !compared.agrees() {
            count += 1;
        } else {
            match slope {
                Slope::Smooth(_) => agreement.smooth += 1,
                Slope::Kink(_) => agreement.kinks += 1,
                Slope::Pole => agreement.poles += 1,
            }
        }
        if worst.is_none_or(|worst| worst.excess() < compared.excess()) {
            worst = Some(compared);
        }
    }
    match worst {
        Some(worst) if count > 0 => Err(Error::Gradient(Box::new(GradcheckMismatch { worst, count, len: x.len() }))),
        _ => Ok(GradcheckReport { worst, ..agreement }),
    }
}

impl GradcheckElement {
    fn new(index: usize, gradient: f64, slopes: [f64; 2], allowed: f64) -> Self {
        let (low, high) = (slopes[0].min(slopes[1]), slopes[0].max(slopes[1]));
        let error = if gradient.is_nan() {
            f64::INFINITY
        } else if low.is_nan() {
            0.0
        } else {
            (low - gradient).max(gradient - high).max(0.0)
        };
        Self { index, gradient, slopes, error, allowed: if allowed.is_nan() { 0.0 } else { allowed } }
    }

    fn agrees(&self) -> bool {
        self.error <= self.allowed
    }

    /// The error in terms of what is allowed.
    fn excess(&self) -> f64 {
        if self.agrees() && self.allowed == 0.0 { 0.0 } else { self.error / self.allowed }
    }
}

/// What differences say of a function along one element.
#[derive(Clone, Copy)]
enum Slope {
    Smooth(f64),
    Kink([f64; 2]),
    Pole,
}

impl Slope {
    /// Looks with smaller and smaller steps, until the slope agrees with the gradient.
    fn find(
        x: f64,
        gradient: f64,
        center: f64,
        along: &mut impl FnMut(f64) -> f64,
        agrees: impl Fn(f64) -> bool,
    ) -> Self {
        let (step, nearer) = (power_below(x.abs().max(1.0)) / 1024.0, power_below(x.abs()) / 1024.0);
        let mut seen: Vec<Differences> = Vec::new();
        for step in [step, step / 16.0, step / 256.0, nearer, nearer / 16.0] {
            if step < f64::MIN_POSITIVE || seen.last().is_some_and(|last| 8.0 * step > last.step) {
                continue;
            }
            if let Some(differences) = Differences::new(step, center, along) {
                if agrees(differences.slope) {
                    return Self::Smooth(differences.slope);
                }
                seen.push(differences);
            }
        }
        let (coarse, fine) = match seen.as_slice() {
            [] => return Self::Pole,
            [only] => return Self::Smooth(only.slope),
            [.., coarse, fine] => (coarse, fine),
        };
        let resolution = fine.resolution;
        let grows = |coarse: f64, fine: f64| fine.abs() > 2.0 * coarse.abs() && fine.abs() > resolution;
        if grows(coarse.slope, fine.slope) || grows(coarse.jump(), fine.jump()) {
            Self::Pole
        } else if fine.jump() > 0.25 * coarse.jump() && fine.jump() > fine.resolution {
            Self::Kink([fine.left, fine.right])
        } else {
            let distance = |slope: &f64| (slope - gradient).abs();
            let slopes = seen.iter().map(|differences| differences.slope);
            Self::Smooth(slopes.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(f64::NAN))
        }
    }
}

/// Differences with one step.
struct Differences {
    step: f64,
    slope: f64,
    left: f64,
    right: f64,
    /// A difference of slopes below this may be rounding.
    resolution: f64,
}

impl Differences {
    /// `None` if the function has no value somewhere, or no slope.
    fn new(step: f64, center: f64, along: &mut impl FnMut(f64) -> f64) -> Option<Self> {
        /// The sum of differences of such parts of finite values is finite.
        const PART: f64 = 1.0 / 32.0;
        let [far_left, left, right, far_right] = [-2.0, -1.0, 1.0, 2.0].map(|times| along(times * step) * PART);
        let values = [far_left, left, center * PART, right, far_right];
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let slope = |difference: f64| difference / step / PART;
        let [slope, left, right] = [
            slope((8.0 * (right - left) - (far_right - far_left)) / 12.0),
            slope(values[2] - left),
            slope(right - values[2]),
        ];
        let has_slopes = slope.is_finite() && left.is_finite() && right.is_finite();
        (largest.is_finite() && has_slopes).then_some(Self {
            step,
            slope,
            left,
            right,
            resolution: largest / (step * (1_u64 << 40) as f64 * PART),
        })
    }

    fn jump(&self) -> f64 {
        (self.right - self.left).abs()
    }
}

/// The largest power of two that is not above `x`; 0 for 0 and subnormal numbers.
fn power_below(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0x7ff0_0000_0000_0000)
}

impl fmt::Display for GradcheckElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, gradient, slopes: [left, right], error, allowed } = self;
        write!(f, "element {index} is {gradient:e} and should be ")?;
        if left == right {
            write!(f, "{left:e}")?;
        } else if left.is_nan() {
            return f.write_str("a number, at a pole");
        } else {
            write!(f, "from {:e} to {:e}, at a kink", left.min(*right), left.max(*right))?;
        }
        write!(f, ": wrong by {error:.1e}, allowed {allowed:.1e}")
    }
}

impl fmt::Display for GradcheckMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worst, count, len } = self;
        let verb = if *count == 1 { "is" } else { "are" };
        write!(f, "gradcheck: {worst}; {count} of {len} elements {verb} wrong")
    }
}
