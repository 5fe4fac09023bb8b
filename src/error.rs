//! [`Error`]: what went wrong, where, and what to do about it.

use alloc::boxed::Box;
use core::fmt;

use crate::diagnose::GradcheckMismatch;
use crate::finite::NonFinite;
use crate::isa::Isa;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a call could not do what was asked.
///
/// [`NonFinite`](Error::NonFinite) is found while computing: the results are then written by the rules of IEEE 754, except
/// by functions that work in place, which leave their operand as it was unless they say otherwise. All else is found
/// before anything is written. The operation that an error names is that of the function without `_with`.
///
/// ```
/// use nanproof::{Error, MatMut, MatRef, softmax};
///
/// let x = [0.0_f32; 6];
/// let mut y = [0.0_f32; 4];
/// let error = softmax(MatRef::new(&x, 2, 3)?, MatMut::new(&mut y, 2, 2)?).unwrap_err();
/// assert!(matches!(error, Error::Shape { .. }));
/// assert_eq!(error.to_string(), "softmax: y is 2 x 2 and must be 2 x 3, the shape of x");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// Two operands do not fit together, or a slice does not fit its shape.
    Shape {
        /// The operation that refused.
        operation: &'static str,
        /// The operand at fault.
        operand: &'static str,
        /// What it is.
        found: Shape,
        /// What it must be.
        expected: Shape,
        /// Where the expectation comes from.
        reason: &'static str,
    },
    /// An argument lies outside its range.
    Argument {
        /// The operation that refused.
        operation: &'static str,
        /// The argument at fault.
        argument: &'static str,
        /// What is wrong with it and what is allowed.
        problem: &'static str,
    },
    /// A result or an operand is NaN or infinite where the operation does not define it so.
    NonFinite(Box<NonFinite>),
    /// A gradient overflows although the [loss scale](crate::DynamicLossScale) is the smallest allowed.
    LossScale(Box<NonFinite>),
    /// A gradient is not that of its function: the finding of [`gradcheck`](crate::gradcheck).
    Gradient(Box<GradcheckMismatch>),
    /// An instruction set that this CPU does not have, asked for by [`Isa::run`] or `NANPROOF_ISA`.
    Isa(Isa),
    /// The name of an instruction set, from `NANPROOF_ISA` perhaps, that is none.
    UnknownIsa(Box<str>),
}

/// The extent of an operand, as it stands in an [`Error::Shape`].
///
/// ```
/// use nanproof::Shape;
///
/// assert_eq!(Shape::Vector(3).to_string(), "3 long");
/// assert_eq!(Shape::Matrix(3, 4).to_string(), "3 x 4");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A slice of so many elements.
    Vector(usize),
    /// Rows and columns.
    Matrix(usize, usize),
    /// Matrices, rows and columns of each.
    Batch(usize, usize, usize),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(len) => write!(f, "{len} long"),
            Self::Matrix(rows, cols) => write!(f, "{rows} x {cols}"),
            Self::Batch(len, rows, cols) => write!(f, "{len} x {rows} x {cols}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { operation, operand, found, expected, reason } => {
                write!(f, "{operation}: {operand} is {found} and must be {expected}, {reason}")
            }
            Self::Argument { operation, argument, problem } => write!(f, "{operation}: {argument} {problem}"),
            Self::NonFinite(report) => report.fmt(f),
            Self::LossScale(report) => {
                write!(f, "the loss scale is the smallest allowed and a gradient still overflows: {report}")
            }
            Self::Gradient(mismatch) => mismatch.fmt(f),
            Self::Isa(isa) => write!(f, "instruction set {isa}: this CPU does not have it; it has {}", Available),
            Self::UnknownIsa(name) => write!(f, "{name:?} is no instruction set; this CPU has {}", Available),
        }
    }
}

struct Available;

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, isa) in Isa::available().iter().enumerate() {
            write!(f, "{}{isa}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl core::error::Error for Error {}

impl From<NonFinite> for Error {
    fn from(report: NonFinite) -> Self {
        Self::NonFinite(Box::new(report))
    }
}

/// Refuses a vector whose length is not `expected`.
pub(crate) fn check_len(
    operation: &'static str,
    operand: &'static str,
    found: usize,
    expected: usize,
    reason: &'static str,
) -> Result<()> {
    check_shape(operation, operand, Shape::Vector(found), Shape::Vector(expected), reason)
}

/// Refuses an operand whose shape is not `expected`.
#[inline]
pub(crate) fn check_shape(
    operation: &'static str,
    operand: &'static str,
    found: Shape,
    expected: Shape,
    reason: &'static str,
) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Shape { operation, operand, found, expected, reason }) }
}
