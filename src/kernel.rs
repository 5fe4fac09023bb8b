//! [`Kernel`]: a computation written once for every instruction set; how it is split over threads, and where each one
//! is compiled.

use alloc::vec::Vec;

use crate::diagnose::Survey;
use crate::error::Result;
use crate::float::Float;
use crate::gemm::Gemm;
use crate::isa::{Isa, run_on};
use crate::logits::{LogitRows, Singly};
use crate::math::Function;
use crate::ops::activation::formulas::{Backward, Forward};
use crate::ops::angle::{Angle, AngleBackward};
use crate::ops::broadcast::Second;
use crate::ops::check::AllFinite;
use crate::ops::clip::{Clamp, ClampBackward};
use crate::ops::cross_entropy::CrossEntropyRow;
use crate::ops::divergence::{BinaryCrossEntropy, BinaryCrossEntropyBackward, Divergence, DivergenceBackward};
use crate::ops::divide::{Quotient, QuotientBackward};
use crate::ops::entropy::{EntropyBackwardRow, EntropyRow};
use crate::ops::extrema::ExtremeRow;
use crate::ops::guarded::{Guarded, GuardedBackward};
use crate::ops::linear::{ActivationBackwardRow, ActivationRow};
use crate::ops::logsumexp::{LogSumExpBackwardRow, LogSumExpRow, WeightedBackwardRow, WeightedRow};
use crate::ops::multiply::{Product, ProductBackward};
use crate::ops::optimizer::{AdamWStep, Calm, SgdStep};
use crate::ops::power::{Power, PowerBackward, XLog, XLogBackward};
use crate::ops::running_logsumexp::{BlockSumRow, JoinPartials};
use crate::ops::scale::{Scale, ScaleSteps};
use crate::ops::softmax::{LogSoftmaxBackwardRow, LogSoftmaxRow, SoftmaxBackwardRow, SoftmaxRow};
use crate::ops::sum::{Dot, Sum};
use crate::reduce::MaxAbs;
use crate::row_gradient::RowGradient;
use crate::row_map::RowMap;
use crate::rows::Rowwise;
use crate::simd::Simd;
use crate::squares::SumOfSquares;
use crate::sweep::{Elementwise, Map, Rehearsal};
use crate::view::CopyMatrix;

/// A computation over any instruction set.
///
/// `run` and everything on the way from it to an operation of [`Simd`] is `#[inline(always)]`: code that falls out of
/// the function that [`Simd::vectorize`] enters loses the CPU's features and runs 2 to 40 times slower.
pub trait Kernel: Sized {
    /// The type that it computes in.
    type Elem: Float;
    /// What it returns.
    type Output: Join;
    /// Computes.
    fn run<S: Simd<Self::Elem>>(self, simd: S) -> Self::Output;

    /// How many elements it goes through, each worth about a nanosecond or less.
    fn work(&self) -> usize {
        0
    }

    /// Two kernels that together do the same, with the same bits wherever the cut falls.
    ///
    /// # Errors
    /// The kernel itself, if it cannot be cut.
    fn halve(self) -> core::result::Result<(Self, Self), Self> {
        Err(self)
    }
}

/// What two halves of a kernel return, put together.
pub trait Join: Send {
    /// The output of the first half joined by that of the second.
    fn join(self, second: Self) -> Self;
}

impl Join for () {
    fn join(self, (): Self) {}
}

/// Whether all is finite.
impl Join for bool {
    fn join(self, second: Self) -> Self {
        self && second
    }
}

/// A list.
impl<T: Send> Join for Vec<T> {
    fn join(mut self, second: Self) -> Self {
        self.extend(second);
        self
    }
}

/// Runs a kernel as a function of its own: what it keeps in registers does not compete with what its caller does.
#[inline(never)]
pub(crate) fn outline<K: Kernel, S: Simd<K::Elem>>(simd: S, kernel: K) -> K::Output {
    simd.vectorize(kernel)
}

/// [`outline`] where that is rare: registers are saved there and not in the loop around it.
#[cold]
#[inline(never)]
pub(crate) fn outline_rare<K: Kernel, S: Simd<K::Elem>>(simd: S, kernel: K) -> K::Output {
    simd.vectorize(kernel)
}

/// Runs a kernel through `run`; with feature `rayon` in pieces over the threads of the caller's pool, if it is large.
fn run_in_pieces<K: Kernel + Send>(kernel: K, run: impl Fn(K) -> K::Output + Copy + Sync) -> K::Output {
    #[cfg(feature = "rayon")]
    if kernel.work() > threads::GRAIN {
        return threads::fork(kernel, run, rayon::current_num_threads());
    }
    run(kernel)
}

/// Why threads do not disturb each other, which nobody has to find by running them under a sanitizer:
///
/// - There is no `unsafe` code, so the compiler admits no data race. Halves borrow what they write apart from each other.
/// - What threads share is not written: operands, and the choice of [`crate::Isa`], made once. What is written and kept,
///   the scratch of products and an instruction set that is forced, is the thread's own.
/// - Nothing waits but a join for its halves, and no lock is held in one: nothing can wait for itself. A thread that waits
///   may be given another call in the meantime; it finds the scratch taken, and makes its own.
/// - A cut and the way in which halves are put together are functions of the operands and the number of pieces, not of
///   who was first; where they could change a bit, `halve` cuts at multiples of what is summed together.
#[cfg(feature = "rayon")]
mod threads {
    use super::{Join, Kernel};

    /// Work below which a thread costs more than it saves.
    pub(super) const GRAIN: usize = 1 << 15;

    /// Runs a kernel in so many pieces.
    pub(super) fn fork<K: Kernel + Send>(
        mut kernel: K,
        run: impl Fn(K) -> K::Output + Copy + Sync,
        pieces: usize,
    ) -> K::Output {
        if pieces >= 2 && kernel.work() > GRAIN {
            match kernel.halve() {
                Ok((first, second)) => {
                    let half = pieces / 2;
                    let (first, second) = both(|| fork(first, run, half), || fork(second, run, pieces - half));
                    return first.join(second);
                }
                Err(whole) => kernel = whole,
            }
        }
        run(kernel)
    }

    /// [`rayon::join`], which is compiled once and not for every kernel.
    fn both<R: Send>(first: impl FnOnce() -> R + Send, second: impl FnOnce() -> R + Send) -> (R, R) {
        let (mut tasks, mut results) = ((Some(first), Some(second)), (None, None));
        let mut run_first = || results.0 = tasks.0.take().map(|task| task());
        let mut run_second = || results.1 = tasks.1.take().map(|task| task());
        join(&mut run_first, &mut run_second);
        results.0.zip(results.1).expect("both tasks have run")
    }

    fn join(first: &mut (dyn FnMut() + Send), second: &mut (dyn FnMut() + Send)) {
        rayon::join(first, second);
    }
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
    ($($kernel:ty),* $(,)?) => {
        /// The kernels that every [`Float`] has.
        pub trait Kernels: Sized $(+ for<'a> Runs<$kernel>)* {}
        compile!(@ f32: $($kernel,)*);
        compile!(@ f64: $($kernel,)*);
    };
    (@ $float:ident: $($kernel:ty,)*) => {
        impl Kernels for $float {}
        $(impl<'a> Runs<$kernel> for $float {
            fn launch(kernel: $kernel) -> Result<<$kernel as Kernel>::Output> {
                let isa = Isa::active()?;
                Ok(run_in_pieces(kernel, |kernel| run_on(isa, kernel)))
            }
        })*
    };
}

// Add the kernels of an operation here.
compile!(
    AllFinite<'a, Self>,
    CopyMatrix<'a, Self>,
    Dot<'a, Self>,
    Gemm<'a, Self>,
    JoinPartials<'a, Self>,
    MaxAbs<'a, Self>,
    RowGradient<'a, Self>,
    Sum<'a, Self>,
    SumOfSquares<'a, Self>,
    Survey<'a, Self>,
    Elementwise<'a, Self, Angle, 2, 1>,
    Elementwise<'a, Self, AngleBackward, 3, 2>,
    Elementwise<'a, Self, Second<AngleBackward>, 3, 2>,
    Elementwise<'a, Self, BinaryCrossEntropy, 2, 1>,
    Elementwise<'a, Self, BinaryCrossEntropyBackward<Self>, 2, 1>,
    Elementwise<'a, Self, Backward<Self>, 2, 1>,
    Elementwise<'a, Self, Clamp<Self>, 0, 1>,
    Elementwise<'a, Self, ClampBackward<Self>, 2, 1>,
    Elementwise<'a, Self, Divergence, 2, 1>,
    Elementwise<'a, Self, DivergenceBackward<Self>, 2, 2>,
    Elementwise<'a, Self, Guarded<Self>, 1, 1>,
    Elementwise<'a, Self, GuardedBackward<Self>, 2, 1>,
    Elementwise<'a, Self, Power<Self>, 2, 1>,
    Elementwise<'a, Self, PowerBackward<Self>, 3, 2>,
    Elementwise<'a, Self, Second<PowerBackward<Self>>, 3, 2>,
    Elementwise<'a, Self, Product, 2, 1>,
    Elementwise<'a, Self, ProductBackward, 3, 2>,
    Elementwise<'a, Self, Second<ProductBackward>, 3, 2>,
    Elementwise<'a, Self, Quotient<Self>, 2, 1>,
    Elementwise<'a, Self, QuotientBackward<Self>, 3, 2>,
    Elementwise<'a, Self, Second<QuotientBackward<Self>>, 3, 2>,
    Elementwise<'a, Self, Scale<Self>, 0, 1>,
    Elementwise<'a, Self, ScaleSteps<Self>, 0, 1>,
    Elementwise<'a, Self, AdamWStep<Self>, 1, 3>,
    Elementwise<'a, Self, SgdStep<Self>, 1, 2>,
    Elementwise<'a, Self, XLog, 2, 1>,
    Elementwise<'a, Self, XLogBackward, 3, 2>,
    Elementwise<'a, Self, Second<XLogBackward>, 3, 2>,
    LogitRows<'a, Self, Singly<BlockSumRow>>,
    LogitRows<'a, Self, CrossEntropyRow<'a, Self>>,
    LogitRows<'a, Self, Singly<EntropyRow>>,
    LogitRows<'a, Self, Singly<EntropyBackwardRow<'a, Self>>>,
    LogitRows<'a, Self, LogSoftmaxRow>,
    LogitRows<'a, Self, Singly<LogSumExpBackwardRow<'a, Self>>>,
    LogitRows<'a, Self, LogSumExpRow>,
    LogitRows<'a, Self, SoftmaxRow>,
    LogitRows<'a, Self, Singly<WeightedRow<'a, Self>>>,
    LogitRows<'a, Self, Singly<WeightedBackwardRow<'a, Self>>>,
    Map<'a, Self, Forward<Self>>,
    Map<'a, Self, Function>,
    Rehearsal<'a, Self, AdamWStep<Self>, 1, 3>,
    Rehearsal<'a, Self, Calm<Self>, 1, 2>,
    Rehearsal<'a, Self, Calm<Self>, 1, 3>,
    Rehearsal<'a, Self, Clamp<Self>, 0, 1>,
    Rehearsal<'a, Self, SgdStep<Self>, 1, 2>,
    Rowwise<'a, Self, ActivationRow, 1>,
    Rowwise<'a, Self, ActivationBackwardRow, 2>,
    Rowwise<'a, Self, ExtremeRow, 2>,
    Rowwise<'a, Self, LogSoftmaxBackwardRow<Self>, 2>,
    Rowwise<'a, Self, SoftmaxBackwardRow<Self>, 2>,
    Rowwise<'a, Self, RowMap<'a, Self>, 2>,
);
