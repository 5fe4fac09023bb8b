//! nanproof
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod error;
mod finite;
mod float;
mod gemm;
mod isa;
mod kernel;
mod lanes;
mod math;
mod ops;
mod reduce;
mod rows;
mod scaled;
mod simd;
mod sweep;
mod view;

pub mod reference;

pub use error::{Error, Result, Shape};
pub use finite::{Class, Counts, Index, NonFinite, Origin};
pub use float::Float;
pub use isa::Isa;
pub use ops::*;
pub use view::{MatMut, MatRef};

/// What this crate's own tests and benchmarks look into; not part of its public interface.
#[doc(hidden)]
pub mod internal {
    pub use crate::kernel::Kernel;
    pub use crate::simd::*;
}
