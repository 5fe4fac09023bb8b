//! [`Kernel`]: a computation written once for every instruction set, and where each one is compiled.

use crate::error::Result;
use crate::float::Float;
use crate::isa::dispatch;
use crate::simd::Simd;

/// A computation over any instruction set.
///
/// `run` and everything on the way from it to an operation of [`Simd`] is `#[inline(always)]`: code that falls out of
/// the function that [`Simd::vectorize`] enters loses the CPU's features and runs 2 to 40 times slower.
pub trait Kernel {
    /// The type that it computes in.
    type Elem: Float;
    /// What it returns.
    type Output;
    /// Computes.
    fn run<S: Simd<Self::Elem>>(self, simd: S) -> Self::Output;
}

/// A type with a compiled kernel `K`.
pub trait Runs<K: Kernel> {
    /// Runs the kernel on the active instruction set.
    fn launch(kernel: K) -> Result<K::Output>;
}

/// Runs a kernel on the active instruction set.
pub(crate) fn launch<K: Kernel<Elem: Runs<K>>>(kernel: K) -> Result<K::Output> {
    K::Elem::launch(kernel)
}

/// Compiles each kernel here, for both types: in this crate, so that a dependent neither compiles it again nor runs
/// it unoptimised in its debug builds.
macro_rules! compile {
    ($($kernel:ident),* $(,)?) => {
        /// The kernels that every [`Float`] has.
        pub trait Kernels: Sized $(+ for<'a> Runs<$kernel<'a, Self>>)* {}
        compile!(@ f32 $($kernel)*);
        compile!(@ f64 $($kernel)*);
    };
    (@ $float:ident $($kernel:ident)*) => {
        impl Kernels for $float {}
        $(impl Runs<$kernel<'_, $float>> for $float {
            fn launch(kernel: $kernel<'_, $float>) -> Result<<$kernel<'_, $float> as Kernel>::Output> {
                dispatch(kernel)
            }
        })*
    };
}

compile!();
