//! The coefficients of the vector functions, one set a type.

/// What the vector functions need to know of a type.
pub trait Constants: Sized + 'static {}
impl Constants for f32 {}
impl Constants for f64 {}
