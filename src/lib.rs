//! nanproof
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod error;
mod finite;
mod float;
mod isa;
mod kernel;
mod lanes;
mod math;
mod simd;

pub use error::{Error, Result, Shape};
pub use finite::{Class, Counts, Index, NonFinite, Origin};
pub use float::Float;
pub use isa::Isa;

/// What this crate's own tests and benchmarks look into; not part of its public interface.
#[doc(hidden)]
pub mod internal {
    pub use crate::kernel::Kernel;
    pub use crate::simd::*;
}
