//! The check for NaN and infinities alone.

use crate::error::Result;
use crate::finite::{Operand, Watch, diagnose, overflow_or_invalid};
use crate::float::Float;
use crate::kernel::{Kernel, launch};
use crate::lanes::Lanes;
use crate::simd::Simd;
use crate::sweep::{GROUP, load_tail};

/// Looks through a slice for NaN and infinities, as fast as memory can be read. The empty slice is finite.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if there are any: the first one, and how many of each class.
///
/// ```
/// nanproof::check_finite(&[1.0_f32, -0.0, f32::MAX])?;
///
/// let error = nanproof::check_finite(&[1.0, f64::NAN, f64::INFINITY]).unwrap_err();
/// assert_eq!(error.to_string(), "check_finite: x[1] is NaN, passed in; 2 of 3 elements are not finite");
/// # Ok::<(), nanproof::Error>(())
/// ```
pub fn check_finite<T: Float>(x: &[T]) -> Result<()> {
    if launch(AllFinite { x })? {
        return Ok(());
    }
    diagnose("check_finite", [Operand::slice("x", x)], [], overflow_or_invalid)
}

/// The same check and the same report for an operation of your own: looks through its outputs, and if they are not
/// finite, says whether that was passed in or born there.
///
/// `inputs` and `outputs` are slices with the names that the report uses. Inputs are looked at only if an output is not
/// finite; give those that the operation reads. What is born is [`Origin::Invalid`](crate::Origin::Invalid) if it is
/// NaN, else [`Origin::Overflow`](crate::Origin::Overflow): a division by zero is not told from an overflow.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if an element of an output is not finite.
///
/// ```
/// let x = [1.0_f32, 200.0, -3.0];
/// let y = x.map(f32::exp);
/// let error = nanproof::check_operation("exp", &[("x", &x)], &[("y", &y)]).unwrap_err();
/// assert_eq!(error.to_string(), "exp: y[1] is +Inf, born here: overflow; 1 of 3 elements is not finite");
/// ```
pub fn check_operation<T: Float>(
    operation: &'static str,
    inputs: &[(&'static str, &[T])],
    outputs: &[(&'static str, &[T])],
) -> Result<()> {
    for &(_, x) in outputs {
        if !launch(AllFinite { x })? {
            let operand = |&(name, x): &(&'static str, _)| Operand::slice(name, x);
            return diagnose(operation, inputs.iter().map(operand), outputs.iter().map(operand), overflow_or_invalid);
        }
    }
    Ok(())
}

/// Tells whether a slice is finite.
#[derive(Debug)]
pub struct AllFinite<'a, T> {
    x: &'a [T],
}

impl<T: Float> Kernel for AllFinite<'_, T> {
    type Elem = T;
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<T>>(self, simd: S) -> bool {
        let mut watches = [Watch::new(simd); GROUP];
        let (blocks, tail) = T::blocks(self.x);
        let (groups, rest) = blocks.as_chunks::<GROUP>();
        for group in groups {
            for (watch, block) in watches.iter_mut().zip(group) {
                watch.see(Lanes::load(simd, block));
            }
        }
        for block in rest {
            watches[0].see(Lanes::load(simd, block));
        }
        if !tail.is_empty() {
            watches[0].see(load_tail(simd, tail, T::zero()));
        }
        let [a, b, c, d] = watches;
        a.all_finite() && b.all_finite() && c.all_finite() && d.all_finite()
    }

    fn work(&self) -> usize {
        self.x.len()
    }

    fn halve(self) -> Result<(Self, Self), Self> {
        let (a, b) = self.x.split_at(self.x.len() / 2);
        Ok((Self { x: a }, Self { x: b }))
    }
}
