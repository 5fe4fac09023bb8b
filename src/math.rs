//! The vector functions: one file each, with the formula, the range and the largest error above it.

mod constants;
mod exp;
mod ln_1p;
mod tanh;

pub use constants::Constants;
